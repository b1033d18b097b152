"""Memory: one allocation of a run fails. The run ends with exit code 5 and names the phase, without a signal; its checkpoints are
intact, and no partial adapter is left."""

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
REPORTED = re.compile(r"not enough memory during (\w+)|out of memory on the CPU during (\w+)")


class Tally:
    def __init__(self):
        self.failed, self.survived, self.phases, self.lock = 0, 0, collections.Counter(), threading.Lock()

    def end(self, end):
        with self.lock:
            self.failed += 1
            self.survived += end.code == 0
            for found in REPORTED.finditer(end.errors):
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


def judge(end, n, run, uninterrupted):
    where = f"{run.parent.name}: allocation {n} ({end.kind} {end.path}) failed"
    output.check_checkpoints(run, uninterrupted)
    ours = output.adapter_or_none(run, uninterrupted, where)
    if end.code == 0:  # what can do without the memory continues and ends with the same adapter
        require(ours == output.adapter(uninterrupted), f"{where}: exit code 0 without the adapter")
    else:
        require(end.code == 5, f"{where}: exit code {end.code}: {end.errors}")
        require(REPORTED.search(end.errors), f"{where}: it is not reported: {end.errors}")


def of_method(bench, name, tally):
    folder = bench.folder(f"memory/{name}")
    changes = method(name) | {"training": TRAINING}
    bench.peft_run(experiment(folder, "uninterrupted", changes))
    path, run, uninterrupted = experiment(folder, "run", changes), folder / "run", folder / "uninterrupted"
    with Server(bench, path, [bench.bin / "peft-run", path, "--set", "training.overwrite_output_dir=true"]) as server:
        total = allocations(server)
        later = range(FIRST + 1 + bench.seed % EVERY, total + 1)
        chosen = later[::EVERY] if bench.long else sorted(random.Random(bench.seed).sample(later, SAMPLE))
        for n in [*range(1, FIRST + 1), *chosen]:
            shutil.rmtree(run, ignore_errors=True)
            end = server.child("memory", n, "fail", errno.ENOMEM)
            tally.end(end)
            judge(end, n, run, uninterrupted)
    return total


def row(bench):
    tally = Tally()
    names = bench.wanted(["lora", "adalora"] if bench.long else ["lora"])
    totals = bench.each(lambda name: of_method(bench, name, tally), names)
    require({"load", "forward", "backward"} <= set(tally.phases), f"reported only in {dict(tally.phases)}")
    phases = ", ".join(f"{phase} {count}" for phase, count in tally.phases.most_common())
    return (f"{tally.failed} of {sum(totals)} allocations failed in turn ({', '.join(names)}): each run ended with exit code 5 and named "
            f"the phase ({phases}), {tally.survived} did without")
