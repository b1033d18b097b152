"""A user of the installed package: installs peft.cpp into an empty folder, makes a plugin of each kind with tools/new-plugin
outside the tree, builds them and the programs of docs/examples with find_package(peft), trains with all six plugins at once by
the installed peft-run, and runs the same experiment from C++.

    run.py BUILD [-D CMAKE_DEFINITION]...
"""

import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "tests" / "tools"))
import elf_test  # noqa: E402
KINDS = {"adapter": "my_method", "optimizer": "my_optimizer", "scheduler": "my_schedule", "clipping": "my_bound",
         "precision": "my_types", "objective": "my_objective"}
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


def install(prefix):
    """Installs, with libtorch if that is the CPU build (that for CUDA has gigabytes), and moves the folder."""
    first = prefix.with_name("installed")
    run("cmake", "--install", build, "--prefix", first)
    torch_libraries = {pathlib.Path(word).parent for word in libraries_of(first / "lib" / "libpeft_cli.so") if "libtorch" in word}
    has_torch = not any((folder / "libtorch_cuda.so").exists() for folder in torch_libraries)
    if has_torch:
        run("cmake", "--install", build, "--prefix", first, "--component", "torch", stdout=subprocess.DEVNULL)
    first.rename(prefix)
    files = [prefix / "lib" / "libpeft_cli.so", *(prefix / "lib" / "peft" / "plugins").glob("*.so")]
    for file in [files[0], files[1], files[-1]] if has_torch else []:
        foreign = [path for path in libraries_of(file) if "torch" in path or "libc10" in path or "libpeft" in path]
        assert foreign and all(path.startswith(str(prefix)) for path in foreign), (file, foreign)


def libraries_of(file):
    return [words[2] for line in output_of("ldd", file).splitlines() if len(words := line.split()) > 3]


