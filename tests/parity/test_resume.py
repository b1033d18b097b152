"""Interrupted runs: resumed from any checkpoint a run gives the result of the uninterrupted run, to the last bit; a checkpoint is intact
or is skipped; SIGKILL costs only the steps since the last checkpoint; SIGTERM and SIGINT save first; a changed experiment is refused;
a diverged run leaves the checkpoints before and no adapter. Each with the real peft-run on a tiny model;
tests/framework/train/resume_test.cpp covers every method and optimizer."""

import fcntl
import hashlib
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import termios
import threading
import time

import peft
import pytest
from safetensors.torch import load_file
from tiny_llama import save_llama

from method_support import base_model, toml

STEPS = 6
TEXTS = [f"The {word} of {i} and {i} is {2 * i}." + " And so on." * (i % 3)
         for i, word in enumerate(("sum", "total", "complete", "sum", "total", "whole", "sum", "total", "sum", "whole"))]  # words: ok
BASE = {
    "model": {"path": "model"},
    "data": {"train": "train.jsonl", "format": "text", "max_length": 64},
    "adapter": {"name": "lora", "r": 4},
    "optimizer": {"name": "adamw", "lr": 1e-2},
    "scheduler": {"name": "cosine"},
    "clipping": {"name": "norm"},
    "precision": {"name": "fp32"},
    "training": {"output_dir": "run", "max_steps": STEPS, "batch_size": 2, "save_every": 1, "log_every": 2, "seed": 3},
}
SETS = {
    "dropout": {"adapter": {"lora_dropout": 0.3, "target_modules": "all-linear"},
                "training": {"gradient_accumulation_steps": 2}},
    "sgd_packed_bf16": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}, "clipping": {"name": "agc"},
                        "precision": {"name": "bf16"}, "data": {"packing": True}, "scheduler": {"name": "linear"},
                        "training": {"batch_size": 1, "gradient_accumulation_steps": 3}},
    # A scale that overflows at first: steps are skipped, and the scale moves.
    "dora_fp16": {"adapter": {"use_dora": True, "lora_dropout": 0.1},
                  "precision": {"name": "fp16", "init_scale": 2.0**34, "growth_interval": 2, "backoff_factor": 2.0**-12}},
    "vera": {"adapter": {"name": "vera", "r": 8, "vera_dropout": 0.2, "modules_to_save": ["norm"]},
             "training": {"max_steps": None, "epochs": 1.2}},
    "checkpointing_eval": {"adapter": {"lora_dropout": 0.3}, "memory": {"activation_checkpointing": "full"},
                           "data": {"eval_split": 0.2}, "training": {"eval_every": 2}},
    "tokens": {"adapter": {"trainable_token_indices": list(range(10, 60)), "loraplus_lr_ratio": 4.0, "lora_dropout": 0.1}},
    # States outside the layers' tensors, together: ranks found in the data, budgets, what was subtracted from the base.
    "stack": {"adapter": [{"name": "lora", "r": 2, "init_lora_weights": "eva", "target_modules": ["q_proj", "v_proj", "up_proj"]},
                          {"name": "adalora", "init_r": 4, "target_r": 2, "target_modules": ["k_proj", "o_proj"], "lr": 1e-3},
                          {"name": "lora", "adapter_name": "inner", "r": 2, "init_lora_weights": "pissa", "lora_dropout": 0.2,
                           "target_modules": ["down_proj"]}],
              "training": {"gradient_accumulation_steps": 4}},
    "encoder": {"adapter": {"name": "p_tuning", "num_virtual_tokens": 4, "encoder_hidden_size": 16},
                "optimizer": {"name": "schedule_free_adamw", "lr": 1e-2}, "scheduler": {"name": "constant"}},
}


def write(folder, name="run", changes=None):
    """The experiment BASE with `changes`, by table; its output goes to folder / name. None takes a key away."""
    tables = {table: dict(keys) for table, keys in BASE.items()}
    for table, keys in (changes or {}).items():
        if isinstance(keys, list):
            tables[table] = keys
            continue
        if "name" in keys and keys["name"] != tables[table].get("name"):
            tables[table] = {}
        tables.setdefault(table, {}).update(keys)
    tables["training"]["output_dir"] = name
    lines = []
    for table, keys in tables.items():
        for one in keys if isinstance(keys, list) else [keys]:
            lines += [f"[[{table}]]" if one is not keys else f"[{table}]"]
            lines += [f"{key} = {toml(value)}" for key, value in one.items() if value is not None]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path):
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return tmp_path


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def history(folder):
    """The logged steps and evaluations, without times."""
    state = json.loads((folder / "trainer_state.json").read_text())
    kept = [{key: value for key, value in line.items() if key not in ("eval_runtime",)}
            for line in state["log_history"] if "train_runtime" not in line]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "train_loss" not in line]
    assert steps and steps == [line["step"] for line in kept][-len(steps):]  # the log of a new folder begins where the run resumed
    return kept


def checkpoints(folder):
    return sorted(int(path.name[11:]) for path in folder.glob("checkpoint-*") if path.name[11:].isdigit())


def check_intact(path):
    """Checks that the manifest lists every file with the SHA-256 that hashlib computes."""
    manifest = json.loads((path / "manifest.json").read_text())
    there = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert there == set(manifest["files"]) | {"manifest.json"}
    for name, said in manifest["files"].items():
        data = (path / name).read_bytes()
        assert said == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}, name


def same_states(ours, theirs):
    """Checks that all tensor files of two checkpoints are equal, except for elapsed times."""
    names = {str(path.relative_to(ours)) for path in ours.rglob("*.safetensors")}
    assert names == {str(path.relative_to(theirs)) for path in theirs.rglob("*.safetensors")}
    for name in names - {"progress.safetensors"}:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), f"{ours.name}: {name}"
    one, other = load_file(ours / "progress.safetensors"), load_file(theirs / "progress.safetensors")
    assert one.keys() == other.keys()
    for key in one.keys() - {"seconds", "seconds_since"}:
        assert one[key].equal(other[key]), f"{ours.name}: {key}"


