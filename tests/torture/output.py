"""Reads an output folder without peft.cpp: which checkpoints it holds, whether they are intact and bit-equal to those of another
run, and what should not be there."""

import hashlib
import json
import re

from bench import require


def checkpoints(folder):
    """Returns the steps of the checkpoints under their final names."""
    return sorted(int(path.name[11:]) for path in folder.glob("checkpoint-*") if path.name[11:].isdigit())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def flaw(files):
    """Why files, {name: bytes}, are not an intact checkpoint; "" if they are."""
    try:
        said = json.loads(files["manifest.json"])["files"]
    except (KeyError, ValueError, TypeError):
        return "no readable manifest"
    if files.keys() != said.keys() | {"manifest.json"}:
        return f"files {sorted(files)}, in the manifest {sorted(said)}"
    for name, about in said.items():
        if about != {"sha256": sha256(files[name]), "size": len(files[name])}:
            return f"{name} is not what the manifest says"
    return ""


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def tensors(data):
    """{name: (about, bytes)} of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    header.pop("__metadata__", None)
    return {name: ((about["dtype"], tuple(about["shape"])), data[8 + size + about["data_offsets"][0]:
                                                                8 + size + about["data_offsets"][1]])
            for name, about in header.items()}


def states(files):
    """Returns a checkpoint's tensors without the elapsed time."""
    found = {}
    for file, data in files.items():
        if file.endswith(".safetensors"):
            found |= {(file, name): value for name, value in tensors(data).items()}
    for clock in ("seconds", "seconds_since"):
        found.pop(("progress.safetensors", clock))
    return found


def history(text):
    """Returns the steps and evaluations of a trainer_state.json, without times."""
    kept = []
    for line in json.loads(text)["log_history"]:
        if "train_runtime" not in line:
            kept.append({key: value for key, value in line.items() if key != "eval_runtime"})
    return kept


def check_checkpoints(folder, uninterrupted):
    """Checks that each checkpoint is intact and bit-equal to that of the uninterrupted run. Returns their steps."""
    found = checkpoints(folder)
    for step in found:
        check_checkpoint(folder / f"checkpoint-{step}", uninterrupted / f"checkpoint-{step}")
    return found


def check_checkpoint(ours, theirs):
    mine, other = read(ours), read(theirs)
    require(not flaw(mine), f"{ours}: {flaw(mine)}")
    mine_states, other_states = states(mine), states(other)
    require(mine_states.keys() == other_states.keys(), f"{ours}: not the tensors of {theirs}")
    for key, value in mine_states.items():
        require(value == other_states[key], f"{ours}: {key} differs from that of {theirs}")
    require(history(mine["trainer_state.json"]) == history(other["trainer_state.json"]),
            f"{ours}: not the log of {theirs}")


def adapter(folder):
    """Returns the adapter's two files, or None if the folder holds neither; a config without weights is a failure."""
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if config.exists():
        require(weights.exists(), f"{config} is there without its weights")
    return (weights.read_bytes(), config.read_bytes() if config.exists() else None) if weights.exists() else None


def adapter_or_none(folder, uninterrupted, where):
    """Returns adapter(): that of the uninterrupted run, its weights alone, or None; anything else is a failure."""
    ours, theirs = adapter(folder), adapter(uninterrupted)
    require(ours is None or ours[0] == theirs[0] and ours[1] in (None, theirs[1]), f"{where}: an incomplete or different adapter")
    return ours


def check_result(folder, uninterrupted):
    """Checks that the result equals that of the uninterrupted run: adapter byte for byte, and the log's numbers."""
    require(adapter(folder) == adapter(uninterrupted) is not None, f"{folder}: not the adapter of {uninterrupted}")
    require(history((folder / "trainer_state.json").read_text()) == history((uninterrupted / "trainer_state.json").read_text()),
            f"{folder}: not the log of {uninterrupted}")


def litter(folder):
    """Returns what a run must not leave: temporary files and half-deleted folders, its own and those of earlier runs."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if re.search(r"\.(writing|deleting)(-\d+)?$", path.name))


def require_no_litter(folder):
    require(not litter(folder), f"{folder}: temporary files left: {litter(folder)}")


def steps_of(text):
    """Returns (step, loss) of each line of a metrics.jsonl except the last, which summarizes the run."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["step"], line.get("loss")) for line in lines if "train_loss" not in line]
