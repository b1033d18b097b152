"""The methods that train the model's own parameters, `full` and `bitfit`, compared with a plain loop over transformers' model: losses,
saved files, loading them again, and the merged folder."""

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from method_support import base_model, batch, train
from model_support import apart, farthest, losses_of, model_answer, peer_answer, peer_step, random_examples, within

STEPS, LR = 4, 1e-3
# method, options, whether the head shares the embedding's weight, which of transformers' parameters train
CASES = [
    ("full", {}, False, lambda name: True),
    ("full", {}, True, lambda name: True),
    ("full", {"target_modules": ["lm_head"]}, True, lambda name: name == "model.embed_tokens.weight"),
    ("full", {"target_modules": r".*\.layers\.1\..*", "exclude_modules": ["q_proj", "input_layernorm"]}, False,
     lambda name: ".layers.1." in name and "q_proj" not in name and "input_layernorm" not in name),
    ("bitfit", {}, False, lambda name: name.endswith("bias")),
    ("bitfit", {"target_modules": ["v_proj", "down_proj"], "modules_to_save": ["norm"]}, True,
     lambda name: name.endswith(("v_proj.bias", "down_proj.bias")) or "norm" in name),
]


def trained_there(folder, chosen):
    """transformers' model after the same steps of AdamW, and its losses."""
    model = base_model(folder)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(chosen(name))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=0.0)
    data = batch(transformers.AutoTokenizer.from_pretrained(folder / "model"))
    losses = []
    for _ in range(STEPS):
        losses.append(peer_step(model(**data).loss, optimizer))
    return model.eval(), losses


@pytest.mark.parametrize("method,options,tied,chosen", CASES)
def test_training_equals_transformers(run, tmp_path, method, options, tied, chosen):
    save_llama(tmp_path / "model", attention_bias=True, mlp_bias=True, tie_word_embeddings=tied)
    folder, tensors, config = train(run, tmp_path, method, options, steps=STEPS, lr=LR)
    model, losses = trained_there(tmp_path, chosen)
    within("losses", farthest(losses_of(folder), losses), 1e-4)

    assert config["peft_type"] == method.upper()
    expected = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    assert tensors.keys() == {"base_model.model." + name for name in expected}
    for name, tensor in expected.items():
        torch.testing.assert_close(tensors["base_model.model." + name], tensor, rtol=1e-3, atol=2e-5)

    examples = random_examples(258)
    run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", folder, "--output", tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.tie_word_embeddings == tied
    with torch.no_grad():
        logits, _ = peer_answer(merged, examples)
    changed = {name for name, tensor in merged.named_parameters() if not torch.equal(tensor, base_model(tmp_path).get_parameter(name))}
    assert changed == expected.keys()
    for fused in (True, False):
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=folder, fused=fused)
        within("logits", apart(ours["logits"], logits), 2e-5)
    stored = load_file(tmp_path / "merged" / "model.safetensors")
    assert ("lm_head.weight" in stored) == (not tied)


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_selfcheck(run, method):
    told = run("peft-run", "selfcheck", f"adapter/{method}").stdout
    assert "BROKEN" not in told
    assert "gradients match finite differences" in told and "merged weights give the same outputs" in told


def test_bitfit_needs_biases(run, tmp_path):
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "experiment.toml").write_text(
        '[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "bitfit"\n'
        '[training]\noutput_dir = "out"\nmax_steps = 1\n'
    )
    assert "none of the modules has a bias to train" in run("peft-run", tmp_path / "experiment.toml", code=2).stderr