@pytest.mark.parametrize("changes", SETS.values(), ids=SETS)
def test_resumed_run_equals_uninterrupted(run, folder, changes):
    """From a checkpoint in the middle: the adapter's file is the same byte by byte, so are the log's numbers, and so is every
    later checkpoint, so that it would resume from there the same way."""
    run("peft-run", write(folder, "uninterrupted", changes))
    uninterrupted = folder / "uninterrupted"
    last = max(checkpoints(uninterrupted))
    assert checkpoints(uninterrupted) == list(range(1, last + 1)) and last >= STEPS
    for step in (1, 3):
        broken = folder / f"from{step}"
        shutil.copytree(uninterrupted / f"checkpoint-{step}", broken / f"checkpoint-{step}")
        result = run("peft-run", write(folder, broken.name, changes), "--resume")
        slow = "precision fp16: on a CPU a step takes"
        assert f"(step {step})" in result.stdout and not [line for line in result.stderr.splitlines() if slow not in line]
        for made in uninterrupted.rglob("adapter_model.safetensors"):  # of each adapter, and of the checkpoints that both have
            again = broken / made.relative_to(uninterrupted)
            assert not again.parent.exists() or again.read_bytes() == made.read_bytes(), made
        assert history(broken)[-1:] == history(uninterrupted)[-1:]
        assert [line for line in history(broken) if line["step"] > step] == [
            line for line in history(uninterrupted) if line["step"] > step]
        for later in range(step + 1, last + 1):
            check_intact(broken / f"checkpoint-{later}")
            same_states(broken / f"checkpoint-{later}", uninterrupted / f"checkpoint-{later}")
    if changes.get("precision", {}).get("name") == "fp16":
        skipped = [load_file(uninterrupted / f"checkpoint-{s}" / "progress.safetensors")["skipped"].item() for s in (1, last)]
        assert 0 < skipped[0] <= skipped[1] < last


def seal(path):
    """Writes a manifest of the folder's current files."""
    files = {str(file.relative_to(path)): {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}
             for file in path.rglob("*") if file.is_file() and file.name != "manifest.json"}
    (path / "manifest.json").write_text(json.dumps({"version": 1, "files": files}))


@pytest.mark.slow
def test_every_saved_state_matters(run, folder):
    """With any one state of an older step the end is another one; with any one missing it is refused: the test above would see
    a state that is not kept."""
    changes = SETS["dora_fp16"] | {
        "data": {"eval_split": 0.2}, "training": {"eval_every": 1, "max_steps": 9},
        "scheduler": {"name": "reduce_on_plateau", "factor": 0.9, "patience": 0, "threshold": 0.9},
        "clipping": {"name": "zclip", "warmup_steps": 2, "z_thresh": 0.1, "max_norm": 0.0}}
    run("peft-run", write(folder, "uninterrupted", changes))
    complete = folder / "uninterrupted"
    names = json.loads((complete / "checkpoint-6" / "checkpoint.json").read_text())["parts"]
    assert set(names) == {"clipping", "optimizer", "position", "precision", "progress", "random", "scheduler"}
    for name in [*sorted(names), "adapter_model"]:
        broken = folder / f"old_{name}"
        at = broken / "checkpoint-6"
        shutil.copytree(complete / "checkpoint-6", at)
        # A skipped step leaves most states as they were.
        older = [complete / f"checkpoint-{step}" / f"{name}.safetensors" for step in ((1,) if name == "precision" else (5, 4, 3))]
        now = (at / f"{name}.safetensors").read_bytes()
        shutil.copy(next(path for path in older if path.read_bytes() != now), at)
        seal(at)
        run("peft-run", write(folder, broken.name, changes), "--resume")
        assert (weights(broken), history(broken)) != (weights(complete), history(complete)), name
    for name in names:
        broken = folder / f"no_{name}"
        at = broken / "checkpoint-6"
        shutil.copytree(complete / "checkpoint-6", at)
        (at / f"{name}.safetensors").unlink(missing_ok=True)
        about = json.loads((at / "checkpoint.json").read_text())
        about["parts"].remove(name)
        (at / "checkpoint.json").write_text(json.dumps(about))
        seal(at)
        result = run("peft-run", write(folder, broken.name, changes), "--resume", code=3)
        assert "lacks the" in result.stderr, name


def test_saving_changes_nothing(run, folder):
    changes = SETS["dropout"]
    run("peft-run", write(folder, "saving", changes))
    run("peft-run", write(folder, "plain", changes | {"training": changes["training"] | {"save_every": 0}}))
    assert weights(folder / "saving") == weights(folder / "plain")
    assert history(folder / "saving") == history(folder / "plain")
    assert not checkpoints(folder / "plain")


def test_checkpoint_loads_in_hf_peft(run, folder):
    run("peft-run", write(folder))
    at = folder / "run" / "checkpoint-2"
    model = peft.PeftModel.from_pretrained(base_model(folder), at)
    theirs, ours = peft.get_peft_model_state_dict(model), load_file(at / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys() and all(theirs[key].equal(ours[key]) for key in ours)
    about = json.loads((at / "checkpoint.json").read_text())["about"]
    assert about["threads"] > 0 and any(plugin.startswith("adapter/lora ") for plugin in about["plugins"])
    assert (at / "resolved.toml").read_bytes() == (folder / "run" / "resolved.toml").read_bytes()


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "a flipped bit": lambda at: flip(at / "optimizer.safetensors"),
    "truncated": lambda at: (at / "adapter_model.safetensors").write_bytes(weights(at)[:-1]),
    "a missing file": lambda at: (at / "random.safetensors").unlink(),
    "an additional file": lambda at: (at / "more.json").write_text("{}"),
    "a missing manifest": lambda at: (at / "manifest.json").unlink(),
    "a truncated manifest": lambda at: (at / "manifest.json").write_text((at / "manifest.json").read_text()[:-9]),
}


FORGERIES = [
    ("resolved.toml", "[x\n", "resolved.toml: not a file that a run has written"),
    ("trainer_state.json", '{"log_history": ' + "[" * 100_000, "trainer_state.json: JSON nested deeper"),
    ("trainer_state.json", '{"log_history": [], "epoch": "x", "max_steps": 6}', "trainer_state.json: not the log of a run"),
    ("trainer_state.json", '{"log_history": [7], "epoch": 1, "max_steps": 6}', "'log_history' must contain objects only"),
]


@pytest.mark.slow
def test_damaged_checkpoint_is_skipped(run, folder):
    run("peft-run", write(folder, "uninterrupted"))
    for number, (what, damage) in enumerate(DAMAGES.items()):
        broken = folder / f"broken{number}"
        for step in (2, 4):
            shutil.copytree(folder / "uninterrupted" / f"checkpoint-{step}", broken / f"checkpoint-{step}")
        damage(broken / "checkpoint-4")
        result = run("peft-run", write(folder, broken.name), "--resume")
        assert "warning: skipped checkpoint: " in result.stderr and "checkpoint-4" in result.stderr, what
        assert "(step 2)" in result.stdout
        assert weights(broken) == weights(folder / "uninterrupted")
        assert (broken / "checkpoint-4.aside").exists()  # words: ok
        check_intact(broken / "checkpoint-4")
    # A checkpoint with correct checksums of invalid contents is refused.
    forged = folder / "forged" / "checkpoint-2"
    shutil.copytree(folder / "uninterrupted" / "checkpoint-2", forged)
    for name, text, result in FORGERIES:
        intact = (forged / name).read_bytes()
        (forged / name).write_text(text)
        seal(forged)
        assert result in run("peft-run", write(folder, "forged"), "--resume", code=3).stderr
        (forged / name).write_bytes(intact)
    # Selected by name it is an error, as is a folder without an intact one.
    alone = folder / "alone"
    shutil.copytree(folder / "broken0" / "checkpoint-4.aside", alone / "checkpoint-4")  # words: ok
    path = write(folder, "alone")
    assert "does not match its manifest" in run("peft-run", path, "--resume", alone / "checkpoint-4", code=3).stderr
    assert "no intact checkpoint to resume from" in run("peft-run", path, "--resume", code=3).stderr
    assert not (alone / "adapter_model.safetensors").exists()


