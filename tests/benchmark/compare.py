#!/usr/bin/env python3
"""Times peft-run beside HF PEFT on the same machine, ids, batches and start, in turn; no test, and no figure decides one.

    eval "$(tools/setup env)"
    tests/benchmark/compare.py                           the whole table, an hour or more on two cores
    tests/benchmark/compare.py --work alpaca --dtype float32 --peers eager --rounds 1

Each contestant is a process of its own with 3 steps to warm up and --steps measured ones; a round runs each once, the next round
begins with another. The table goes to standard output and, with all single steps, into --out (JSON). SmolLM2-135M-Instruct,
r = 16 on all linear layers, lora_alpha 32, AdamW, clipping 1.0, constant learning rate.

Work: "dense" is 4 examples of 512 tokens each, all learned; "alpaca" is alpaca_en_demo, 8 examples cut at 512 tokens, as they
come. Tokens are those of the data: padding does not count.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
WARM = 3
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}
PEERS = {
    "eager": {},
    "malloc": {"environment": MALLOC},
    "compile": {"compile": True},
    "checkpointing": {"checkpointing": True},
}
OURS = {"peft": [], "peft, selective": ["memory.activation_checkpointing=selective"],
        "peft, full": ["memory.activation_checkpointing=full"]}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def arguments():
    cache = pathlib.Path(os.environ.get("PEFT_CACHE", pathlib.Path.home() / ".cache" / "peft"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parent.parent / "build" / "release")
    parser.add_argument("--model", type=pathlib.Path, default=cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--data", type=pathlib.Path, default=cache / "data" / "llamafactory")
    parser.add_argument("--work", nargs="+", default=["dense", "alpaca"], choices=["dense", "alpaca"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--ours", nargs="*", default=["peft"], choices=list(OURS))
    parser.add_argument("--steps", type=int, default=5, help="measured in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args()


def prepare(options, name, folder):
    """The data file of a work, and its ids and first epoch as peft-run batches them."""
    request = {"model": str(options.model), "max_length": 512, "seed": 42}
    if name == "alpaca":
        request |= {"files": [str(options.data / "alpaca_en_demo.json")], "format": "alpaca", "batch_size": 8}
    else:
        request |= {"files": [str(options.data / "c4_demo.jsonl")], "format": "text", "batch_size": 4}
    tool = options.build / "tests" / "framework" / "data_tool"

    def ask():
        done = subprocess.run([tool], input=json.dumps(request) + "\n", capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    work = ask()
    if name == "dense":  # only what fills its row
        lines = pathlib.Path(request["files"][0]).read_text().splitlines()
        full = [e["source"].rsplit(":", 1)[1] for e in work["examples"] if len(e["ids"]) == 512]
        request["files"] = [str(folder / "dense.jsonl")]
        (folder / "dense.jsonl").write_text("".join(lines[int(line) - 1] + "\n" for line in full))
        work = ask()
        assert all(len(example["ids"]) == 512 for example in work["examples"])
    path = folder / f"{name}.json"
    path.write_text(json.dumps(work))
    return request, work, path


def watch(process, line_is_step, marks):
    """Notes the time and the page faults so far at each step's line; returns the lines."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line_is_step(line):
            fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            marks.append((time.perf_counter(), int(fields[7])))
    return lines


def run(command, environment, line_is_step):
    begin = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | environment)
    errors = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    marks = []
    lines = watch(process, line_is_step, marks)
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    if status != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{errors[0]}")
    return lines, {"first_step": marks[0][0] - begin, "peak": usage.ru_maxrss * 1024, "marks": marks}


def peer_command(options, folder, path, dtype, steps, **more):
    """The command that lets peer.py train; one that only makes the first adapter, if there is none."""
    request = {"model": str(options.model), "start": str(folder / "start"), "work": str(path), "dtype": dtype, "steps": steps,
               "lr": 1e-4, "threads": options.threads, "lora": LORA}
    file = folder / "request.json"
    file.write_text(json.dumps(request | more))
    return [sys.executable, HERE / "peer.py", file]


def run_peer(options, folder, path, dtype, variant, steps):
    more = {key: value for key, value in PEERS[variant].items() if key != "environment"}
    command = peer_command(options, folder, path, dtype, steps, **more)
    environment = PEERS[variant].get("environment", {}) | {"HF_HUB_OFFLINE": "1"}
    lines, seen = run(command, environment, lambda line: line.startswith('{"loss"'))
    told = [json.loads(line) for line in lines if line.startswith('{"loss"')]
    return {"seconds": [t["seconds"] for t in told], "losses": [t["loss"] for t in told],
            "faults": [t["faults"] for t in told], **seen}


