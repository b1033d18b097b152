#!/usr/bin/env python3
"""Times peft-run and HF PEFT in turn, on the same machine, ids, batches and initial values. A benchmark: no test depends on it.

    eval "$(tools/setup env)"
    tests/benchmark/compare.py                           all except Unsloth, an hour or more on two cores
    tests/benchmark/compare.py --work alpaca --dtype float32 --peers eager --rounds 1

Each contestant is a separate process with 3 steps of warm-up and --steps measured ones. A round runs each contestant once; each
round starts with another one. The table goes to standard output and, with the time of each step, to --out (JSON), which is
replaced after every process. SmolLM2-135M-Instruct, r = 16 on all linear layers, lora_alpha 32, AdamW, clipping 1.0, constant learning
rate.

Work: "dense" is 4 examples of 512 tokens each, all of them targets; "alpaca" is alpaca_en_demo, 8 examples truncated to 512
tokens, in their order. Padding does not count as tokens.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import common

WARM = 3
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}
PEERS = {
    "eager": {},
    "malloc": {"environment": MALLOC},
    "compile": {"compile": True},
    "checkpointing": {"checkpointing": True},
    "unsloth": {"unsloth": True},  # pip install --no-deps unsloth unsloth_zoo
}
LABELS = {"unsloth": "Unsloth"}  # the others are HF PEFT
OURS = {"peft": "none", "peft, selective": "selective", "peft, full": "full"}  # activation checkpointing
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    parser.add_argument("--work", nargs="+", default=["dense", "alpaca"], choices=["dense", "alpaca"])
    parser.add_argument("--dtype", nargs="+", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--peers", nargs="*", default=[peer for peer in PEERS if peer != "unsloth"], choices=list(PEERS))
    parser.add_argument("--ours", nargs="*", default=["peft"], choices=list(OURS))
    parser.add_argument("--steps", type=int, default=5, help="measured in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args()


def prepare(options, name, folder):
    """The data file of a work, and its ids and first epoch as peft-run batches them."""
    request = {"model": str(options.model), "max_length": 512, "seed": 42}
    if name == "alpaca":
        request |= {"files": [str(options.data / "alpaca_en_demo.json")], "format": "alpaca", "batch_size": 8}
    else:
        request |= {"files": [str(options.data / "c4_demo.jsonl")], "format": "text", "batch_size": 4}
    work = common.batches(options, request)
    if name == "dense":  # only what fills its row
        lines = pathlib.Path(request["files"][0]).read_text().splitlines()
        full = [e["source"].rsplit(":", 1)[1] for e in work["examples"] if len(e["ids"]) == 512]
        request["files"] = [str(folder / "dense.jsonl")]
        (folder / "dense.jsonl").write_text("".join(lines[int(line) - 1] + "\n" for line in full))
        work = common.batches(options, request)
        assert all(len(example["ids"]) == 512 for example in work["examples"])
    path = folder / f"{name}.json"
    path.write_text(json.dumps(work))
    return request, work, path


def peer_request(options, folder, path, dtype, steps, **more):
    """What lets peer.py train; or only make the first adapter, if there is none."""
    return {"model": str(options.model), "start": str(folder / "start"), "work": str(path), "dtype": dtype, "steps": steps,
            "lr": 1e-4, "threads": options.threads, "lora": LORA} | more


def run_peer(options, folder, path, dtype, variant, steps):
    more = {key: value for key, value in PEERS[variant].items() if key != "environment"}
    return common.run_peer(folder, peer_request(options, folder, path, dtype, steps, **more),
                           PEERS[variant].get("environment", {}))


def run_ours(options, folder, request, dtype, name, steps):
    more = {"adapter": {"init_from": str(folder / "start")}, "precision": {"name": PRECISIONS[dtype]},
            "memory": {"activation_checkpointing": OURS[name]}}
    return common.run_ours(options, folder, common.write_experiment(options, folder, request, steps, more))


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
    lines = ["| | tokens/s (lowest, highest round) | s/step | peak resident | page faults/step | start, s | peft.cpp is |",
             "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        low, high = row["spread"]
        times = ours["tokens_per_second"] / row["tokens_per_second"]
        label = name.replace("peft", "peft.cpp", 1) if name in OURS else name
        lines.append(f"| {label} | {row['tokens_per_second']:.0f} ({low:.0f}, {high:.0f}) | {row['step']:.2f} | "
                     f"{row['peak'] / 2**30:.2f} GiB | {row['faults']:.0f} | {row['start']:.1f} | "
                     + ("" if row is ours else f"{times:.2f}× as fast, {ours['peak'] / row['peak']:.2f}× the memory") + " |")
    return "\n".join(lines)


def compare(options, folder, name, dtype, everything):
    """One table; everything gets its rows and single runs as they come."""
    request, work, path = prepare(options, name, folder)
    steps = WARM + options.steps
    contestants = [(LABELS.get(peer, "HF PEFT, " + peer), peer) for peer in options.peers]
    contestants += [(name, None) for name in options.ours]
    results = everything["runs"][f"{name} {dtype}"] = {label: [] for label, _ in contestants}
    if not (folder / "start").exists():
        command = common.peer_command(folder, peer_request(options, folder, path, "float32", 0))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for turn in range(options.rounds):
        for label, peer in contestants[turn % len(contestants):] + contestants[: turn % len(contestants)]:
            if peer is None:
                results[label].append(run_ours(options, folder, request, dtype, label, steps))
            else:
                results[label].append(run_peer(options, folder, path, dtype, peer, steps))
            print(f"{name} {dtype} round {turn + 1}: {label} {statistics.median(results[label][-1]['seconds'][WARM:]):.2f} s",
                  file=sys.stderr, flush=True)
            rows = {label: summary(result, work, steps) for label, result in results.items() if result}
            everything[f"{name} {dtype}"] = rows
            if options.out:
                common.write(options.out, everything)
    print(f"\n**{name}, {dtype}**\n\n{table(rows)}\n")
    eager, ours = rows.get("HF PEFT, eager"), rows.get("peft")
    if eager and ours:
        apart = max(abs(a - b) / b for a, b in zip(ours["losses"], eager["losses"]))
        print(f"Losses of the {steps} steps: at most {apart:.1e} apart, relative.\n", flush=True)


def main():
    options = arguments()
    everything = {"machine": common.machine(), "runs": {}}
    print(everything["machine"])
    with tempfile.TemporaryDirectory() as scratch:
        for dtype in options.dtype:
            rate = product_rate(dtype, options.threads)
            print(f"torch's matrix product in {dtype}: {rate:.0f} GFLOP/s", flush=True)
            for name in options.work:
                compare(options, pathlib.Path(scratch), name, dtype, everything)


main()