def test_resume_refuses_changed_experiment(run, folder):
    run("peft-run", write(folder))
    path, output = write(folder), folder / "run"
    before = weights(output)
    for assignment, printed in [
        ("optimizer.lr=0.02", "optimizer.lr: was 0.01, is 0.02"),
        ("adapter.r=8", "adapter.r: was 4, is 8"),
        ("training.seed=4", "training.seed: was 3, is 4"),
        ("training.batch_size=3", "training.batch_size: was 2, is 3"),
        ("scheduler.name=linear", 'scheduler.name: was "cosine", is "linear"'),
        ("data.max_length=32", "data.max_length: was 64, is 32"),
    ]:
        assert printed in run("peft-run", path, "--resume", "--set", assignment, code=2).stderr
    stack = write(folder, "stack", SETS["stack"])
    run("peft-run", stack)
    assert "adapter[1].target_r: was 2, is 3" in run("peft-run", stack, "--resume", "--set", "adapter.1.target_r=3", code=2).stderr
    longer = run("peft-run", path, "--resume", "--set", f"training.max_steps={STEPS + 2}", code=2)
    assert "on which the schedule depends" in longer.stderr
    assert "now ends at 2" in run("peft-run", path, "--resume", "--set", "training.max_steps=2", code=2).stderr
    config = folder / "model" / "config.json"
    intact = config.read_text()
    config.write_text(json.dumps(json.loads(intact) | {"rms_norm_eps": 1e-5}))
    printed = run("peft-run", path, "--resume", code=3).stderr
    assert "the base's configuration has changed: rms_norm_eps was 1e-06, is 1e-05" in printed
    config.write_text(json.dumps(json.loads(intact) | {"transformers_version": "9.9"}))  # which changes no step
    run("peft-run", path, "--resume", "--set", f'training.output_dir="{folder / "other"}"')
    (folder / "train.jsonl").write_text((folder / "train.jsonl").read_text().replace("sum", "SUM"))
    assert "the training data has changed" in run("peft-run", path, "--resume", code=3).stderr
    assert weights(output) == before


def test_settings_that_may_change_on_resume(run, folder):
    """A resumed run can change logging, saving and output_dir, and its length if the schedule so far does not depend on it."""
    constant = {"scheduler": {"name": "constant"}, "adapter": {"lora_dropout": 0.2}, "data": {"eval": "train.jsonl"}}
    run("peft-run", write(folder, "short", constant))
    long = constant | {"training": {"max_steps": STEPS + 5}}
    run("peft-run", write(folder, "long", long))
    other = {"log_every": 1, "save_every": 4, "max_nonfinite_steps": 1, "eval_every": 2}
    run("peft-run", write(folder, "short", long | {"training": long["training"] | other}), "--resume")
    assert weights(folder / "short") == weights(folder / "long")
    assert checkpoints(folder / "short") == [*range(1, STEPS + 1), 8, 11]
    from_there = run("peft-run", write(folder, "elsewhere", long), "--resume", folder / "short" / "checkpoint-8")
    assert "(step 8)" in from_there.stdout
    assert weights(folder / "elsewhere") == weights(folder / "long")
    plateau = constant | {"scheduler": {"name": "reduce_on_plateau", "patience": 0}, "data": {"eval_split": 0.2},
                          "training": {"eval_every": 4}}
    run("peft-run", write(folder, "plateau", plateau))
    plateau["training"]["max_steps"] = STEPS + 5
    assert "the schedule used the final evaluation at step" in run("peft-run", write(folder, "plateau", plateau), "--resume", code=2).stderr
    run("peft-run", write(folder, "plateau", plateau), "--resume", folder / "plateau" / "checkpoint-5")
    # A run that is finished is written again, not trained.
    assert run("peft-run", write(folder, "long", long), "--resume").returncode == 0
    assert weights(folder / "long") == weights(folder / "elsewhere")


def test_changed_thread_count_is_reported(run, folder):
    run("peft-run", write(folder), env=os.environ | {"OMP_NUM_THREADS": "1"})
    result = run("peft-run", write(folder), "--resume", env=os.environ | {"OMP_NUM_THREADS": "2"})
    assert "warning: threads changed from 1 to 2" in result.stderr


def test_fp32_products_are_those_of_the_checkpoint(run, folder):
    """A run in fp32 resumes with the library that multiplied before, whatever this machine would choose: bit-identical. A library
    that the user names is used, and the change is reported; a checkpoint without a record is of a version that had only BLAS."""
    tables = {"training": {"batch_size": 4}, "data": {"packing": True}}  # rows enough for oneDNN

    def train(name, *arguments, products=None, code=0):
        return run("peft-run", write(folder, name, tables), *arguments, code=code,
                   env={key: value for key, value in os.environ.items() if key != "PEFT_FP32_PRODUCTS"}
                   | {"ONEDNN_VERBOSE": "1"} | ({"PEFT_FP32_PRODUCTS": products} if products else {}))

    def uses_onednn(done):
        return re.search(r"inner_product.*,mb(?!6ic8oc5)", done.stdout) is not None  # except for the trial of 6 rows

    assert "unknown library 'openblas'; use blas or onednn" in train("none", products="openblas", code=2).stderr
    assert not (folder / "none").exists()
    libraries = [None, "blas"]
    if subprocess.run(["grep", "-q", "avx2", "/proc/cpuinfo"]).returncode == 0:  # libtorch's builds for x86 have oneDNN
        libraries.append("onednn")
    for products in libraries:
        name = f"with_{products}"
        done = train(name, products=products)
        assert products is None or uses_onednn(done) == (products == "onednn")
        recorded = json.loads((folder / name / "checkpoint-3" / "checkpoint.json").read_text())["about"]["fp32_products"]
        assert recorded == products or products is None
        broken = folder / f"resumed_{products}"
        shutil.copytree(folder / name / "checkpoint-3", broken / "checkpoint-3")
        resumed = train(broken.name, "--resume")
        assert not resumed.stderr and uses_onednn(resumed) == uses_onednn(done)
        assert weights(broken) == weights(folder / name)
    if "onednn" not in libraries:
        return
    changed = folder / "changed"
    shutil.copytree(folder / "with_onednn" / "checkpoint-3", changed / "checkpoint-3")
    done = train("changed", "--resume", products="blas")
    assert not uses_onednn(done) and 'warning: fp32_products changed from "onednn" to "blas"' in done.stderr
    older = folder / "older" / "checkpoint-3"
    shutil.copytree(folder / "with_blas" / "checkpoint-3", older)
    about = json.loads((older / "checkpoint.json").read_text())
    del about["about"]["fp32_products"]
    (older / "checkpoint.json").write_text(json.dumps(about))
    seal(older)
    assert not train("older", "--resume").stderr
    assert weights(folder / "older") == weights(folder / "with_blas")


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_fp32_products_are_of_fp32_alone(run, folder, precision):
    results = set()
    for products in ("blas", "onednn"):
        done = run("peft-run", write(folder, products, {"precision": {"name": precision}}),
                   env=os.environ | {"PEFT_FP32_PRODUCTS": products})
        assert not done.stderr
        results.add(weights(folder / products))
    assert len(results) == 1


