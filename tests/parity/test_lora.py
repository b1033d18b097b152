"""Promises that a LoRA trained by peft-run is one of Hugging Face PEFT's: for every set of options the same tensors under
the same names, with the same shapes and dtypes, and the same adapter_config.json; that PEFT finds in it all that it looks
for, and nothing else; and that training goes the way it goes in Python: the same losses and the same weights after
several steps of AdamW."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from model_support import farthest, within

TEXTS = [f"The sum of {i} and {i} is {2 * i}." for i in range(4)]

# name, options of LoraConfig (and so of [adapter]), options of the model
CASES = [
    ("default", {}, {}),
    ("rank", {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj"]}, {}),
    ("all_linear", {"target_modules": "all-linear"}, {"num_hidden_layers": 4}),
    ("all_linear_small", {"target_modules": "all-linear"}, {"num_hidden_layers": 1}),
    ("all_linear_excluded", {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}, {}),
    ("all_linear_tied", {"target_modules": "all-linear"}, {"tie_word_embeddings": True}),
    ("regex", {"target_modules": r".*\.1\.(self_attn|mlp)\.(q|up)_proj"}, {}),
    ("regex_excluded", {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.0\.mlp.*"}, {}),
    ("layers", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, {}),
    ("whole_name", {"target_modules": ["model.layers.1.mlp.up_proj", "k_proj"], "layers_to_transform": [0]}, {}),
    ("rank_pattern", {"rank_pattern": {"q_proj": 2, r"1\.self_attn\.v_proj": 3}}, {}),
    ("alpha_pattern", {"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 5}, "use_rslora": True}, {}),
    ("gaussian", {"init_lora_weights": "gaussian", "lora_dropout": 0.25}, {}),
    ("random", {"init_lora_weights": False}, {}),
    ("lora_bias", {"lora_bias": True}, {}),
    ("bias_all", {"target_modules": ["q_proj"], "bias": "all"}, {"attention_bias": True}),
    ("bias_lora_only", {"target_modules": ["q_proj"], "bias": "lora_only"}, {"attention_bias": True}),
    ("bias_absent", {"bias": "lora_only"}, {}),
    ("embedding", {"target_modules": ["embed_tokens", "q_proj"]}, {}),
    ("embedding_regex", {"target_modules": r".*embed_tokens"}, {}),
    ("embedding_whole_name", {"target_modules": ["model.embed_tokens"]}, {}),
    ("head", {"target_modules": ["lm_head", "q_proj"]}, {}),
    ("head_tied", {"target_modules": ["lm_head", "q_proj"]}, {"tie_word_embeddings": True}),
    ("save_head", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}, {}),
    ("save_head_tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, {"tie_word_embeddings": True}),
    ("save_norms", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, {}),
    ("save_mlp", {"target_modules": ["q_proj", "up_proj"], "modules_to_save": ["mlp"]}, {}),
]


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)


def train(run, folder, adapter, name="run", steps=1, lr=1e-2):
    """What peft-run writes for these options: the folder, the tensors and the config."""
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in adapter.items())
    experiment = folder / f"{name}.toml"
    experiment.write_text(
        f"""[model]
path = "model"
[data]
train = "train.jsonl"
format = "text"
[adapter]
name = "lora"
{lines}
[optimizer]
name = "adamw"
lr = {lr}
weight_decay = 0.0
[scheduler]
name = "constant"
[clipping]
name = "none"
[precision]
name = "fp32"
[training]
output_dir = "{name}"
max_steps = {steps}
batch_size = {len(TEXTS)}
log_every = 1
seed = 3
"""
    )
    run("peft-run", experiment)
    config = json.loads((folder / name / "adapter_config.json").read_text())
    return folder / name, load_file(folder / name / "adapter_model.safetensors"), config


def base_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)


def form(tensors):
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("adapter,model", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_saved_form(run, tmp_path, adapter, model):
    save_llama(tmp_path / "model", **model)
    ours, tensors, config = train(run, tmp_path, adapter)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(base_model(tmp_path), peft.LoraConfig(task_type="CAUSAL_LM", **adapter))
        theirs.save_pretrained(tmp_path / "theirs")
    expected = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert form(tensors) == form(expected)

    expected_config = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    assert list(config) == list(expected_config)
    for key in config.keys() - {"base_model_name_or_path", "target_modules"}:
        assert config[key] == expected_config[key], key
    if adapter.get("target_modules") != "all-linear":  # whose names may be written in several ways
        if isinstance(config["target_modules"], list):
            assert config["target_modules"] == sorted(expected_config["target_modules"])
        else:
            assert config["target_modules"] == expected_config["target_modules"]

    # No key is missing or unknown, and every tensor is where PEFT wants it.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded = peft.PeftModel.from_pretrained(base_model(tmp_path), ours)
    assert not [warning for warning in told if "keys" in str(warning.message)]
    assert not peft.set_peft_model_state_dict(loaded, load_file(ours / "adapter_model.safetensors")).unexpected_keys
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = peft.get_peft_model_state_dict(loaded)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor), name


def batch(tokenizer):
    """Every text with the end token, laid out as rows; the loss looks at all of it."""
    rows = [tokenizer.encode(text) + [tokenizer.eos_token_id] for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


@pytest.mark.parametrize(
    "adapter",
    [
        {"target_modules": "all-linear", "r": 4, "lora_alpha": 8},
        {"target_modules": ["q_proj", "down_proj"], "use_rslora": True, "lora_bias": True, "bias": "all"},
        {"target_modules": ["embed_tokens", "v_proj"], "modules_to_save": ["lm_head", "norm"]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "init_lora_weights": False},
    ],
    ids=["all_linear", "biases", "embedding", "patterns"],
)
def test_training_goes_as_in_python(run, tmp_path, adapter):
    steps = 8
    save_llama(tmp_path / "model", attention_bias="bias" in adapter)
    start, _, _ = train(run, tmp_path, adapter, name="start", lr=0.0)
    ours, tensors, _ = train(run, tmp_path, adapter, steps=steps)
    history = json.loads((ours / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]

    model = peft.PeftModel.from_pretrained(base_model(tmp_path), start, is_trainable=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    data = batch(transformers.AutoTokenizer.from_pretrained(tmp_path / "model"))
    expected_losses = []
    for _ in range(steps):
        loss = model(**data).loss
        expected_losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    within("losses", farthest(losses, expected_losses), 1e-4)
    assert expected_losses[-1] < expected_losses[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = peft.get_peft_model_state_dict(model)
    assert expected.keys() == tensors.keys()
    for name, tensor in tensors.items():
        # AdamW divides by tiny second moments: a gradient's rounding becomes a step's, so the bound is a part of lr.
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-4, msg=lambda text: f"{name}: {text}")
