"""`peft-run selfcheck` passes for plugins of the tree, and finds mistakes."""

import pytest

from conftest import from_environment


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
    printed = run("peft-run", "selfcheck", "adapter/lora", *(word for option in options for word in ("--set", option))).stdout
    assert "BROKEN" not in printed
    assert "gradients match finite differences" in printed and "merged weights give the same outputs" in printed


@pytest.mark.parametrize("plugin", ["optimizer/adamw", "scheduler/cosine", "clipping/zclip", "precision/bf16", "objective/sft"])
def test_other_kinds(run, plugin):
    """All plugins: tests/framework/selfcheck/selfcheck_test.cpp."""
    printed = run("peft-run", "selfcheck", plugin).stdout
    assert "BROKEN" not in printed and "the saved state restores it" in printed


MISTAKES = [
    ("adapter", "unregistered", "BROKEN  whatever wants a gradient is a registered parameter: "),
    ("adapter", "counts", "BROKEN  recomputed activations give the same gradients: "),
    ("adapter", "promotes", "BROKEN  it trains in bf16: "),
    ("optimizer", "forgets", "BROKEN  the saved state restores it: "),
]


@pytest.mark.parametrize("kind,mistake,line", MISTAKES, ids=[f"{row[0]} {row[1]}" for row in MISTAKES])
def test_mistakes_are_found(run, kind, mistake, line):
    folder = (from_environment("PEFT_BUILD") / "tests" / "plugins" / "mistaken").resolve()
    done = run("peft-run", "selfcheck", f"{kind}/mistaken", "--set", f'mistake="{mistake}"', "--plugin-path", folder, code=4)
    assert line in done.stdout and f"{kind}/mistaken fails a check" in done.stderr


def test_selfcheck_refuses(run):
    assert "KIND/NAME" in run("peft-run", "selfcheck", "lora", code=2).stderr
    assert "'adaptor' is not a plugin kind" in run("peft-run", "selfcheck", "adaptor/lora", code=2).stderr
    assert "nonesuch" in run("peft-run", "selfcheck", "adapter/nonesuch", code=4).stderr
    assert "'rank'" in run("peft-run", "selfcheck", "adapter/lora", "--set", "rank=3", code=2).stderr
