"""Trainable token rows where the head is tied to the embedding, for each way to configure them: an adapter made in HF PEFT has the same
outputs and gradients here; one made here has HF PEFT's keys and config, and HF PEFT loads it; training takes the same steps; merged it
is the same model. test_methods.py covers untied heads."""

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from method_support import check_saved_form, check_training
from model_support import apart, model_answer, peer_answer, random_examples, within
from test_methods import made_there, saved_name

TOKENS = list(range(90, 4, -1))
CASES = [
    ("lora", peft.LoraConfig, {"trainable_token_indices": TOKENS}),
    ("lora", peft.LoraConfig, {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": TOKENS}}),
    ("lora", peft.LoraConfig, {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": [70, 8]}}),
    ("lora", peft.LoraConfig, {"trainable_token_indices": {"lm_head": TOKENS}}),
    ("trainable_tokens", peft.TrainableTokensConfig, {"token_indices": TOKENS}),
    ("trainable_tokens", peft.TrainableTokensConfig, {"token_indices": TOKENS, "target_modules": ["lm_head"]}),
]
#: whose embedding and head stay one weight
TIED = [CASES[0][2], CASES[1][2], CASES[4][2]]
TIED_ROWS = "base_model.model.lm_head.trainable_tokens_delta"
NAMES = ["list", "both", "both_apart", "head", "alone", "alone_head"]
every = pytest.mark.parametrize("method,config,options", CASES, ids=NAMES)


def tiny_tied(folder):
    save_llama(folder / "model", tie_word_embeddings=True)


@every
def test_loads_adapter_from_hf_peft(run, tmp_path, method, config, options):
    tiny_tied(tmp_path)
    model, examples = made_there(tmp_path, config, options), random_examples(258)
    logits, loss = peer_answer(model, examples)
    loss.backward()
    gradients = {saved_name(name): p.grad for name, p in model.named_parameters() if p.requires_grad}
    ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "theirs")
    within("logits", apart(ours["logits"], logits.detach()), 2e-5)
    if "token_indices" in options and options in TIED:  # one tensor under two names
        gradients[TIED_ROWS] = gradients["base_model.model.model.embed_tokens.trainable_tokens_delta"]
    assert {name for name in ours if name.startswith("grad.")} == {"grad." + name for name in gradients}
    for name, gradient in gradients.items():
        within("gradients", apart(ours["grad." + name], gradient), 1e-4)

    run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--output", tmp_path / "out")
    with torch.no_grad():
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        within("merged", apart(peer_answer(merged, examples)[0], logits.detach()), 2e-5)
    assert merged.config.tie_word_embeddings == (options in TIED)


@every
def test_saved_file_equals_hf_peft(run, tmp_path, method, config, options):
    tiny_tied(tmp_path)
    check_saved_form(run, tmp_path, method, config, options)


@pytest.mark.parametrize("method,config,options", CASES[:3:2] + CASES[4:5], ids=NAMES[:3:2] + NAMES[4:5])
def test_training_equals_hf_peft(run, tmp_path, method, config, options):
    tiny_tied(tmp_path)
    check_training(run, tmp_path, method, options, steps=4)


def test_saved_rows_are_absolute_values(run, tmp_path):
    """Untrained, the file holds the base's rows in the order of the option: a reader of PEFT's format puts them in place."""
    tiny_tied(tmp_path)
    check_saved_form(run, tmp_path, "trainable_tokens", peft.TrainableTokensConfig, {"token_indices": [70, 8]})
    rows = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    base = load_file(tmp_path / "model" / "model.safetensors")["model.embed_tokens.weight"]
    delta = rows["base_model.model.model.embed_tokens.trainable_tokens_delta"]
    assert torch.equal(delta, base[[70, 8]]) and torch.equal(rows[TIED_ROWS], delta)
    ours = load_file(tmp_path / "run" / "adapter_model.safetensors")["base_model.model.model.embed_tokens.trainable_tokens_delta"]
    assert (ours - delta).abs().max() < 0.1  # one step of AdamW at 1e-2 away
