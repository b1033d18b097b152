"""Memory: one allocation of a run fails, and the run says so: exit code 5 and the phase it was in, by no signal; its checkpoints are
whole, and no half adapter is left."""

import collections
import errno
import random
import re
import shutil
import threading

import output
from bench import experiment, method, require
from shim import Server

# Of the run's allocations: the first ones, of libraries that read the experiment, all; then in the long form each tenth, in the
# short one as many as SAMPLE, spread over the run.
FIRST, EVERY, SAMPLE = 100, 10, 150
TRAINING = {"max_steps": 4, "save_every": 2}
TOLD = re.compile(r"not enough memory during (\w+)|out of memory on the CPU during (\w+)")


class Tally:
    def __init__(self):
        self.failed, self.borne, self.phases, self.lock = 0, 0, collections.Counter(), threading.Lock()

    def end(self, end):
        with self.lock:
            self.failed += 1
            self.borne += end.code == 0
            for found in TOLD.finditer(end.errors):
                self.phases[found[1] or found[2]] += 1


def allocations(server):
    """How many allocations the run makes, found by halving: one past the last is never hit."""
    low, high = 1, 1
    while server.child("memory", high, "kill").hit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if server.child("memory", middle, "kill").hit else (low, middle)
    return low


def judge(end, n, run, unbroken):
    where = f"{run.parent.name}: allocation {n} ({end.kind} {end.path}) failed"
    output.check_checkpoints(run, unbroken)
    ours = output.adapter_or_none(run, unbroken, where)
    if end.code == 0:  # what can do without it goes on, and comes to the same end
        require(ours == output.adapter(unbroken), f"{where}: exit code 0 without the adapter")
    else:
        require(end.code == 5, f"{where}: exit code {end.code}: {end.errors}")
        require(TOLD.search(end.errors), f"{where}: it is not told: {end.errors}")


def of_method(bench, name, tally):
    folder = bench.folder(f"memory/{name}")
    changes = method(name) | {"training": TRAINING}
    bench.peft_run(experiment(folder, "unbroken", changes))
    path, run, unbroken = experiment(folder, "run", changes), folder / "run", folder / "unbroken"
    with Server(bench, path, [bench.bin / "peft-run", path, "--set", "training.overwrite_output_dir=true"]) as server:
        total = allocations(server)
        later = range(FIRST + 1 + bench.seed % EVERY, total + 1)
        chosen = later[::EVERY] if bench.long else sorted(random.Random(bench.seed).sample(later, SAMPLE))
        for n in [*range(1, FIRST + 1), *chosen]:
            shutil.rmtree(run, ignore_errors=True)
            end = server.child("memory", n, "fail", errno.ENOMEM)
            tally.end(end)
            judge(end, n, run, unbroken)
    return total


def row(bench):
    tally = Tally()
    names = bench.wanted(["lora", "adalora"] if bench.long else ["lora"])
    totals = bench.each(lambda name: of_method(bench, name, tally), names)
    require({"load", "forward", "backward"} <= set(tally.phases), f"told only of {dict(tally.phases)}")
    phases = ", ".join(f"{phase} {count}" for phase, count in tally.phases.most_common())
    return (f"{tally.failed} of {sum(totals)} allocations failed in turn ({', '.join(names)}): each run ended with exit code 5 and told "
            f"the phase ({phases}), {tally.borne} did without")
