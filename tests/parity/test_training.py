"""Training equals HF PEFT to the last digits: twenty steps of AdamW with clipping, warm-up and accumulation, from the same
initialization, in fp64: every loss and every adapter tensor within 1e-8, for each model shape and set of options. A new method or
family is a new row here."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_model import CASES
from tiny_llama import save_llama

from method_support import TEXTS, batch, toml
from model_support import farthest, losses_of, peer_step, within

STEPS, WARMUP, LR = 20, 4, 1e-2
ADAPTERS = {
    "all_linear": {"target_modules": "all-linear", "r": 4, "lora_alpha": 8},
    "rslora_patterns": {
        "use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "init_lora_weights": False,
    },
    "bias": {"target_modules": ["q_proj", "down_proj"], "lora_bias": True, "init_lora_weights": False},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"], "modules_to_save": ["lm_head"]},
}
ROWS = [(adapter, "grouped") for adapter in ADAPTERS] + [("all_linear", model) for model in CASES if model != "grouped"]


def ours(run, folder, adapter):
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    experiment = folder / "experiment.toml"
    experiment.write_text(
        f"""[model]
path = "model"
[data]
train = "train.jsonl"
[adapter]
init_from = "start"
[optimizer]
lr = {LR}
weight_decay = 0.01
[scheduler]
name = "linear"
warmup_steps = {WARMUP}
[clipping]
name = "norm"
max_norm = 0.5
[precision]
name = "fp64"
[training]
output_dir = "ours"
max_steps = {STEPS}
batch_size = 1
gradient_accumulation_steps = {len(TEXTS)}
log_every = 1
"""
    )
    run("peft-run", experiment)
    return losses_of(folder / "ours"), load_file(folder / "ours" / "adapter_model.safetensors")


def theirs(folder, model):
    data = batch(transformers.AutoTokenizer.from_pretrained(folder / "model"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses = []
    for _ in range(STEPS):
        # Not the model's own loss, which rounds the logits to fp32.
        logits = model(input_ids=data["input_ids"], attention_mask=data["attention_mask"]).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), data["labels"][:, 1:].flatten())
        losses.append(peer_step(loss, optimizer, max_norm=0.5))
        schedule.step()
    return losses, peft.get_peft_model_state_dict(model)


@pytest.mark.parametrize("adapter,options", ROWS, ids=["-".join(row) for row in ROWS])
def test_trajectory(run, tmp_path, exact_peer, adapter, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = save_llama(tmp_path / "model", **CASES[options]).double()
        config = peft.LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[adapter])
        model = peft.get_peft_model(base, config, autocast_adapter_dtype=False)
        model.save_pretrained(tmp_path / "start")
        expected_losses, expected = theirs(tmp_path, model)
    losses, tensors = ours(run, tmp_path, ADAPTERS[adapter])
    # The last bits that accumulation in another order leaves, through twenty steps of AdamW's division.
    within("losses", farthest(losses, expected_losses), 1e-8)
    assert expected_losses[-1] < expected_losses[0]
    assert tensors.keys() == expected.keys()
    start = load_file(tmp_path / "start" / "adapter_model.safetensors")
    moved = 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float64
        difference = (tensor - expected[name]).norm() / expected[name].norm()
        within("adapter", difference, 1e-8)
        moved += not torch.equal(tensor, start[name])
    assert moved >= len(tensors) - 1  # all but the frozen weight that an adapted embedding is saved with


def test_options_must_agree_with_init_from(run, tmp_path):
    """Options given with init_from must not contradict it."""
    save_llama(tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=4)).save_pretrained(tmp_path / "start")
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n')
    text = '[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\ninit_from = "start"\n{}\n[training]\n' \
           'output_dir = "out"\nmax_steps = 1\n'
    for line, part in ((toml({"r": 4})[2:-2], "'r'"), ('name = "adalora"', "init_from")):
        (tmp_path / "experiment.toml").write_text(text.format(line))
        assert part in run("peft-run", tmp_path / "experiment.toml", code=2).stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "experiment.toml").write_text(text.format('name = "lora"'))
    run("peft-run", tmp_path / "experiment.toml")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 4


def test_token_cache_does_not_change_training(run, tmp_path):
    """The second run reads tokens instead of data: same steps, same adapter; it says so, and when none could be kept."""
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "experiment.toml").write_text(
        '[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n'
        '[training]\noutput_dir = "out"\nmax_steps = 3\nbatch_size = 2\noverwrite_output_dir = true\n'
    )

    def train(cache):
        done = run("peft-run", tmp_path / "experiment.toml", "--set", f"data.cache={cache}")
        return done.stdout + done.stderr, load_file(tmp_path / "out" / "adapter_model.safetensors")

    (tmp_path / "file").touch()
    runs = [train(cache) for cache in (tmp_path / "cache", tmp_path / "cache", tmp_path / "file" / "cache", "")]
    assert ["tokens from the cache" in said for said, _ in runs] == [False, True, False, False]
    assert ["warning: the token cache is not used: " in said for said, _ in runs] == [False, False, True, False]
    for _, adapter in runs[1:]:
        assert adapter.keys() == runs[0][1].keys()
        assert all(torch.equal(tensor, adapter[name]) for name, tensor in runs[0][1].items())
    assert "absolute path" in run("peft-run", tmp_path / "experiment.toml", "--set", "data.cache=near", code=2).stderr


def test_checkpoint_holds_state_of_every_component(run, tmp_path):
    """And for an optimizer that averages, the average as the adapter and the trained tensors separately."""
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (tmp_path / "experiment.toml").write_text(
        """[model]
path = "model"
[data]
train = "train.jsonl"
eval = "train.jsonl"
[adapter]
name = "lora"
target_modules = ["q_proj"]
[optimizer]
name = "schedule_free_adamw"
lr = 0.01
[scheduler]
name = "reduce_on_plateau"
[clipping]
name = "zclip"
[precision]
name = "fp16"
[training]
output_dir = "out"
max_steps = 5
batch_size = 1
eval_every = 2
save_every = 4
"""
    )
    run("peft-run", tmp_path / "experiment.toml")
    checkpoint = tmp_path / "out" / "checkpoint-4"
    parts = {part: load_file(checkpoint / f"{part}.safetensors") for part in ("optimizer", "scheduler", "clipping", "precision")}
    losses = losses_of(tmp_path / "out", "eval_loss")[:2]
    assert parts["scheduler"]["best"].item() == min(losses)
    assert parts["clipping"]["norms"].dtype == torch.float64
    assert "scale" in parts["precision"]
    for name, average in load_file(checkpoint / "adapter_model.safetensors").items():
        kept = {key: parts["optimizer"][f"{name.removeprefix('base_model.model.')}.{key}"] for key in ("y", "z")}
        torch.testing.assert_close(average, kept["y"].lerp(kept["z"], 1 - 1 / 0.9), rtol=1e-5, atol=1e-7)
        assert not torch.equal(average, kept["y"])