def test_resume_without_checkpoint_starts(run, folder):
    result = run("peft-run", write(folder), "--resume")
    assert "starting from scratch" in result.stdout
    # Nothing is overwritten unless requested: neither an adapter nor checkpoints alone.
    assert "already holds an adapter" in run("peft-run", write(folder), code=2).stderr
    (folder / "run" / "adapter_model.safetensors").unlink()
    assert "--resume" in run("peft-run", write(folder), code=2).stderr
    run("peft-run", write(folder), "--set", "training.overwrite_output_dir=true", "--set", "training.save_every=4")
    assert checkpoints(folder / "run") == [4, 6]


def start(bin_dir, *arguments):
    return subprocess.Popen([bin_dir / "peft-run", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            stdin=subprocess.DEVNULL, text=True)


def wait_for_step(process, folder, step, after=0.0):
    """Waits until metrics.jsonl, restarted after the time `after`, logs `step`. Returns False if the run ended before."""
    log = folder / "metrics.jsonl"
    while process.poll() is None:
        if log.exists() and log.stat().st_mtime > after:
            lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
            if lines and json.loads(lines[-1])["step"] >= step:
                return True
        time.sleep(0.002)
    return False


LONG = {"adapter": {"lora_dropout": 0.2}, "training": {"max_steps": 150, "log_every": 1, "save_every": 0}}
SAVING = LONG | {"training": {"max_steps": 60, "log_every": 1, "save_every": 2, "save_total_limit": 3}}


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss")) for line in lines if "train_loss" not in line]


SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
def test_signal_saves_checkpoint(run, bin_dir, folder, number):
    run("peft-run", write(folder, "uninterrupted", LONG))
    path, output = write(folder, "run", LONG), folder / "run"
    process = start(bin_dir, path)
    assert wait_for_step(process, output, 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, out + err
    (step,) = checkpoints(output)
    assert f"stopped by {number.name} after step {step}" in out
    assert 5 <= step < 150 and not (output / "adapter_model.safetensors").exists()
    check_intact(output / f"checkpoint-{step}")
    assert f"(step {step})" in run("peft-run", path, "--resume").stdout
    assert weights(output) == weights(folder / "uninterrupted")
    assert history(output) == history(folder / "uninterrupted")
    assert metrics(output) == metrics(folder / "uninterrupted")


def test_second_signal_exits_immediately(bin_dir, folder):
    process = start(bin_dir, write(folder, "run", SAVING))
    assert wait_for_step(process, folder / "run", 3)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGTERM, -signal.SIGINT)
    for step in checkpoints(folder / "run"):
        check_intact(folder / "run" / f"checkpoint-{step}")


def test_signals_of_batch_systems_may_repeat(bin_dir, folder):
    """A closed terminal sends SIGHUP twice, a batch system SIGUSR1 and later SIGTERM, the kernel SIGXCPU every second: none of
    them cuts off the save that the first one asked for."""
    process = start(bin_dir, write(folder, "run", LONG))
    assert wait_for_step(process, folder / "run", 3)
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGXCPU, signal.SIGXCPU, signal.SIGUSR1, signal.SIGTERM):
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, out + err
    (step,) = checkpoints(folder / "run")
    check_intact(folder / "run" / f"checkpoint-{step}")