def check_new_plugin(prefix, folder):
    """The installed script needs nothing but the package."""
    script = prefix / "bin" / "peft-new-plugin"
    assert f"-DCMAKE_PREFIX_PATH={prefix}" in output_of(sys.executable, script, "optimizer", "mine", folder / "mine")
    shutil.rmtree(folder / "mine")
    done = subprocess.run([sys.executable, script, "adapter", "mine"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: peft-new-plugin KIND NAME FOLDER" in done.stderr, done.stderr


def build_outside(folder, prefix):
    """Plugins and examples in one project, so that libtorch is looked for once; returns each kind's folder of plugins."""
    lines = ["cmake_minimum_required(VERSION 3.25)", "project(outside LANGUAGES CXX)"]
    for kind, name in KINDS.items():
        run(sys.executable, prefix / "bin" / "peft-new-plugin", kind, name, folder / kind)
        lines.append(f"add_subdirectory({kind})")
    shutil.copytree(prefix / "share" / "peft" / "examples", folder / "examples")
    lines += ["add_subdirectory(examples)", "add_subdirectory(examples/plugins)"]
    (folder / "CMakeLists.txt").write_text("\n".join(lines) + "\n")
    run("cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", *definitions)
    run("cmake", "--build", folder / "build", "--parallel", "2")
    return {kind: folder / "build" / kind for kind in KINDS}


def check_found(peft_run, prefix, folders, paths):
    # A plugin is found only if its folder is named.
    listed = output_of(peft_run, "list")
    assert str(prefix / "lib") in listed, "the folder of the installed plugins is searched"
    assert not any(name in listed for name in KINDS.values())
    rows = [line.split() for line in output_of(peft_run, "list", *paths).splitlines()]
    for kind, name in KINDS.items():
        assert [kind, name, "0.1.0", f"{folders[kind]}/peft_{kind}_{name}.so"] in rows
    assert '["v_proj", "down_proj"]' in output_of(peft_run, "describe", "adapter/my_method", *paths)
    assert "BROKEN" not in output_of(peft_run, "selfcheck", "adapter/my_method", *paths)
    assert 'name = "my_method"' in output_of(peft_run, "describe", "my_method", "--example", *paths)
    assert "[model]" in output_of(peft_run, "describe", "lora", "--example")


def check_example_plugins(peft_run, folder):
    """The methods of the page keep their promises, and refuse a rank that a module cannot have."""
    path = ["--plugin-path", folder / "build" / "examples" / "plugins"]
    for name in ("hadamard", "lora_xs"):
        assert "BROKEN" not in output_of(peft_run, "selfcheck", f"adapter/{name}", *path)
    refused = subprocess.run([peft_run, "selfcheck", "adapter/lora_xs", "--set", "r=17", *path], env=environment,
                             capture_output=True, text=True)
    assert refused.returncode != 0 and "has a rank of at most" in refused.stdout + refused.stderr, refused


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
    """The template's example, except for the model and the five other plugins."""
    sets = [*model_and_data(folder), "plugins.paths=" + json.dumps([str(path) for path in folders.values()])]
    sets += [f"{kind}.name={name}" for kind, name in KINDS.items() if kind != "adapter"]
    run(peft_run, folder / "adapter" / "example.toml", *(word for set_ in sets for word in ("--set", set_)))
    out = folder / "adapter" / "runs" / "my_method"
    log = [line for line in json.loads((out / "trainer_state.json").read_text())["log_history"] if "loss" in line]
    assert len(log) == STEPS and all(math.isfinite(line["loss"]) for line in log), log
    # The template's scheduler halves the learning rate at each of its four stages.
    assert [line["learning_rate"] for line in log] == [1e-2, 5e-3, 2.5e-3], log
    return out, log, sets


def check_examples(peft_run, folder, out, sets):
    """The same experiment from C++ gives the same adapter; a callback stops another one."""
    experiment, built = folder / "adapter" / "example.toml", folder / "build" / "examples"
    embedded, stopped = folder / "embedded", folder / "stopped"
    text = output_of(built / "embed", experiment, *sets, f"training.output_dir={embedded}")
    assert text.startswith(f"trained {STEPS} steps, mean loss ") and len(text.splitlines()) == 1, "libpeft prints nothing"
    weights = "adapter_model.safetensors"
    assert (embedded / weights).read_bytes() == (out / weights).read_bytes()

    # With such a learning rate the loss stays as it is, so the second evaluation stops the run.
    never_improves = ["training.max_steps=8", "training.eval_every=1", "data.eval_split=0.25", "optimizer.lr=1e-30"]
    text = output_of(built / "stop_early", experiment, 1, *sets, *never_improves, f"training.output_dir={stopped}")
    assert text.splitlines()[-1] == f"adapter: {stopped / 'checkpoint-2'}", text
    assert (stopped / "checkpoint-2" / weights).exists() and not (stopped / weights).exists()
    model, data = (next(set_.partition("=")[2] for set_ in [*sets, f"data.train={folder / 'adapter' / 'train.jsonl'}"]
                        if set_.startswith(key)) for key in ("model.path", "data.train"))
    own = folder / "own"
    *lines, saved = output_of(built / "own_loop", model, data, own, "cpu").splitlines()
    losses = [float(line.split()[1]) for line in lines]
    assert losses[-1] < losses[0] and saved == f"saved {own}", (losses, saved)
    printed = output_of(peft_run, "eval", "--model", model, "--data", data, "--adapter", own)
    base, adapted = (float(line.split()[0]) for line in printed.splitlines()[-2:])
    assert adapted < base, printed
    failed = subprocess.run([built / "embed", folder / "missing.toml"], env=environment, capture_output=True, text=True)
    assert failed.returncode == 2 and "missing.toml" in failed.stderr


def check_adapter(out):
    try:
        import safetensors.torch
    except ImportError:
        return
    # Its vectors start as zeros; the optimizer moves each element by the learning rate.
    trained = safetensors.torch.load_file(out / "adapter_model.safetensors")
    assert trained and all(name.endswith((".v_proj.gate", ".down_proj.gate")) for name in trained), sorted(trained)
    assert all((tensor != 0).any() and tensor.abs().max() <= 0.0176 for tensor in trained.values())


with tempfile.TemporaryDirectory(prefix="peft_consumer_") as scratch:
    scratch = pathlib.Path(scratch)
    prefix, outside = scratch / "prefix", scratch / "outside"
    outside.mkdir()
    environment["PEFT_CACHE"] = str(scratch / "cache")
    install(prefix)
    check_new_plugin(prefix, outside)
    peft_run = prefix / "bin" / "peft-run"
    folders = build_outside(outside, prefix)
    for folder in (prefix, *folders.values()):
        cache = (pathlib.Path(build) / "CMakeCache.txt").read_text()
        hardened = "PEFT_HARDENING:BOOL=ON" in cache and "CMAKE_BUILD_TYPE:STRING=Release" in cache
        assert elf_test.check(folder, hardened) > 0, folder
    check_found(peft_run, prefix, folders, [word for path in folders.values() for word in ("--plugin-path", path)])
    check_example_plugins(peft_run, outside)
    out, log, sets = check_training(peft_run, outside, folders)
    check_adapter(out)
    check_examples(peft_run, outside, out, sets)
    print("trained with new plugins:", [line["loss"] for line in log])
