"""What busy.py, compare.py, growth.py and methods.py share: the contestants, each a process of its own, and how they are watched."""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def add_arguments(parser):
    cache = pathlib.Path(os.environ.get("PEFT_CACHE", pathlib.Path.home() / ".cache" / "peft"))
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build" / "release")
    parser.add_argument("--model", type=pathlib.Path, default=cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--data", type=pathlib.Path, default=cache / "data" / "llamafactory")
    parser.add_argument("--threads", type=int, default=os.cpu_count())


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    import peft
    import torch
    import transformers

    return (f"{model[1] if model else platform.machine()}, {os.cpu_count()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}, transformers {transformers.__version__}, "
            f"HF PEFT {peft.__version__}")


def write(path, value):
    """Writes the file atomically: an interrupted process leaves the previous content."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(value, indent=1) + "\n")
    draft.replace(path)


def markdown(header, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *lines])


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def batches(options, request):
    """The ids of a data file, and its first epoch as peft-run batches it."""
    tool = options.build / "tests" / "framework" / "data_tool"
    done = subprocess.run([tool], input=json.dumps(request) + "\n", capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def mark(process):
    """The time, the page faults so far and the highest resident memory since the last mark."""
    now, folder = time.perf_counter(), pathlib.Path(f"/proc/{process.pid}")
    faults = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[7])
    highest = re.search(r"VmHWM:\s*(\d+) kB", (folder / "status").read_text())  # missing once the process has ended
    (folder / "clear_refs").write_text("5")  # resets the peak
    return now, faults, int(highest[1]) * 1024 if highest else 0


def run(command, environment, line_is_step):
    """The process's lines and what was seen of it; a mark at each step's line."""
    begin = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | environment)
    errors = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    lines, marks = [], []
    for line in process.stdout:
        lines.append(line)
        if line_is_step(line):
            marks.append(mark(process))
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    if status != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{errors[0]}")
    peak = max([usage.ru_maxrss * 1024, *(resident for _, _, resident in marks)])
    return lines, {"first_step": marks[0][0] - begin if marks else None, "peak": peak, "marks": marks}


def peer_command(folder, request):
    file = folder / "request.json"
    file.write_text(json.dumps(request))
    return [sys.executable, HERE / "peer.py", file]


def run_peer(folder, request, environment):
    environment = {"HF_HUB_OFFLINE": "1"} | environment
    lines, seen = run(peer_command(folder, request), environment, lambda line: line.startswith('{"loss"'))
    printed = [json.loads(line) for line in lines if line.startswith('{"loss"')]
    parameters = next(json.loads(line)["parameters"] for line in lines if line.startswith('{"parameters"'))
    return {"seconds": [t["seconds"] for t in printed], "losses": [t["loss"] for t in printed],
            "faults": [t["faults"] for t in printed], "parameters": parameters, **seen}


def write_experiment(options, folder, request, steps, more):
    """Writes an experiment on the data named in `request`; the tables of `more` override its own, key by key."""
    tables = {
        "model": {"path": str(options.model)},
        "data": {"train": request["files"][0], "format": request["format"], "max_length": request["max_length"]},
        "optimizer": {"lr": 1e-4, "weight_decay": 0.01},
        "scheduler": {"name": "constant"},
        "training": {"output_dir": str(folder / "out"), "overwrite_output_dir": True, "batch_size": request["batch_size"],
                     "max_steps": steps, "log_every": 1},
    }
    text = ""
    for name in tables | more:
        keys = tables.get(name, {}) | more.get(name, {})
        text += f"[{name}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())
    path = folder / "experiment.toml"
    path.write_text(text)
    return path


def memory_by_name(lines, start):
    """What peft-run says of its memory in the line that begins with start, in bytes: {"base": …, "adapter": …}."""
    line = next(line for line in lines if line.startswith(start))
    found = re.findall(r"(\w+) ([\d.]+) ([KMG]iB)", line[len(start):].split(";")[0])
    return {name: float(value) * UNITS[unit] for name, value, unit in found}


def run_ours(options, folder, experiment, environment={}):
    lines, seen = run([options.build / "bin" / "peft-run", experiment],
                      {"OMP_NUM_THREADS": str(options.threads)} | environment, lambda line: re.match(r"step \d+/", line))
    printed = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    printed = [line for line in printed if "loss" in line]
    faults = [after[1] - before[1] for before, after in zip(seen["marks"], seen["marks"][1:])]
    parameters = next(line.split()[2] for line in lines if line.startswith("trainable params:"))
    return {"seconds": [t["seconds"] for t in printed], "losses": [t["loss"] for t in printed], "faults": [0, *faults],
            "parameters": int(parameters.replace(",", "")), "components": memory_by_name(lines, "at the peak:"), **seen}
