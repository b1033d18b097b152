"""The consumer: installs peft into a folder of its own, makes a plugin of each kind with tools/new-plugin outside the tree,
builds them with find_package(peft), and trains with all five at once by the installed peft-run, which was never rebuilt.

    run.py BUILD [-D CMAKE_DEFINITION]...
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
KINDS = {"adapter": "my_method", "optimizer": "my_optimizer", "scheduler": "my_schedule", "clipping": "my_bound",
         "precision": "my_types"}
STEPS = 3

build, *definitions = sys.argv[1:]
environment = {key: value for key, value in os.environ.items() if key not in ("PEFT_PLUGIN_PATH", "LD_LIBRARY_PATH")}


def run(*command, **keywords):
    print("+", *command, flush=True)
    return subprocess.run([str(word) for word in command], check=True, env=environment, **keywords)


def output_of(*command):
    text = run(*command, stdout=subprocess.PIPE, text=True).stdout
    print(text, flush=True)
    return text


def build_outside(folder, prefix):
    """All five in one project, so that libtorch is looked for once; returns each kind's folder of plugins."""
    lines = ["cmake_minimum_required(VERSION 3.25)", "project(outside LANGUAGES CXX)"]
    for kind, name in KINDS.items():
        run(sys.executable, TREE / "tools" / "new-plugin", kind, name, folder / kind)
        lines.append(f"add_subdirectory({kind})")
    (folder / "CMakeLists.txt").write_text("\n".join(lines) + "\n")
    run("cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", *definitions)
    run("cmake", "--build", folder / "build", "--parallel", "2")
    return {kind: folder / "build" / kind for kind in KINDS}


def check_found(peft_run, prefix, folders, paths):
    # Not found until its folder is named.
    listed = output_of(peft_run, "list")
    assert str(prefix / "lib") in listed, "the installed plugins' folder is searched"
    assert not any(name in listed for name in KINDS.values())
    rows = [line.split() for line in output_of(peft_run, "list", *paths).splitlines()]
    for kind, name in KINDS.items():
        assert [kind, name, "0.1.0", f"{folders[kind]}/peft_{kind}_{name}.so"] in rows
    assert '["v_proj", "down_proj"]' in output_of(peft_run, "describe", "adapter/my_method", *paths)
    assert "BROKEN" not in output_of(peft_run, "selfcheck", "adapter/my_method", *paths)


def model_and_data(folder):
    """The real model and the template's own data; or a tiny model, which has no chat template, and text."""
    real = os.environ.get("PEFT_MODEL_GGUF", "")
    if os.path.exists(real):
        return [f"model.path={real}"]
    try:
        import transformers  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true":
            sys.exit("transformers is not installed: training with the plugins could not be tried")
        print("SKIPPED: no model and no transformers, so training with the plugins was not tried")
        sys.exit(77)
    run(sys.executable, TREE / "tests" / "support" / "tiny_llama.py", folder / "model")
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps({"text": f"The sum of {i} and {i} is {2 * i}."}) + "\n" for i in range(32)))
    return [f"model.path={folder / 'model'}", f"data.train={data}", "data.max_length=64"]


def check_training(peft_run, folder, folders):
    """Trains with the template's example, with another model and the four other plugins."""
    sets = [*model_and_data(folder), "plugins.paths=" + json.dumps([str(path) for path in folders.values()])]
    sets += [f"{kind}.name={name}" for kind, name in KINDS.items() if kind != "adapter"]
    run(peft_run, folder / "adapter" / "example.toml", *(word for set_ in sets for word in ("--set", set_)))
    out = folder / "adapter" / "runs" / "my_method"
    log = [line for line in json.loads((out / "trainer_state.json").read_text())["log_history"] if "loss" in line]
    assert len(log) == STEPS and all(math.isfinite(line["loss"]) for line in log), log
    # Four stairs over three steps, each half of the one before: the scheduler is the template's.
    assert [line["learning_rate"] for line in log] == [1e-2, 5e-3, 2.5e-3], log
    return out, log


def check_adapter(out):
    try:
        import safetensors.torch
    except ImportError:
        return
    # Its vectors start as zeros; the optimizer moves each element by the rate.
    trained = safetensors.torch.load_file(out / "adapter_model.safetensors")
    assert trained and all(name.endswith((".v_proj.gate", ".down_proj.gate")) for name in trained), sorted(trained)
    assert all((tensor != 0).any() and tensor.abs().max() <= 0.0176 for tensor in trained.values())


with tempfile.TemporaryDirectory(prefix="peft_consumer_") as scratch:
    scratch = pathlib.Path(scratch)
    prefix, outside = scratch / "prefix", scratch / "outside"
    outside.mkdir()
    environment["PEFT_CACHE"] = str(scratch / "cache")
    run("cmake", "--install", build, "--prefix", prefix)
    peft_run = prefix / "bin" / "peft-run"
    folders = build_outside(outside, prefix)
    check_found(peft_run, prefix, folders, [word for path in folders.values() for word in ("--plugin-path", path)])
    out, log = check_training(peft_run, outside, folders)
    check_adapter(out)
    print("trained with plugins of its own:", [line["loss"] for line in log])
