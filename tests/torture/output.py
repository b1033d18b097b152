"""What lies in an output folder, read without peft: which checkpoints, whether they are whole, whether they are those of
another run to the last bit, and what should not be there."""

import hashlib
import json
import re

from bench import require


def checkpoints(folder):
    """The steps of those that bear their final name."""
    return sorted(int(path.name[11:]) for path in folder.glob("checkpoint-*") if path.name[11:].isdigit())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def flaw(files):
    """Why files, {name: bytes}, are no whole checkpoint; "" where they are."""
    try:
        said = json.loads(files["manifest.json"])["files"]
    except (KeyError, ValueError, TypeError):
        return "no manifest that can be read"
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
    """A checkpoint's tensors, all but the time that has passed."""
    found = {}
    for file, data in files.items():
        if file.endswith(".safetensors"):
            found |= {(file, name): value for name, value in tensors(data).items()}
    for clock in ("seconds", "seconds_since"):
        found.pop(("progress.safetensors", clock))
    return found


def history(text):
    """What a trainer_state.json tells of steps and evaluations, without times."""
    kept = []
    for line in json.loads(text)["log_history"]:
        if "train_runtime" not in line:
            kept.append({key: value for key, value in line.items() if key != "eval_runtime"})
    return kept


def check_checkpoints(folder, unbroken):
    """Every checkpoint is whole and the one that the unbroken run has of this step, to the last bit. Returns their steps."""
    found = checkpoints(folder)
    for step in found:
        check_checkpoint(folder / f"checkpoint-{step}", unbroken / f"checkpoint-{step}")
    return found


def check_checkpoint(ours, theirs):
    mine, other = read(ours), read(theirs)
    require(not flaw(mine), f"{ours}: {flaw(mine)}")
    mine_states, other_states = states(mine), states(other)
    require(mine_states.keys() == other_states.keys(), f"{ours}: other tensors than those of {theirs}")
    for key, value in mine_states.items():
        require(value == other_states[key], f"{ours}: {key} differs from that of {theirs}")
    require(history(mine["trainer_state.json"]) == history(other["trainer_state.json"]),
            f"{ours}: another log than that of {theirs}")


def adapter(folder):
    """The adapter's two files, or None where the folder holds none; half of one is a failure."""
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if config.exists():
        require(weights.exists(), f"{config} is there without its weights")
    return (weights.read_bytes(), config.read_bytes() if config.exists() else None) if weights.exists() else None


def adapter_or_none(folder, unbroken, where):
    """The adapter as adapter() has it: the unbroken run's, its weights alone, or None; anything else is a failure."""
    ours, whole = adapter(folder), adapter(unbroken)
    require(ours is None or ours[0] == whole[0] and ours[1] in (None, whole[1]), f"{where}: half an adapter, or another")
    return ours


def check_result(folder, unbroken):
    """The run's end is the unbroken one's: adapter byte by byte, and the log's numbers."""
    require(adapter(folder) == adapter(unbroken) is not None, f"{folder}: another adapter than that of {unbroken}")
    require(history((folder / "trainer_state.json").read_text()) == history((unbroken / "trainer_state.json").read_text()),
            f"{folder}: another log than that of {unbroken}")


def litter(folder):
    """What a run must not leave behind: drafts and things half deleted, of its own and of runs before it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                  if re.search(r"\.(writing|deleting)(-\d+)?$", path.name))


def require_no_litter(folder):
    require(not litter(folder), f"{folder}: left behind: {litter(folder)}")


def steps_of(text):
    """(step, loss) of each line of a metrics.jsonl but the last one of all, which is of the whole run."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["step"], line.get("loss")) for line in lines if "train_loss" not in line]
