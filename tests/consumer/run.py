"""The consumer: installs peft into a folder of its own, builds a plugin outside the tree with find_package(peft), and
trains with it by the installed peft-run, which was never rebuilt.

    run.py BUILD SOURCE [-D CMAKE_DEFINITION]...
"""

import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

build, source, *definitions = sys.argv[1:]
environment = {key: value for key, value in os.environ.items() if key not in ("PEFT_PLUGIN_PATH", "LD_LIBRARY_PATH")}


def run(*command, **keywords):
    print("+", *command, flush=True)
    return subprocess.run([str(word) for word in command], check=True, env=environment, **keywords)


def told(*command):
    text = run(*command, stdout=subprocess.PIPE, text=True).stdout
    print(text, flush=True)
    return text


with tempfile.TemporaryDirectory(prefix="peft_consumer_") as folder:
    folder = pathlib.Path(folder)
    environment["PEFT_CACHE"] = str(folder / "cache")
    prefix, outside, model = folder / "prefix", folder / "build", folder / "model"
    run("cmake", "--install", build, "--prefix", prefix)
    peft_run = prefix / "bin" / "peft-run"

    run("cmake", "-S", source, "-B", outside, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}", *definitions)
    run("cmake", "--build", outside)
    assert (outside / "peft_adapter_scale.so").is_file()

    # Not found until its folder is named.
    assert "peft_adapter_scale" not in told(peft_run, "list")
    listed = told(peft_run, "list", "--plugin-path", outside)
    row = ["adapter", "scale", "0.1.0", f"{outside}/peft_adapter_scale.so"]
    assert row in [line.split() for line in listed.splitlines()]
    assert str(prefix / "lib") in told(peft_run, "list"), "the installed plugins' folder is searched"
    assert '["q_proj", "v_proj"]' in told(peft_run, "describe", "adapter/scale", "--plugin-path", outside)
    assert "BROKEN" not in told(peft_run, "selfcheck", "adapter/scale", "--plugin-path", outside)

    try:
        import safetensors.torch
        import transformers  # noqa: F401
    except ImportError:
        if os.environ.get("CI") == "true":
            sys.exit("transformers is not installed: training with the plugin could not be tried")
        print("SKIPPED: no transformers, so training with the plugin was not tried")
        sys.exit(77)
    run(sys.executable, pathlib.Path(source).parent / "support" / "tiny_llama.py", model)
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps({"text": f"The sum of {i} and {i} is {2 * i}."}) + "\n" for i in range(32)))
    experiment = folder / "experiment.toml"
    experiment.write_text(
        f"""[model]
path = "model"
[data]
train = "train.jsonl"
max_length = 64
[adapter]
name = "scale"
[optimizer]
name = "adamw"
lr = 1e-2
[scheduler]
name = "constant"
[clipping]
name = "norm"
[precision]
name = "fp32"
[training]
output_dir = "run"
max_steps = 5
batch_size = 4
log_every = 1
[plugins]
paths = ["{outside.name}"]
"""
    )
    run(peft_run, experiment)
    state = json.loads((folder / "run" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 5 and all(math.isfinite(loss) for loss in losses), losses
    # Its vectors start as ones; after five steps every one has moved.
    trained = safetensors.torch.load_file(folder / "run" / "adapter_model.safetensors")
    assert sorted(trained) == sorted(
        f"base_model.model.model.layers.{layer}.self_attn.{name}.scale"
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    ), sorted(trained)
    assert all((tensor != 1).any() and tensor.isfinite().all() for tensor in trained.values())
    print("trained with a plugin of its own:", losses)