def run_ours(options, folder, request, dtype, name, steps):
    out = folder / "out"
    experiment = folder / "experiment.toml"
    experiment.write_text(
        f"""[model]
path = "{options.model}"
[data]
train = "{request['files'][0]}"
format = "{request['format']}"
max_length = 512
[adapter]
init_from = "{folder / 'start'}"
[optimizer]
lr = 1e-4
weight_decay = 0.01
[scheduler]
name = "constant"
[precision]
name = "{'bf16' if dtype == 'bfloat16' else 'fp32'}"
[training]
output_dir = "{out}"
overwrite_output_dir = true
batch_size = {request['batch_size']}
max_steps = {steps}
log_every = 1
"""
    )
    sets = [word for value in OURS[name] for word in ("--set", value)]
    environment = {"OMP_NUM_THREADS": str(options.threads)}
    _, seen = run([options.build / "bin" / "peft-run", experiment, *sets], environment,
                  lambda line: re.match(r"step \d+/", line))
    told = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    told = [line for line in told if "loss" in line]
    faults = [after[1] - before[1] for before, after in zip(seen["marks"], seen["marks"][1:])]
    return {"seconds": [t["seconds"] for t in told], "losses": [t["loss"] for t in told], "faults": [0, *faults], **seen}


def product_rate(dtype, threads):
    """GFLOP/s of torch's own matrix product at the model's commonest size: what a step could have at most."""
    import torch

    torch.set_num_threads(threads)
    a, b = (torch.randn(2048, 576, dtype=getattr(torch, dtype)), torch.randn(576, 1536, dtype=getattr(torch, dtype)))
    times = []
    for _ in range(30):
        begin = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - begin)
    return 2 * 2048 * 576 * 1536 / statistics.median(times) / 1e9


def summary(results, work, steps):
    """Medians over all rounds; tokens a second from the sums, since batches differ in size."""
    tokens = [sum(len(work["examples"][i]["ids"]) for i in work["epoch"][step]) for step in range(steps)]
    seconds = [second for result in results for second in result["seconds"][WARM:]]
    rates = [sum(tokens[WARM:]) / sum(result["seconds"][WARM:]) for result in results]
    return {
        "tokens_per_second": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        "step": statistics.median(seconds),
        "peak": statistics.median(result["peak"] for result in results),
        "faults": statistics.median(fault for result in results for fault in result["faults"][WARM:]),
        "start": statistics.median(result["first_step"] - result["seconds"][0] for result in results),
        "losses": results[0]["losses"],
    }


def table(rows):
    ours = rows["peft"] if "peft" in rows else next(iter(rows.values()))
    lines = ["| | tokens/s (lowest, highest round) | s a step | peak resident | page faults a step | start, s | peft is |",
             "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        low, high = row["spread"]
        times = ours["tokens_per_second"] / row["tokens_per_second"]
        lines.append(f"| {name} | {row['tokens_per_second']:.0f} ({low:.0f}, {high:.0f}) | {row['step']:.2f} | "
                     f"{row['peak'] / 2**30:.2f} GiB | {row['faults']:.0f} | {row['start']:.1f} | "
                     + ("" if row is ours else f"{times:.2f} times as fast, {ours['peak'] / row['peak']:.2f} of its memory") + " |")
    return "\n".join(lines)


def compare(options, folder, name, dtype):
    request, work, path = prepare(options, name, folder)
    steps = WARM + options.steps
    contestants = [("HF PEFT, " + peer, peer) for peer in options.peers] + [(name, None) for name in options.ours]
    results = {label: [] for label, _ in contestants}
    if not (folder / "start").exists():
        subprocess.run(peer_command(options, folder, path, "float32", 0), check=True, stdout=subprocess.DEVNULL)
    for turn in range(options.rounds):
        for label, peer in contestants[turn % len(contestants):] + contestants[: turn % len(contestants)]:
            if peer is None:
                results[label].append(run_ours(options, folder, request, dtype, label, steps))
            else:
                results[label].append(run_peer(options, folder, path, dtype, peer, steps))
            print(f"{name} {dtype} round {turn + 1}: {label} {statistics.median(results[label][-1]['seconds'][WARM:]):.2f} s",
                  file=sys.stderr, flush=True)
    rows = {label: summary(result, work, steps) for label, result in results.items()}
    print(f"\n**{name}, {dtype}**\n\n{table(rows)}\n")
    eager, ours = rows.get("HF PEFT, eager"), rows.get("peft")
    if eager and ours:
        apart = max(abs(a - b) / b for a, b in zip(ours["losses"], eager["losses"]))
        print(f"Losses of the {steps} steps: at most {apart:.1e} apart, relative.\n", flush=True)
    return rows


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    import peft
    import torch
    import transformers

    return (f"{model[1] if model else platform.machine()}, {os.cpu_count()} threads, "
            f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}, transformers {transformers.__version__}, "
            f"peft (HF) {peft.__version__}")


def main():
    options = arguments()
    everything = {"machine": machine()}
    print(everything["machine"])
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in options.dtype:
            rate = product_rate(dtype, options.threads)
            print(f"torch's matrix product in {dtype}: {rate:.0f} GFLOP/s", flush=True)
            for name in options.work:
                everything[f"{name} {dtype}"] = compare(options, pathlib.Path(scratch), name, dtype)
    if options.out:
        options.out.write_text(json.dumps(everything, indent=1) + "\n")


main()
