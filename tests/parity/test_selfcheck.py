"""`peft-run selfcheck` passes for the adapters of the tree, with any options, in fp64."""

import pytest


@pytest.mark.parametrize(
    "options",
    [
        [],
        ['target_modules="all-linear"', "r=3", "use_rslora=true"],
        ['target_modules=["embed_tokens", "lm_head", "q_proj"]', "init_lora_weights=false"],
        ["lora_bias=true", "init_lora_weights=false", "lora_dropout=0.3"],
    ],
)
def test_lora(run, options):
    told = run("peft-run", "selfcheck", "adapter/lora", *(word for option in options for word in ("--set", option))).stdout
    assert "BROKEN" not in told
    assert "gradients match finite differences" in told and "merged weights give the same outputs" in told


def test_selfcheck_refuses(run):
    assert "adapter/NAME" in run("peft-run", "selfcheck", "optimizer/adamw", code=2).stderr
    assert "nonesuch" in run("peft-run", "selfcheck", "adapter/nonesuch", code=4).stderr
    assert "'rank'" in run("peft-run", "selfcheck", "adapter/lora", "--set", "rank=3", code=2).stderr
