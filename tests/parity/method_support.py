"""Shared by the parity tests of methods: one run of peft-run with a method's options, and the checks for every method that HF PEFT has
too."""

import json
import warnings

import peft
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from model_support import farthest, losses_of, within

TEXTS = [f"The sum of {i} and {i} is {2 * i}." for i in range(4)]


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value)


def train(run, folder, method, adapter, name="run", steps=1, lr=1e-2, batch_size=len(TEXTS), model="", data="", more=""):
    """Trains with these options; returns the folder, the tensors and the config. `model` and `data` add options to those tables,
    `more` adds options to [training] and further tables."""
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in adapter.items())
    experiment = folder / f"{name}.toml"
    experiment.write_text(
        f"""[model]
path = "model"
{model}[data]
train = "train.jsonl"
format = "text"
{data}[adapter]
name = "{method}"
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
batch_size = {batch_size}
log_every = 1
seed = 3
{more}
"""
    )
    run("peft-run", experiment)
    config = json.loads((folder / name / "adapter_config.json").read_text())
    return folder / name, load_file(folder / name / "adapter_model.safetensors"), config


def base_model(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)


def form(tensors):
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def in_order(value):
    """Sorts a list of names, because HF PEFT writes its sets in any order."""
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def check_refusal(run, folder, method, options, told):
    """Checks that a run with these options ends with exit code 2 and this message, and writes nothing."""
    save_llama(folder / "model", attention_bias=True, mlp_bias=True)
    (folder / "train.jsonl").write_text('{"text": "one"}\n')
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in options.items())
    (folder / "experiment.toml").write_text(
        f'[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "{method}"\n{lines}'
        '[training]\noutput_dir = "out"\nmax_steps = 1\n'
    )
    assert told in run("peft-run", folder / "experiment.toml", code=2).stderr
    assert not (folder / "out").exists()


def check_form(run, folder, method, config_class, adapter):
    """Checks that tensors, names and config equal HF PEFT's. Returns the folder and the tensors."""
    ours, tensors, config = train(run, folder, method, adapter)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(base_model(folder), config_class(task_type="CAUSAL_LM", **adapter))
        theirs.save_pretrained(folder / "theirs")
    expected = load_file(folder / "theirs" / "adapter_model.safetensors")
    assert form(tensors) == form(expected)

    expected_config = json.loads((folder / "theirs" / "adapter_config.json").read_text())
    assert list(config) == list(expected_config)
    for key in config.keys() - {"base_model_name_or_path", "target_modules"}:
        assert in_order(config[key]) == in_order(expected_config[key]), key
    if "target_modules" in config and adapter.get("target_modules") != "all-linear":  # whose names vary
        if isinstance(config["target_modules"], list):
            assert config["target_modules"] == sorted(expected_config["target_modules"])
        else:
            assert config["target_modules"] == expected_config["target_modules"]

    return ours, tensors


def check_saved_form(run, folder, method, config_class, adapter):
    """check_form, and HF PEFT finds all keys that it expects."""
    ours, tensors = check_form(run, folder, method, config_class, adapter)

    # No key is missing or unknown, and every tensor ends up in the right place.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded = peft.PeftModel.from_pretrained(base_model(folder), ours)
    assert not [warning for warning in told if "keys" in str(warning.message)]
    assert not peft.set_peft_model_state_dict(loaded, load_file(ours / "adapter_model.safetensors")).unexpected_keys
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = peft.get_peft_model_state_dict(loaded)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back[name], tensor), name


def batch(tokenizer):
    """Every text with the end token as a padded row; all tokens are targets."""
    rows = [tokenizer.encode(text) + [tokenizer.eos_token_id] for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def made_there(folder, config, options):
    """Returns HF PEFT's model with random changes to all trainable tensors, saved to folder / "theirs"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base_model(folder), config(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.eval()
        model.save_pretrained(folder / "theirs")
    return model


def train_there(folder, model, steps, optimizer=None, after_step=lambda model, step: None, tokenizer=None):
    """Returns the losses of several steps of AdamW on all texts at once. `after_step` is what HF PEFT leaves to the training loop,
    called before gradients are cleared; `tokenizer` replaces the base's."""
    optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    data = batch(tokenizer or transformers.AutoTokenizer.from_pretrained(folder / "model"))
    losses = []
    for step in range(1, steps + 1):
        loss = model(**data).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        after_step(model, step)
        optimizer.zero_grad()
    return losses


def check_training(run, folder, method, adapter, steps=8, optimizer=None, peer=None, after_step=lambda model, step: None):
    """Checks that losses and weights are equal after several steps of AdamW from the same initialization. Returns HF PEFT's losses.
    `peer` makes its trainable model of a folder where PeftModel.from_pretrained does not; `after_step`: see train_there."""
    start, _, _ = train(run, folder, method, adapter, name="start", lr=0.0)
    ours, tensors, _ = train(run, folder, method, adapter, steps=steps)
    losses = losses_of(ours)

    if peer is None:
        model = peft.PeftModel.from_pretrained(base_model(folder), start, is_trainable=True)
    else:
        model = peer(start)
    expected_losses = train_there(folder, model, steps, optimizer and optimizer(model), after_step)
    within("losses", farthest(losses, expected_losses), 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = peft.get_peft_model_state_dict(model)
    assert expected.keys() == tensors.keys()
    for name, tensor in tensors.items():
        # AdamW divides by tiny second moments: a gradient's rounding becomes a step's, so the bound is a part of lr.
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-4, msg=lambda text: f"{name}: {text}")
    return expected_losses
