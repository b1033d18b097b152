"""Shared by the parity tests of models: random examples and the peer's answer, one run of model_tool or plugin_tool."""

import json
import os
import subprocess
import warnings
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from figures import note_difference
from text_support import absent


def within(what, difference, bound):
    """Asserts difference <= bound, and records the difference for the table at the end."""
    difference, bound = float(difference), float(bound)
    note_difference(os.environ.get("PYTEST_CURRENT_TEST", "").split("::")[-1].removesuffix(" (call)"), what, difference, bound)
    assert difference <= bound, f"{what}: {difference:.2e} is more than {bound:.0e}"


def apart(ours, theirs):
    """The largest difference of two tensors of one shape and dtype, relative to the largest value of `theirs`."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() / theirs.abs().max()


def farthest(ours, theirs):
    """The largest relative difference of two lists of numbers; NaN if any is."""
    assert len(ours) == len(theirs) > 0
    ours, theirs = torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
    return ((ours - theirs).abs() / theirs.abs()).max()


def run_tool(name, request):
    """Returns the standard output of tests/framework/<name> for one request."""
    build = os.environ.get("PEFT_BUILD", "")
    tool = Path(build) / "tests" / "framework" / name
    if not build or not tool.exists():
        absent(f"SKIPPED: {tool} is not built (set PEFT_BUILD to the build folder)")
    plugins = {"PEFT_PLUGIN_PATH": str(Path(build).resolve() / "lib" / "peft" / "plugins")}
    done = subprocess.run(
        [tool], input=json.dumps(request) + "\n", capture_output=True, text=True, env=os.environ | plugins
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def peer_of_gguf(path, dtype=torch.float32):
    """transformers' model of a GGUF, which it dequantizes with the gguf package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)


def peer_step(loss, optimizer, max_norm=None):
    """Takes one step of the peer's loop, clipped to max_norm if given; returns the loss as a number."""
    loss.backward()
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def losses_of(folder, key="loss"):
    """Returns what a run's trainer_state.json logged under this key, step by step."""
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in history if key in entry]


def model_answer(folder, model, examples, precision="fp32", adapter="", fused=True):
    """logits, loss and grad.* of model_tool. `examples`: pairs of ids and labels; `adapter`: a folder or several."""
    out = Path(folder) / "answer.safetensors"
    request = {
        "model": str(model),
        "precision": precision,
        "adapters": [str(one) for one in (adapter if isinstance(adapter, list) else [adapter]) if one],
        "fused": fused,
        "out": str(out),
        "examples": [{"ids": ids, "labels": labels} for ids, labels in examples],
    }
    run_tool("model_tool", request)
    return load_file(out)


def random_examples(vocabulary, lengths=(17, 5, 23), masked=0.3):
    generator = torch.Generator().manual_seed(1)
    out = []
    for length in lengths:
        ids = torch.randint(2, vocabulary, (length,), generator=generator)
        labels = ids.masked_fill(torch.rand(length, generator=generator) < masked, -100)
        out.append((ids.tolist(), labels.tolist()))
    return out


def peer_answer(model, examples):
    """Returns what model_answer() does, by transformers, one example at a time: concatenated logits, and the mean loss over target
    tokens."""
    logits, total, supervised = [], 0.0, 0
    for ids, labels in examples:
        out = model(input_ids=torch.tensor([ids])).logits[0]
        logits.append(out[-len(ids):])
        if len(out) > len(ids):  # after virtual tokens, the last of which predicts the first real one
            labels = [-100, *labels]
        target = torch.tensor(labels[1:])
        rows = out[-len(labels):-1]
        total = total + torch.nn.functional.cross_entropy(rows.float() if rows.dtype != torch.float64 else rows,
                                                          target, ignore_index=-100, reduction="sum")
        supervised += int((target != -100).sum())
    return torch.cat(logits), total / supervised