def test_ignored_hangup_does_not_stop_the_run(bin_dir, folder):
    """As under nohup."""
    process = subprocess.Popen([bin_dir / "peft-run", write(folder, "run", LONG)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert wait_for_step(process, folder / "run", 3)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0 and (folder / "run" / "adapter_model.safetensors").exists()


def test_closed_terminal_saves(bin_dir, folder):
    """The kernel sends SIGHUP, and what the run still prints fails."""
    terminal, other_end = os.openpty()
    process = subprocess.Popen([bin_dir / "peft-run", write(folder, "run", LONG)], stdin=other_end, stdout=other_end,
                               stderr=other_end, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(other_end)
    threading.Thread(target=drain, args=(terminal, (stop := threading.Event())), daemon=True).start()
    assert wait_for_step(process, folder / "run", 3)
    stop.set()
    assert process.wait(60) == 75
    (step,) = checkpoints(folder / "run")
    check_intact(folder / "run" / f"checkpoint-{step}")


def drain(terminal, stop):
    """Reads a terminal's output until it is to be closed."""
    while not stop.is_set():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    os.close(terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["SIGTERM", "SIGUSR1"])
def test_stalled_reader_does_not_keep_a_run_from_saving(bin_dir, folder, number):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    process = subprocess.Popen([bin_dir / "peft-run", write(folder, "run", LONG)], stdout=writing, stderr=writing)
    os.close(writing)
    log = folder / "run" / "metrics.jsonl"
    assert wait_for_step(process, folder / "run", 1)
    size = -1
    while size != (size := log.stat().st_size):  # until the run waits for its reader
        time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(60) == 75
    os.close(reading)
    (step,) = checkpoints(folder / "run")
    check_intact(folder / "run" / f"checkpoint-{step}")


def test_run_without_save_every_loses_minutes_only(run, bin_dir, folder):
    """By default a run keeps the newest checkpoints until its adapter is written. Killed, it resumes from them; it ends as a run
    without any."""
    keys = {"save_every": 0, "save_every_minutes": 1e-6}
    often = LONG | {"training": LONG["training"] | keys}
    run("peft-run", write(folder, "without", LONG | {"training": LONG["training"] | {"save_every_minutes": 0}}))
    path, output = write(folder, "run", often), folder / "run"
    process = start(bin_dir, path)
    assert wait_for_step(process, output, 5)
    process.kill()
    process.communicate()
    there = checkpoints(output)
    assert 1 <= len(there) <= 2 and not (output / "adapter_model.safetensors").exists()
    for step in there:
        check_intact(output / f"checkpoint-{step}")
    assert f"(step {max(there)})" in run("peft-run", path, "--resume").stdout
    assert weights(output) == weights(folder / "without") and metrics(output) == metrics(folder / "without")
    assert not checkpoints(output)
    # What save_every has saved stays, though the run continues without it; and the two exclude each other.
    kept = write(folder, "kept", often)
    by_steps = ["--set", "training.save_every=100", "--set", "training.save_every_minutes=0"]
    process = start(bin_dir, kept, *by_steps)
    while not (folder / "kept" / "checkpoint-100").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    run("peft-run", kept, "--resume")
    assert 100 in checkpoints(folder / "kept") and weights(folder / "kept") == weights(folder / "without")
    assert "must be 0 or absent with save_every" in run("peft-run", kept, "--set", "training.save_every=5", code=2).stderr


def test_temporary_checkpoint_that_cannot_be_written_does_not_end_the_run(run, bin_dir, folder):
    """The limit of a file's size is below that of the optimizer's state."""
    keys = {"save_every": 0, "save_every_minutes": 1e-6, "max_steps": 3}
    run("peft-run", write(folder, "free", {"training": keys}))
    limit = (folder / "free" / "adapter_model.safetensors").stat().st_size + 1000
    done = run("peft-run", write(folder, "run", {"training": keys}),
               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert "warning: no checkpoint at step 1: " in done.stderr and "File too large" in done.stderr
    assert weights(folder / "run") == weights(folder / "free") and not checkpoints(folder / "run")


def test_limit_of_file_size(run, folder):
    """SIGXFSZ ends no process: the file is named, with exit code 5."""
    for limit, name in ((100, ".peft-run.json"), (4000, "checkpoint-1")):
        printed = run("peft-run", write(folder, "run"), code=5,
                      preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))).stderr
        assert name in printed and "cannot be written: File too large" in printed
    assert not (folder / "run" / "adapter_model.safetensors").exists()


OWN_FILES = ["README.md", "metrics.jsonl", "trainer_state.json", "resolved.toml", "adapter_config.json"]


@pytest.mark.parametrize("name", OWN_FILES)
@pytest.mark.parametrize("words", [[], ["--resume"], ["--set", "training.overwrite_output_dir=true"]], ids=["new", "resume", "overwrite"])
def test_files_of_the_user_are_not_replaced(run, folder, name, words):
    """A file that no run has written is named before anything is loaded or written."""
    output = folder / "run"
    output.mkdir()
    (output / name).write_text("mine\n")
    printed = run("peft-run", write(folder), *words, code=2).stderr
    assert f"output_dir: {output} contains {name}, which this run would replace and no run is recorded to have written" in printed
    assert {path.name: path.read_text() for path in output.iterdir()} == {name: "mine\n"}


def test_folder_of_the_user_is_not_deleted(run, folder):
    """A checkpoint of another program, as of transformers' Trainer, is not ours; nor is what else the folder holds."""
    output = folder / "run"
    (output / "checkpoint-3").mkdir(parents=True)
    (output / "checkpoint-3" / "trainer_state.json").write_text("{}")
    over = ["--set", "training.overwrite_output_dir=true"]
    for words in ([], over):
        assert "contains checkpoint-3, which" in run("peft-run", write(folder), *words, code=2).stderr
    (output / "checkpoint-3").rename(output / "theirs")
    (output / "notes.txt").write_text("mine")
    run("peft-run", write(folder))
    (output / "README.md").unlink()
    run("peft-run", write(folder), *over)  # a run replaces what a run has written
    (output / "README.md").unlink()
    run("peft-run", write(folder), *over, "--set", "training.max_steps=2", "--set", "training.save_every=0")
    assert (output / "theirs" / "trainer_state.json").exists() and (output / "notes.txt").read_text() == "mine"
    assert "peft.cpp" in (output / "README.md").read_text()


def test_notes_next_to_a_run_stay(run, bin_dir, folder):
    """A README.md that appears during the run is not replaced by the model card, nor does it cost the adapter."""
    process = start(bin_dir, write(folder, "run", LONG))
    assert wait_for_step(process, folder / "run", 3)
    (folder / "run" / "README.md").write_text("my notes")
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 0 and "warning: not written: README.md" in printed
    assert (folder / "run" / "README.md").read_text() == "my notes" and (folder / "run" / "adapter_model.safetensors").exists()


def test_adapter_survives_a_report_that_cannot_be_written(run, bin_dir, folder):
    """The adapter is written first: a disk that is full afterwards costs the log's end or the model card only."""
    trace = folder / "trace"
    run("peft-run", write(folder, "first", {"training": {"save_every": 0}}))  # which caches the tokens
    traced("-o", trace, "-e", "trace=rename", bin_dir / "peft-run", write(folder, "complete", {"training": {"save_every": 0}}), check=True)
    renames = [line for line in trace.read_text().splitlines() if " rename(" in line]
    for name in ("trainer_state.json", "README.md"):
        when = 1 + next(i for i, line in enumerate(renames) if f'/complete/{name}"' in line)
        shutil.rmtree(folder / "run", ignore_errors=True)
        result = traced("-o", "/dev/null", "-e", f"inject=rename:error=ENOSPC:when={when}",
                        bin_dir / "peft-run", write(folder, "run", {"training": {"save_every": 0}}))
        assert result.returncode == 5, result.stderr
        assert f"{name}: cannot be renamed into place: No space left on device; the adapter is complete in {folder / 'run'}" in result.stderr
        assert weights(folder / "run") == weights(folder / "complete")
        peft.PeftConfig.from_pretrained(folder / "run")


def test_signal_before_first_step(run, bin_dir, folder):
    run("peft-run", write(folder, "run", SAVING))
    before = {step: (folder / "run" / f"checkpoint-{step}" / "manifest.json").read_bytes() for step in checkpoints(folder / "run")}
    process = start(bin_dir, write(folder, "run", SAVING), "--resume", folder / "run" / f"checkpoint-{min(before)}")
    assert "resuming from" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    for step in before:
        if (folder / "run" / f"checkpoint-{step}").exists():
            check_intact(folder / "run" / f"checkpoint-{step}")


def test_closed_output_pipe_still_saves(bin_dir, folder):
    """With `| tee`, which the same Ctrl-C ends, the checkpoint is saved anyway."""
    process = start(bin_dir, write(folder, "run", SAVING))
    assert wait_for_step(process, folder / "run", 3)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75
    newest = max(checkpoints(folder / "run"))
    check_intact(folder / "run" / f"checkpoint-{newest}")
    assert newest >= 3


@pytest.mark.alone
@pytest.mark.slow
def test_signals_at_random_moments(run, bin_dir, folder):
    """A signal at any moment gives exit code 75 and leaves only intact checkpoints."""
    run("peft-run", write(folder, "uninterrupted", SAVING))
    path, output = write(folder, "run", SAVING), folder / "run"
    moments = random.Random(3)
    for _ in range(8):
        process = start(bin_dir, path, "--resume")
        assert process.stdout.readline()  # it lives
        time.sleep(moments.uniform(0, 0.6))
        log = output / "metrics.jsonl"
        before = len(log.read_text().splitlines()) if log.exists() else 0
        process.send_signal(moments.choice([signal.SIGTERM, signal.SIGINT]))
        process.communicate(timeout=60)
        assert process.returncode == 75 or process.returncode == 0 and before >= SAVING["training"]["max_steps"] - 3
        for step in checkpoints(output):
            check_intact(output / f"checkpoint-{step}")
    run("peft-run", path, "--resume")
    assert weights(output) == weights(folder / "uninterrupted")
    assert metrics(output) == metrics(folder / "uninterrupted")


def test_diverged_run_writes_no_adapter(run, folder):
    """Non-finite steps are counted and reported with their examples; the last checkpoint before them stays, even with a limit of
    one; no adapter is written."""
    training = {"save_every": 1, "save_total_limit": 1, "log_every": 1, "max_steps": STEPS}
    for limit, printed in ((0, "step 2: the loss is"), (2, "3 steps were not finite, the first of them step 2")):
        name = f"limit{limit}"
        path = write(folder, name, {"optimizer": {"lr": 1e30}, "scheduler": {"name": "constant"},
                                    "training": training | {"max_nonfinite_steps": limit}})
        done = run("peft-run", path, code=6)
        assert printed in done.stderr and f"training.max_nonfinite_steps is {limit}" in done.stderr
        assert f"the last checkpoint is {folder / name / 'checkpoint-1'}" in done.stderr
        assert checkpoints(folder / name) == [1] and not (folder / name / "adapter_model.safetensors").exists()
        check_intact(folder / name / "checkpoint-1")
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        faults = [line for line in lines if "fault" in line]
        assert [fault["step"] for fault in faults] == list(range(2, 3 + limit))
        assert all(example.startswith(str(folder / "train.jsonl") + ":") for example in faults[0]["examples"])
        assert "step 2 skipped: the loss is" in done.stdout


def test_resumed_run_diverges_like_uninterrupted(run, folder):
    """The last step ruins the weights, which is detected with an example that an earlier step had learned from, also in a run that
    resumed after that step. A run cannot be shortened to where a checkpoint already is."""
    ruin = {"optimizer": {"lr": 1e25}, "scheduler": {"name": "constant"}, "training": {"max_steps": 2, "log_every": 1}}
    path, output = write(folder, "run", ruin), folder / "run"
    assert "after step 2 the loss of" in run("peft-run", path, code=6).stderr
    assert checkpoints(output) == [1]
    for _ in range(2):
        run("peft-run", path, "--resume", code=6)
        assert checkpoints(output) == [1] and not (output / "adapter_model.safetensors").exists()
    short = run("peft-run", path, "--resume", "--set", "training.max_steps=1", code=2).stderr
    assert "the run had 2 steps and now has 1, which is the checkpoint's step" in short


def test_overflowed_steps_do_not_validate_a_checkpoint(run, folder):
    """With fp16 a step that ruins the weights is followed by steps that overflow: the checkpoint before it stays, even of a limit
    of one, since no step after the later ones was finite."""
    ruin = {"optimizer": {"lr": 20.0}, "scheduler": {"name": "constant", "warmup_steps": 1},
            "precision": {"name": "fp16", "min_scale": 32768.0},
            "training": {"save_every": 1, "save_total_limit": 1, "log_every": 1}}
    printed = run("peft-run", write(folder, "run", ruin), code=6).stderr
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    finite = [line["step"] for line in lines if line.get("skipped") == 0]
    assert finite and ("overflow" in printed or "scale" in printed), printed
    assert min(checkpoints(folder / "run")) < max(finite), f"{checkpoints(folder / 'run')} of finite steps {finite}"


@pytest.mark.alone
@pytest.mark.slow
def test_sigkill_at_random_moments(run, bin_dir, folder):
    """Ten SIGKILLs at random moments, nearly all during a save. Every checkpoint is intact, less is lost than the steps between two
    checkpoints, and the end is that of the uninterrupted run."""
    saving = SAVING | {"training": SAVING["training"] | {"max_steps": 150}}
    run("peft-run", write(folder, "uninterrupted", saving))
    path, output = write(folder, "run", saving), folder / "run"
    moments = random.Random(5)
    kills = 0
    for _ in range(10):
        begun = time.time()
        process = start(bin_dir, path, "--resume")
        if wait_for_step(process, output, max(checkpoints(output), default=0) + 1, begun):
            time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.communicate(timeout=60)
        kills += process.returncode == -signal.SIGKILL
        found = checkpoints(output)
        for step in found:
            check_intact(output / f"checkpoint-{step}")
        lines = [line for line in (output / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
        steps = [json.loads(line)["step"] for line in lines]
        assert max(found, default=0) >= max(steps, default=0) - 3  # saved every two; the log is ahead of the save
        assert len(found) <= 4
    assert kills >= 5
    run("peft-run", path, "--resume")
    assert weights(output) == weights(folder / "uninterrupted")
    assert history(output) == history(folder / "uninterrupted")
    assert metrics(output) == metrics(folder / "uninterrupted")
    assert not [entry.name for entry in output.iterdir() if entry.name.endswith((".writing", ".deleting"))]


def unlearning(folder, training):
    """A run whose evaluation loss increases, so that an early checkpoint is the best."""
    (folder / "eval.jsonl").write_text(json.dumps({"text": "\x01\x02\x03\x04" * 8}) + "\n")
    return {"scheduler": {"name": "constant"}, "data": {"eval": "eval.jsonl"},
            "training": {"eval_every": 1, "save_every": 1} | training}


def test_newest_and_best_checkpoints_are_kept(run, folder):
    """An early checkpoint that is the best is retained and becomes the result."""
    ruin = unlearning(folder, {"save_total_limit": 2, "load_best_model_at_end": True})
    run("peft-run", write(folder, "best", ruin))
    output = folder / "best"
    losses = {line["step"]: line["eval_loss"] for line in history(output) if "eval_loss" in line}
    best = min(losses, key=losses.get)
    assert best < STEPS and checkpoints(output) == [best, STEPS]
    assert weights(output) == weights(output / f"checkpoint-{best}") != weights(output / f"checkpoint-{STEPS}")
    state = json.loads((output / "trainer_state.json").read_text())
    assert state["best_global_step"] == best and state["best_metric"] == losses[best]
    assert state["best_model_checkpoint"] == str(output / f"checkpoint-{best}")
    printed = re.search(r"evaluation loss \| (\S+) ", (output / "README.md").read_text())[1]
    assert float(printed) == pytest.approx(losses[best], rel=1e-5) != pytest.approx(losses[STEPS], rel=1e-5)
    # Also across a break.
    shutil.rmtree(output / f"checkpoint-{STEPS}")
    run("peft-run", write(folder, "best", ruin), "--resume")
    assert checkpoints(output) == [best, STEPS] and weights(output) == weights(output / f"checkpoint-{best}")
    # Without it only the newest.
    ruin["training"] = {"save_total_limit": 2}
    run("peft-run", write(folder, "newest", ruin))
    assert checkpoints(folder / "newest") == [STEPS - 1, STEPS]
    assert "needs evaluation data" in run(
        "peft-run", write(folder, "none"), "--set", "training.load_best_model_at_end=true", "--set", "training.eval_every=1",
        code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "schedule_free_adamw"])
def test_adalora_checkpoint_equals_evaluated_adapter(run, folder, optimizer):
    """A checkpoint equals the evaluated adapter, also between two allocations of ranks, when a triplet that was set to zero has been
    trained since."""
    changes = {"adapter": {"name": "adalora", "init_r": 6, "target_r": 2, "tinit": 1, "deltaT": 4, "lora_alpha": 64},
               "data": {"eval": "train.jsonl"}, "optimizer": {"name": optimizer, "lr": 0.1}, "scheduler": {"name": "constant"},
               "training": {"max_steps": 12, "eval_every": 1}}
    run("peft-run", write(folder, "run", changes))
    losses = {line["step"]: line["eval_loss"] for line in history(folder / "run") if "eval_loss" in line}
    assert sorted(losses) == list(range(1, 13)) == checkpoints(folder / "run")
    kept = []
    for step, loss in losses.items():
        at = folder / "run" / f"checkpoint-{step}"
        printed = run("peft-run", "eval", "--model", folder / "model", "--adapter", at, "--data", folder / "train.jsonl").stdout
        assert float(printed.splitlines()[-1].split()[0]) == pytest.approx(loss, abs=2e-4), (step, printed)
        kept.append(json.loads((at / "adapter_config.json").read_text())["rank_pattern"] is not None)
    assert [step for step, has in enumerate(kept, 1) if has] == [4, 8, 12]


def test_closed_stdout_does_not_fail_the_run(folder, bin_dir):
    """The reader of the output may exit: the run ends as usual, and reports on stderr what it could not print."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([bin_dir / "peft-run", write(folder)], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0 and "the output cannot be written" in done.stderr
    check_intact(folder / "run" / f"checkpoint-{STEPS}")
    assert weights(folder / "run") == weights(folder / "run" / f"checkpoint-{STEPS}")
    done = subprocess.run([bin_dir / "peft-run", "plan", write(folder)], stdout=open("/dev/full", "w"), stderr=subprocess.PIPE)
    assert done.returncode == 5


def test_unreadable_log_is_not_overwritten(run, folder):
    path = write(folder)
    run("peft-run", path, "--set", "training.max_steps=4")
    (folder / "run" / "metrics.jsonl").unlink()
    (folder / "run" / "metrics.jsonl").symlink_to("metrics.jsonl")  # what opens it finds no end
    printed = run("peft-run", path, "--resume", "--set", "training.max_steps=4", code=5).stderr
    assert "metrics.jsonl: cannot be read: " in printed


def test_resume_from_symlinked_checkpoint(run, folder):
    """--resume continues from the folder's checkpoints even with overwrite_output_dir."""
    saving = {"training": {"save_every": 2}}
    run("peft-run", write(folder, "uninterrupted", saving))
    path, output = write(folder, "run", saving), folder / "run"
    run("peft-run", path)
    (folder / "link").symlink_to(output / "checkpoint-2")
    over = ["--set", "training.overwrite_output_dir=true"]
    result = run("peft-run", path, "--resume", folder / "link", *over)
    assert "archived a later checkpoint as " in result.stderr and weights(output) == weights(folder / "uninterrupted")
    check_intact(output / "checkpoint-2")
    # A second time, what was archived first stays, too.
    result = run("peft-run", path, "--resume", folder / "link", *over)
    assert f"checkpoint-{STEPS}.aside-2\n" in result.stderr  # words: ok
    assert sorted(entry.name for entry in output.glob("*.aside*")) == sorted(  # words: ok
        f"checkpoint-{step}.aside{more}"  # words: ok
        for step in range(4, STEPS + 1, 2) for more in ("", "-2"))


def test_missing_best_checkpoint_is_reported_before_training(run, folder):
    """A missing best checkpoint is an error before training continues."""
    path, output = write(folder, "run", unlearning(folder, {})), folder / "run"
    run("peft-run", path)
    losses = {line["step"]: line["eval_loss"] for line in history(output) if "eval_loss" in line}
    best = min(losses, key=losses.get)
    shutil.rmtree(output / f"checkpoint-{best}")
    best_at_end = ["--set", "training.load_best_model_at_end=true"]
    printed = run("peft-run", path, "--resume", output / f"checkpoint-{STEPS - 1}", *best_at_end, code=3).stderr
    assert "[training] load_best_model_at_end" in printed and f"checkpoint-{best}" in printed
    run("peft-run", path, "--resume", output / f"checkpoint-{STEPS - 1}")


def test_best_checkpoint_survives_failed_save(run, bin_dir, folder):
    """A failed save of the best step so far, after a worse one: the previous best is still there, and the run resumes from there to
    the uninterrupted end."""
    best = {"optimizer": {"lr": 0.2}, "scheduler": {"name": "constant"}, "data": {"eval_split": 0.2},
            "training": {"eval_every": 1, "save_every": 1, "load_best_model_at_end": True}}
    run("peft-run", write(folder, "uninterrupted", best))
    losses = [line["eval_loss"] for line in history(folder / "uninterrupted") if "eval_loss" in line]
    better = [step for step in range(3, STEPS) if losses[step - 1] < min(losses[:step - 1]) < losses[step - 2]]
    assert better, f"no step but the last is the best after a worse one: {losses}"
    best["training"] |= {"save_total_limit": 1}
    path, output = write(folder, "run", best), folder / "run"
    for fault in ("error=EIO", "signal=SIGKILL"):
        shutil.rmtree(output, ignore_errors=True)
        result = traced("-o", "/dev/null", "-P", output / f"checkpoint-{better[0]}.writing", "-e", "trace=rename,renameat2",
                      "-e", f"inject=rename,renameat2:{fault}", bin_dir / "peft-run", path)
        assert result.returncode != 0 and max(checkpoints(output)) == better[0] - 1, result.stderr
        run("peft-run", path, "--resume")
        assert weights(output) == weights(folder / "uninterrupted") and history(output) == history(folder / "uninterrupted")


def test_resume_path_with_trailing_slash_or_symlink(run, folder):
    """With a trailing slash or through a symlink, the best checkpoint is found where the run writes."""
    path, output = write(folder, "run", unlearning(folder, {"load_best_model_at_end": True})), folder / "run"
    run("peft-run", path)
    before = weights(output)
    (folder / "link").symlink_to(output / "checkpoint-3")
    for named in (f"{output}/checkpoint-3/", folder / "link"):
        run("peft-run", path, "--resume", named)
        assert weights(output) == before


def test_init_from_is_not_deleted(run, folder):
    """The checkpoint of init_from is never deleted, even with overwrite_output_dir."""
    run("peft-run", write(folder))
    output = folder / "run"
    there = checkpoints(output)
    write(folder, "run", {"adapter": {"r": None, "init_from": "run/checkpoint-2"}, "optimizer": {"lr": 1e-3}})
    over = ["--set", "training.overwrite_output_dir=true"]
    printed = run("peft-run", folder / "run.toml", *over, code=2).stderr
    assert "[adapter] init_from: " in printed and "which this run would delete" in printed
    assert checkpoints(output) == there
    run("peft-run", folder / "run.toml", *over, "--set", f"training.output_dir={folder / 'other'}")


def test_adapter_of_another_name_is_not_overwritten(run, folder):
    """A run is refused next to a named adapter in the same folder, and next to the unnamed one."""
    named = ["--set", "adapter.adapter_name=x", "--set", "training.save_every=0"]
    run("peft-run", write(folder, "run", {"training": {"save_every": 0}}))
    run("peft-run", write(folder, "named"), *named)
    for name, more in (("run", named), ("named", ["--set", "training.save_every=0"]), ("named", [*named, "--set", "adapter.adapter_name=y"])):
        before = {path: path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()}
        assert "already holds an adapter" in run("peft-run", folder / f"{name}.toml", *more, code=2).stderr
        assert {path: path.read_bytes() for path in (folder / name).rglob("*") if path.is_file()} == before
    # An adapter in a subfolder does not count if the folder is not that of a run.
    run("peft-run", write(folder, "inner"), "--set", f"training.output_dir={folder / 'above' / 'inner'}")
    run("peft-run", write(folder, "above"))


def test_impossible_output_dir(run, folder):
    (folder / "loop").symlink_to(folder / "loop")
    for name in ("n" * 300, "loop"):
        printed = run("peft-run", write(folder, "run"), "--set", f"training.output_dir={folder / name}", code=5).stderr
        assert f"{name} cannot be " in printed, printed
    # A foreign line in the log does not prevent resuming.
    path, output = write(folder, "run"), folder / "run"
    run("peft-run", path)
    with open(output / "metrics.jsonl", "a") as log:
        log.write('{"step": "4", "note": "mine"}\n[1]\n')
    run("peft-run", path, "--resume")


def test_two_runs_in_one_output_dir(run, bin_dir, folder):
    process = start(bin_dir, write(folder, "run", SAVING))
    assert wait_for_step(process, folder / "run", 1)
    process.send_signal(signal.SIGSTOP)
    try:
        assert "another run is writing to it" in run("peft-run", folder / "run.toml", "--resume", code=5).stderr
    finally:
        process.kill()
        process.communicate()


def test_full_disk(run, folder):
    """The older checkpoints stay intact, and the message says how much space is missing."""
    output = folder / "run"
    output.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", output], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("SKIPPED: a file system of 1.6 MB cannot be mounted here; run as root")
    try:
        result = run("peft-run", write(folder, "run", SAVING | {"training": SAVING["training"] | {"save_total_limit": None}}), code=5)
        assert "bytes, the disk has" in result.stderr
        found = checkpoints(output)
        assert found
        for step in found:
            check_intact(output / f"checkpoint-{step}")
        assert not list(output.glob("*.writing")) and not (output / "adapter_model.safetensors").exists()
    finally:
        subprocess.run(["umount", output], check=True)


def strace():
    """strace, which records system calls and makes them fail."""
    found = shutil.which("strace")
    if not found or subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True).returncode != 0:
        pytest.skip("SKIPPED: there is no strace here, or it may not trace")
    return found


def traced(*words, **options):
    """A program under strace; the leak sanitizer, where there is one, cannot trace what is traced."""
    env = os.environ | {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
    return subprocess.run([strace(), "-f", *words], capture_output=True, text=True, env=env, **options)


def test_save_syncs_in_order(bin_dir, folder):
    """Each file is synced and renamed, the manifest last; then the folder is synced and renamed, and its parent is synced."""
    path, trace = write(folder, "run", {"training": {"max_steps": 2, "save_every": 2}}), folder / "trace"
    traced("-y", "-o", trace, "-e", "trace=fsync,rename,renameat2", bin_dir / "peft-run", path, check=True)
    at = str(folder / "run" / "checkpoint-2")
    calls = [line.split(" ", 1)[1].strip() for line in trace.read_text().splitlines()]
    calls = [call for call in calls if "checkpoint-2" in call or f"fsync(" in call and f"<{folder / 'run'}>" in call]
    files = []
    while calls and f'rename("{at}.writing", "{at}"' not in calls[0]:
        if "checkpoint-2" not in calls[0]:
            calls.pop(0)  # of files outside the checkpoint
            continue
        synced = calls.pop(0)
        assert synced.startswith("fsync("), synced
        draft = synced.split("<")[1].split(">")[0]
        if draft == f"{at}.writing":
            assert f'rename("{at}.writing", "{at}"' in calls[0]  # the folder itself, all files being in it
            continue
        renamed, of_folder = calls.pop(0), calls.pop(0)
        assert renamed.startswith(f'rename("{draft}", "{at}.writing/')
        assert of_folder.startswith("fsync(") and f"<{at}.writing>" in of_folder
        files.append(renamed.split('"')[3].split("/")[-1])
    assert files[-1] == "manifest.json" and set(files) == {file.name for file in (folder / "run" / "checkpoint-2").iterdir()}
    assert f'rename("{at}.writing", "{at}"' in calls[0]
    assert calls[1].startswith("fsync(") and f"<{folder / 'run'}>" in calls[1]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=SIGKILL"])
@pytest.mark.parametrize("call,moments", [("fsync", (7, 14, 21, 27)), ("rename", (4, 9, 14))])
def test_failed_save(run, bin_dir, folder, call, moments, fault):
    """The n-th sync or renaming of the second save fails, or the process is killed in it: the first checkpoint stays intact, an
    error names what and where, and the run resumes from there to the uninterrupted end."""
    training = {"training": {"max_steps": 4, "save_every": 2}}
    run("peft-run", write(folder, "uninterrupted", training))
    path, output = write(folder, "run", training), folder / "run"
    shutil.copytree(folder / "uninterrupted" / "checkpoint-2", output / "checkpoint-2")
    for n in moments:  # after those of the record, resolved.toml and metrics.jsonl; the last one is of the folder itself
        result = traced("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={n}",
                      bin_dir / "peft-run", path, "--resume")
        assert checkpoints(output) == [2], f"{n}: {result.stderr}"
        check_intact(output / "checkpoint-2")
        if fault.startswith("error"):
            assert result.returncode == 5 and str(output / "checkpoint-4") in result.stderr, result.stderr
            assert not list(output.glob("*.writing"))
        else:
            assert result.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert "(step 2)" in run("peft-run", path, "--resume").stdout
    assert weights(output) == weights(folder / "uninterrupted")
    assert not list(output.glob("*.writing"))
