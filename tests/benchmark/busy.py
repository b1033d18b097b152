#!/usr/bin/env python3
"""What other processes on the same CPUs cost peft-run and HF PEFT. A benchmark: no test depends on it.

    eval "$(tools/setup env)"
    tests/benchmark/busy.py --out busy.json              half an hour on two quiet cores
    tests/benchmark/busy.py --contestants shipped spinning --rounds 1

Each contestant is a separate process that trains with --threads threads, 1 step of warm-up and --steps measured ones: once
alone, once next to --loops processes that only compute (by default one on each CPU). A round runs each contestant in both
ways, and each round starts with another contestant. SmolLM2-135M-Instruct, r = 16 on all linear layers, fp32, 4 examples of
alpaca_en_demo per step, AdamW, clipping 1.0, constant learning rate.

The fair share of a busy machine is what its scheduler gives to as many threads: with two threads and two loops on two CPUs,
half of the quiet speed. "of the fair share" is the speed next to the loops divided by that.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import common

WARM = 1
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
SPINNING = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own default
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
CONTESTANTS = {
    "shipped": ("peft.cpp", {}),
    "spinning": ("peft.cpp, waiting as OpenMP does by default", SPINNING),
    "eager": ("HF PEFT, eager", {}),
    "passive": ("HF PEFT, eager, OMP_WAIT_POLICY=passive", PASSIVE),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--loops", type=int, default=os.cpu_count(), help="busy processes (default: one for each CPU)")
    parser.add_argument("--steps", type=int, default=6, help="measured in each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path)
    for variable in SPINNING | PASSIVE:
        if variable in os.environ:
            parser.error(f"unset {variable}: it would decide how all of them wait")
    return parser.parse_args()


@contextlib.contextmanager
def busy(loops):
    processes = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def prepare(options, folder):
    """The data, its ids and first epoch as peft-run batches them, and the adapter with which all begin."""
    request = {"model": str(options.model), "max_length": 512, "seed": 42, "format": "alpaca", "batch_size": 4,
               "files": [str(options.data / "alpaca_en_demo.json")]}
    path = folder / "work.json"
    path.write_text(json.dumps(common.batches(options, request)))
    peer = {"model": str(options.model), "start": str(folder / "start"), "work": str(path), "dtype": "float32",
            "steps": WARM + options.steps, "lr": 1e-4, "threads": options.threads, "lora": LORA}
    subprocess.run(common.peer_command(folder, peer | {"steps": 0}), check=True, stdout=subprocess.DEVNULL)
    return request, peer


def seconds(options, folder, request, peer, contestant):
    """The time of the measured steps together: the batches differ in size."""
    environment = CONTESTANTS[contestant][1]
    if contestant in ("shipped", "spinning"):
        experiment = common.write_experiment(options, folder, request, WARM + options.steps,
                                             {"adapter": {"init_from": str(folder / "start")}})
        run = common.run_ours(options, folder, experiment, environment)
    else:
        run = common.run_peer(folder, peer, environment)
    return sum(run["seconds"][WARM:])


def table(options, measured):
    slowdown = max(1, (options.threads + options.loops) / os.cpu_count())
    lines = []
    for contestant, runs in measured.items():
        quiet, loaded = statistics.median(runs["quiet"]), statistics.median(runs["busy"])
        lines.append([CONTESTANTS[contestant][0], f"{quiet:.1f}", f"{loaded:.1f}", f"{loaded / quiet:.2f}",
                      f"{quiet * slowdown / loaded:.2f}"])
    header = ["", f"{options.steps} steps alone, s", f"next to {options.loops} busy loops, s", "times as long",
              "of the fair share"]
    return common.markdown(header, lines)


def main():
    options = arguments()
    about = common.machine()
    print(about)
    measured = {contestant: {"quiet": [], "busy": []} for contestant in options.contestants}
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        request, peer = prepare(options, folder)
        for turn in range(options.rounds):
            first = turn % len(options.contestants)
            for contestant in options.contestants[first:] + options.contestants[:first]:
                for load, loops in (("quiet", 0), ("busy", options.loops)):
                    with busy(loops):
                        took = seconds(options, folder, request, peer, contestant)
                    measured[contestant][load].append(took)
                    print(f"round {turn + 1}: {CONTESTANTS[contestant][0]}, {load}: {took:.1f} s", file=sys.stderr, flush=True)
                    if options.out:
                        common.write(options.out, {"machine": about, "loops": options.loops, "threads": options.threads,
                                                   "runs": measured})
    print(f"\n{table(options, measured)}")


main()
