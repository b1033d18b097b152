"""LoRA's layer_replication, in addition to its rows in test_methods.py: parameters are counted as HF PEFT counts them, and the plan
counts the deeper model's activations; data-driven initialization uses the deeper model; a saved adapter can be trained further,
generate and be evaluated; merge and export write the complete deeper model; invalid settings are refused."""

import json
import re

import peft
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from method_support import base_model, made_there, train
from model_support import apart, farthest, model_answer, peer_answer, random_examples, within

OPTIONS = {"layer_replication": [[0, 3], [1, 3]], "r": 4, "target_modules": "all-linear"}


def tiny(folder):
    save_llama(folder / "model", num_hidden_layers=3)


def activations(plan):
    """In KiB."""
    size, unit = re.search(r"activations ([0-9.]+) ([KM])iB", plan).groups()
    return float(size) * {"K": 1, "M": 1024}[unit]


def test_parameter_counts_equal_hf_peft(run, tmp_path):
    tiny(tmp_path)
    train(run, tmp_path, "lora", OPTIONS)
    plan = run("peft-run", "plan", tmp_path / "run.toml").stdout
    model = peft.get_peft_model(base_model(tmp_path), peft.LoraConfig(task_type="CAUSAL_LM", **OPTIONS))
    trained, all_there_are = model.get_nb_trainable_parameters()
    assert f"trainable params: {trained:,} || all params: {all_there_are:,} ||" in plan
    plain = run("peft-run", "plan", tmp_path / "run.toml", "--set", "adapter.layer_replication=[[0, 3]]").stdout
    assert 1.4 < activations(plan) / activations(plain) < 5 / 3 + 0.01


def test_data_driven_init_uses_the_deeper_model(run, tmp_path):
    tiny(tmp_path)
    _, tensors, config = train(run, tmp_path, "lora", OPTIONS | {"init_lora_weights": "eva", "target_modules": ["v_proj"]}, lr=0.0)
    layers = {int(re.search(r"layers\.(\d+)\.", name).group(1)) for name in tensors}
    assert layers <= set(range(5)) and max(layers) > 2
    directions = {name: tensor for name, tensor in tensors.items() if "lora_A" in name}
    assert sum(len(tensor) for tensor in directions.values()) == 4 * 5  # ranks go where they explain most, all of them
    for tensor in directions.values():
        within("orthogonal", (tensor @ tensor.T - torch.eye(len(tensor))).abs().max(), 1e-4)
    assert config["layer_replication"] == OPTIONS["layer_replication"]


def test_saved_adapter_brings_its_layers(run, tmp_path):
    tiny(tmp_path)
    model, examples = made_there(tmp_path, peft.LoraConfig, OPTIONS), random_examples(258)
    with torch.no_grad():
        expected, loss = peer_answer(model, examples)
    _, tensors, _ = train(run, tmp_path, "lora", {"init_from": "theirs"}, lr=0.0)
    theirs = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert tensors.keys() == theirs.keys() and all(torch.equal(tensors[name], theirs[name]) for name in theirs)

    rows = run("peft-run", "eval", "--model", tmp_path / "model", "--data", tmp_path / "train.jsonl", "--adapter", tmp_path / "run").stdout
    base, adapted = (float(line.split()[0]) for line in rows.splitlines()[-2:])
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    within("eval", farthest([adapted], [history[0]["loss"]]), 1e-3)
    assert abs(base - adapted) > 1e-3

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = torch.tensor([tokenizer.encode("The sum")])
    with torch.no_grad():
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0]
    printed = run("peft-run", "generate", "--raw", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--prompt", "The sum",
               "--max-new-tokens", 12).stdout
    assert printed.removesuffix("\n") == tokenizer.decode(made[ids.shape[1]:], skip_special_tokens=True).replace("\r", "\n")
    within("logits", apart(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "run")["logits"], expected), 2e-5)


def test_merge_writes_the_deeper_model(run, tmp_path):
    tiny(tmp_path)
    made_there(tmp_path, peft.LoraConfig, OPTIONS)
    run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--output", tmp_path / "out")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.config.num_hidden_layers == len(merged.model.layers) == 5
    for as_what in ("lora", "gguf-adapter"):
        printed = run("peft-run", "export", "--as", as_what, "--model", tmp_path / "model", "--adapter", tmp_path / "theirs",
                   "--output", tmp_path / as_what, code=3).stderr
        assert "layer_replication" in printed and "write the deeper model" in printed
        assert not (tmp_path / as_what).exists()


def test_only_first_adapter_may_replicate_layers(run, tmp_path):
    tiny(tmp_path)
    train(run, tmp_path, "lora", OPTIONS)
    head, rest = (tmp_path / "run.toml").read_text().split("[adapter]\n")
    lines, rest = rest.split("[optimizer]")
    other = '[[adapter]]\nname = "ia3"\n'

    def stack(*tables):
        (tmp_path / "two.toml").write_text(head + "".join(tables) + "[optimizer]" + rest.replace('"run"', '"two"'))

    stack(other, "[[adapter]]\n" + lines)
    printed = run("peft-run", tmp_path / "two.toml", code=2).stderr
    assert "declare the adapter that replicates layers first" in printed
    stack("[[adapter]]\n" + lines, other)
    run("peft-run", tmp_path / "two.toml")
    inner = load_file(tmp_path / "two" / "ia3" / "adapter_model.safetensors")
    assert any(".layers.4." in name for name in inner)
