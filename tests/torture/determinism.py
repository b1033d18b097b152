"""Determinism: the same seed and number of threads give the same adapter, byte for byte, whatever else the machine does; another
number of threads gives nearly the same, and another seed a different one. The long form repeats each run ten times under load."""

import contextlib
import json
import subprocess
import sys

import output
from bench import BASE, TEXTS, experiment, method, require

RUNS, RUNS_SHORT = 10, 3
STEPS = 20
BOUND = 1e-5
# MKL sums C3A's complex products in another order with other threads. Of the last bit of a small gradient (with SGD adapters are
# 1.4e-7 apart) Adam makes steps that differ: 1.2e-4.
BOUND_OF = {"c3a": 1e-3}
WIDTH, SPLIT = 256, 4 * 32768  # elements from which torch's loops and ours are split, and more
SHORT = ("lora", "vera", "prompt_tuning")


def floats(adapter):
    import numpy  # only here: the other rows need no numbers

    found = {}
    for name, ((dtype, _), data) in output.tensors(adapter[0]).items():
        if dtype == "F32":
            found[name] = numpy.frombuffer(data, numpy.float32).astype(float)
    require(found, "the adapter holds no tensor of fp32")
    return found


def farthest(ours, theirs):
    """The largest difference of two adapters' tensors, each relative to its largest value."""
    mine, other = floats(ours), floats(theirs)
    require(mine.keys() == other.keys(), "other tensors")
    return max(abs(mine[name] - other[name]).max() / max(abs(other[name]).max(), 1e-30)
               for name in mine if mine[name].size)  # AdaLoRA may leave a layer no rank


def losses(folder):
    return [line["loss"] for line in output.history((folder / "trainer_state.json").read_text()) if "loss" in line]


def of_method(bench, folder, name, runs):
    """Returns the largest relative differences between 1 and 2 threads, of the adapter and of the losses, with a model so wide
    that both have work."""
    changes = method(name) | {"training": {"max_steps": STEPS}}

    def trained(output_name, threads, more=None):
        both = changes | {"training": changes["training"] | (more or {})}
        bench.peft_run(experiment(folder, output_name, both), threads=threads)
        return folder / output_name

    first = trained("run0", 2)
    for number in range(1, runs):
        other = trained(f"run{number}", 2)
        require(output.adapter(other) == output.adapter(first), f"{name}: run {number + 1} gave another adapter")
        require(losses(other) == losses(first), f"{name}: run {number + 1} gave other losses")
    require(output.adapter(trained("seed", 2, {"seed": 4})) != output.adapter(first), f"{name}: another seed, the same adapter")
    return by_threads(bench, name)


def by_threads(bench, name):
    folder = bench.folder(f"determinism/{name}-wide", "wide", [text * 12 for text in TEXTS])
    changes = method(name) | {"training": {"max_steps": STEPS}, "data": BASE["data"] | {"max_length": 400}}
    single, double = folder / "single", folder / "double"
    for threads, made in ((1, single), (2, double)):
        bench.peft_run(experiment(folder, made.name, changes), threads=threads)
    tokens = [json.loads(line).get("tokens", 0) for line in (double / "metrics.jsonl").read_text().splitlines()]
    require(max(tokens) * WIDTH > SPLIT, f"{name}: with {max(tokens)} tokens a step no loop is split between threads")
    loss = max(abs(a - b) / abs(a) for a, b in zip(losses(double), losses(single), strict=True))
    apart = farthest(output.adapter(single), output.adapter(double))
    require(apart <= BOUND_OF.get(name, BOUND), f"{name}: adapters of 1 and 2 threads are {apart:.1e} apart")
    require(loss <= BOUND, f"{name}: losses with 1 and 2 threads are {loss:.1e} apart")
    return apart, loss


@contextlib.contextmanager
def load():
    """Keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def row(bench):
    names = bench.wanted(bench.plugins("adapter") if bench.long else SHORT)
    runs = RUNS if bench.long else RUNS_SHORT
    bench.model("wide", hidden_size=WIDTH, intermediate_size=704, max_position_embeddings=512)
    with load() if bench.long else contextlib.nullcontext():
        apart = bench.each(lambda name: of_method(bench, bench.folder(f"determinism/{name}"), name, runs), names)
    same = sum(tensors == 0 and loss == 0 for tensors, loss in apart)
    return (f"{len(names)} methods x {runs} runs{' under load' if bench.long else ''}: the same bytes; 1 against 2 threads: losses "
            f"within {max(loss for _, loss in apart):.1e} (bound {BOUND:.0e}), adapters within {max(a for a, _ in apart):.1e}, "
            f"{same} of {len(names)} methods bit-equal")
