#!/usr/bin/env python3
"""How time and memory grow with what a user chooses, in peft-run and in HF PEFT (float32); no test, and no figure decides one.

    eval "$(tools/setup env)"
    tests/benchmark/growth.py --out growth.json                                  everything, most of an hour on two cores
    tests/benchmark/growth.py --out growth.json --axes length --contestants ours eager
    tests/benchmark/growth.py --draw growth.json                                 tables, to standard output
    tests/benchmark/growth.py --draw growth.json --folder docs/images            also plots; needs matplotlib

The base point is one example of 512 tokens a step, r = 16 on all linear layers of all 30 layers, AdamW, without activation
checkpointing. Each axis changes one setting; optimizer and checkpointing are varied with peft-run only. Rows are lines of
c4_demo, concatenated until they are full, all of them targets; lora_alpha is 2 r, clipping 1.0, the learning rate constant.

Each point is a process of its own with one step to warm up and --steps measured ones. All contestants must learn as many
parameters and begin with the same loss. --out is written after every point; with a file that is there, what it lacks is measured.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile

import common

WARM = 1
LAYERS = 30
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
TARGETS = {"q": ["q_proj"], "q, v": ["q_proj", "v_proj"], "attention": ATTENTION,
           "all linear": [*ATTENTION, "gate_proj", "up_proj", "down_proj"]}
CONTESTANTS = {"ours": "peft.cpp", "eager": "HF PEFT, eager", "checkpointing": "HF PEFT, checkpointing"}
COMPONENTS = ["base", "adapter", "gradients", "optimizer", "activations", "logits", "other"]
BASE = {"length": 512, "batch": 1, "rank": 16, "targets": "all linear", "layers": LAYERS, "optimizer": "adamw",
        "checkpointing": "none"}
LOOKS = {"ours": ("#0072b2", "o"), "eager": ("#d55e00", "s"), "checkpointing": ("#009e73", "^")}


@dataclasses.dataclass
class Axis:
    title: str
    label: str
    values: list
    only_ours: bool = False

    def numeric(self):
        return all(isinstance(value, int) for value in self.values)


AXES = {
    "length": Axis("Length", "tokens per example", [128, 256, 512, 1024, 2048, 4096]),
    "batch": Axis("Batch", "512-token examples per step", [1, 2, 4, 8]),
    "rank": Axis("Rank", "rank", [4, 16, 64, 256]),
    "targets": Axis("Target modules", "target modules per layer", list(TARGETS)),
    "layers": Axis("Layers", "layers adapted, from the last", [5, 10, 20, LAYERS]),
    "optimizer": Axis("Optimizer", "optimizer", ["adamw", "sgd"], only_ours=True),
    "checkpointing": Axis("Activation checkpointing", "activation checkpointing", ["none", "selective", "full"], only_ours=True),
}


def arguments():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), choices=list(CONTESTANTS))
    parser.add_argument("--steps", type=int, default=2, help="measured at each point")
    parser.add_argument("--limit-gib", type=float, default=round(0.9 * memory / 2**30, 1),
                        help="leave out points that need more than this by extrapolation from the two points before "
                             "(default: nine tenths of the machine's memory, here %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file; an existing one is continued")
    parser.add_argument("--draw", type=pathlib.Path, metavar="FILE.json", help="measure nothing, show this file")
    parser.add_argument("--folder", type=pathlib.Path, help="for the plots of --draw")
    options = parser.parse_args()
    if (options.out is None) == (options.draw is None):
        parser.error("either --out (measure) or --draw (show)")
    if options.folder and not options.draw:
        parser.error("--folder belongs to --draw")
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    return options


def point_name(axis, value):
    return "base" if value == BASE[axis] else f"{axis} {value}"


def points(axes):
    """The base point once, then what differs from it: axis, value."""
    yield axes[0], BASE[axes[0]]
    for axis in axes:
        for value in AXES[axis].values:
            if value != BASE[axis]:
                yield axis, value


def rows(options, folder, choice):
    """The data of a point, and what the peer trains on: for each step a batch of rows that are full to the last token."""
    length, batch, count = choice["length"], choice["batch"], choice["batch"] * (WARM + options.steps)
    lines = itertools.cycle((options.data / "c4_demo.jsonl").read_text().splitlines())
    file, path = folder / "rows.jsonl", folder / "rows.json"
    with file.open("w") as out:
        for _ in range(count):
            text = ""
            while len(text) < 8 * length:  # more characters than that many tokens have
                text += json.loads(next(lines))["text"] + "\n\n"
            out.write(json.dumps({"text": text}) + "\n")
    request = {"model": str(options.model), "files": [str(file)], "format": "text", "max_length": length, "batch_size": batch,
               "seed": 42}
    work = common.batches(options, request)
    lengths = {len(example["ids"]) for example in work["examples"]}
    learned = all(label >= 0 for example in work["examples"] for label in example["labels"])
    if lengths != {length} or len(work["examples"]) != count or not learned:
        raise RuntimeError(f"not {count} rows of {length} tokens, all learned: {len(work['examples'])} of {lengths}")
    path.write_text(json.dumps(work))
    return request, path


def measure(options, folder, contestant, choice):
    request, path = rows(options, folder, choice)
    steps = WARM + options.steps
    lora = {"r": choice["rank"], "lora_alpha": 2 * choice["rank"], "target_modules": TARGETS[choice["targets"]],
            "layers_to_transform": list(range(LAYERS - choice["layers"], LAYERS))}
    if contestant == "ours":
        more = {"adapter": {"name": "lora"} | lora, "optimizer": {"name": choice["optimizer"]}, "precision": {"name": "fp32"},
                "memory": {"activation_checkpointing": choice["checkpointing"]}}
        experiment = common.write_experiment(options, folder, request, steps, more)
        lines, _ = common.run([options.build / "bin" / "peft-run", "plan", experiment], {}, lambda line: False)
        seen = common.run_ours(options, folder, experiment)
        own = {"plan": common.memory_by_name(lines, "memory expected:"), "components": seen["components"]}
    else:
        request = {"model": str(options.model), "work": str(path), "dtype": "float32", "steps": steps, "lr": 1e-4,
                   "threads": options.threads, "lora": lora, "checkpointing": contestant == "checkpointing"}
        seen = common.run_peer(folder, request, {})
        own = {}
    step = statistics.median(seen["seconds"][WARM:])
    return {"step": step, "tokens_per_second": choice["length"] * choice["batch"] / step, "peak": seen["peak"],
            "training_peak": max(resident for _, _, resident in seen["marks"][WARM:]), "seconds": seen["seconds"],
            "losses": seen["losses"], "parameters": seen["parameters"], **own}


def check_alike(name, contestant, record, others):
    """A difference would mean that the contestants did not do the same work; the first loss does not depend on A, as B is 0."""
    for other, measured in others.items():
        if "step" not in measured:
            continue
        apart = abs(record["losses"][0] - measured["losses"][0]) / measured["losses"][0]
        if record["parameters"] != measured["parameters"] or apart > 1e-4:
            raise RuntimeError(f"{name}: {contestant} learns {record['parameters']} parameters and begins with loss "
                               f"{record['losses'][0]}, {other} {measured['parameters']} and {measured['losses'][0]}")


def expected(measured, contestant, axis, value):
    """What a point should need by the straight line through the two measured before it on its axis; 0 where there are none."""
    if not AXES[axis].numeric():
        return 0
    records = [(v, measured.get(point_name(axis, v), {}).get(contestant, {})) for v in AXES[axis].values if v < value]
    known = [(v, record["training_peak"]) for v, record in records if "step" in record]
    if len(known) < 2:
        return 0
    (x0, y0), (x1, y1) = known[-2:]
    return y1 + (y1 - y0) / (x1 - x0) * (value - x1)


def begin(options):
    """What the file holds already, if it was measured alike."""
    about = {"machine": common.machine(), "model": options.model.name, "threads": options.threads, "steps": options.steps}
    if not options.out.exists():
        return about | {"points": {}}
    measured = json.loads(options.out.read_text())
    for key, value in about.items():
        if measured[key] != value:
            sys.exit(f"{options.out}: measured with {key} {measured[key]}, which is now {value}; name another file")
    return measured


def measure_all(options):
    measured = begin(options)
    limit = options.limit_gib * 2**30
    with tempfile.TemporaryDirectory() as scratch:
        for axis, value in points(options.axes):
            name = point_name(axis, value)
            of_point = measured["points"].setdefault(name, {})
            for contestant in options.contestants:
                alone = AXES[axis].only_ours and name != "base" and contestant != "ours"
                if alone or "step" in of_point.get(contestant, {}):
                    continue
                need = expected(measured["points"], contestant, axis, value)
                if need > limit:
                    record = {"expected": need, "limit": limit}
                    text = f"left out, {need / 2**30:.1f} GiB expected"
                else:
                    record = measure(options, pathlib.Path(scratch), contestant, BASE | {axis: value})
                    check_alike(name, contestant, record, of_point)
                    text = f"{record['step']:.2f} s, {record['training_peak'] / 2**30:.2f} GiB"
                of_point[contestant] = record
                common.write(options.out, measured)
                print(f"{name}: {CONTESTANTS[contestant]} {text}", file=sys.stderr, flush=True)


def records(measured, axis):
    """Of each value of an axis, what each contestant with any figure on it has: {value: {contestant: record}}."""
    of_values = {value: measured["points"].get(point_name(axis, value), {}) for value in AXES[axis].values}
    shown = ["ours"] if AXES[axis].only_ours else list(CONTESTANTS)
    shown = [contestant for contestant in shown if any(contestant in of_value for of_value in of_values.values())]
    return {value: {contestant: of_value.get(contestant, {}) for contestant in shown} for value, of_value in of_values.items()}


def time_cell(record):
    if "step" in record:
        return f"{record['step']:.2f} ({record['tokens_per_second']:.0f})"
    return "left out" if "limit" in record else "–"


def memory_cell(record):
    if "step" in record:
        return f"{record['training_peak'] / 2**30:.2f}"
    if "limit" in record:
        return f"{record['expected'] / 2**30:.0f} expected, above {record['limit'] / 2**30:.1f}"
    return "–"


def contestants_table(axis, of_values):
    names = [CONTESTANTS[contestant] for contestant in next(iter(of_values.values()))]
    header = [AXES[axis].label, *(f"{name}: s/step (tokens/s)" for name in names), *(f"{name}: GiB" for name in names)]
    return common.markdown(header, [[str(value), *map(time_cell, of_value.values()), *map(memory_cell, of_value.values())]
                             for value, of_value in of_values.items()])


def components_table(axis, of_values):
    """Of peft-run alone: what the plan said, and what the memory was for at the highest moment."""
    lines = []
    for value, of_value in of_values.items():
        record = of_value.get("ours", {})
        if "step" not in record:
            continue
        plan, seen = ([measured.get(component, 0) for component in COMPONENTS] for measured in (record["plan"], record["components"]))
        lines.append([str(value), f"{record['parameters']:,}", f"{sum(plan) / 2**20:.0f}", f"{sum(seen) / 2**20:.0f}",
                      f"{sum(plan) / sum(seen):.2f}", *(f"{size / 2**20:.1f}" for size in seen)])
    header = [AXES[axis].label, "trainable parameters", "plan", "peak", "plan / peak", *COMPONENTS]
    return "Memory of peft.cpp in MiB:\n\n" + common.markdown(header, lines) if lines else ""


def figures(of_values, contestant, key):
    """A contestant's line: its values and what was measured of them."""
    known = [(value, of_value[contestant][key]) for value, of_value in of_values.items() if "step" in of_value[contestant]]
    return [value for value, _ in known], [figure for _, figure in known]


def ticks(values):
    """As many values as fit without overlap, from the largest down."""
    apart = 0.08 * (values[-1] - values[0])
    shown = [values[-1]]
    for value in reversed(values[:-1]):
        if shown[-1] - value >= apart:
            shown.append(value)
    return shown


def panel(plot, axis, of_values, key, scale, title):
    for contestant in next(iter(of_values.values())):
        values, sizes = figures(of_values, contestant, key)
        color, shape = LOOKS[contestant]
        places = values if AXES[axis].numeric() else [list(of_values).index(value) for value in values]
        plot.plot(places, [size / scale for size in sizes], color=color, marker=shape, label=CONTESTANTS[contestant])
    if AXES[axis].numeric():
        plot.set_xticks(ticks(list(of_values)))
    else:
        plot.set_xticks(range(len(of_values)), of_values)
        plot.margins(x=0.15)
    plot.set_ylim(bottom=0)
    plot.set_xlabel(AXES[axis].label)
    plot.set_ylabel(title)
    plot.grid(alpha=0.3)
    plot.spines[["top", "right"]].set_visible(False)


def draw(figure, axis, of_values):
    left, right = figure.subplots(1, 2)
    panel(left, axis, of_values, "step", 1, "seconds per step")
    panel(right, axis, of_values, "training_peak", 2**30, "peak resident memory, GiB")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)


def save_plots(measured, folder):
    """The same figures make the same files: no date, no random names."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("the plots need matplotlib: pip install matplotlib (without --folder, --draw writes the tables alone)")
    folder.mkdir(parents=True, exist_ok=True)
    for axis in AXES:
        of_values = records(measured, axis)
        if not measured(of_values):
            continue
        with matplotlib.rc_context({"svg.hashsalt": "peft", "svg.fonttype": "none", "font.size": 9}):
            figure = Figure(figsize=(8, 3.2), layout="constrained")
            draw(figure, axis, of_values)
            figure.savefig(folder / f"growth-{axis}.svg", metadata={"Date": None, "Creator": None})


def measured(of_values):
    """A line needs two points."""
    return sum(any("step" in record for record in of_value.values()) for of_value in of_values.values()) > 1


def introduction(measured):
    base = measured["points"].get("base", {})
    loading = "; ".join(f"{CONTESTANTS[contestant]} {base[contestant]['peak'] / 2**30:.2f} GiB" for contestant in CONTESTANTS
                        if "step" in base.get(contestant, {}))
    return (f"{measured['machine']}; {measured['threads']} threads used, {measured['model']}, float32. Seconds: median of {measured['steps']} "
            f"steps after {WARM} warm-up step. GiB: peak resident memory of those steps; including model loading, the processes at "
            f"the base point peaked at: {loading}.")


def show(options):
    measured = json.loads(options.draw.read_text())
    print(introduction(measured))
    for axis, about in AXES.items():
        of_values = records(measured, axis)
        if not measured(of_values):
            continue
        print(f"\n### {about.title}\n")
        if options.folder:
            print(f"![Seconds per step and memory by {about.label}]({options.folder.name}/growth-{axis}.svg)\n")
        print(contestants_table(axis, of_values), components_table(axis, of_values), sep="\n\n")
    if options.folder:
        sys.stdout.flush()
        save_plots(measured, options.folder)


def main():
    options = arguments()
    if options.draw:
        show(options)
    else:
        measure_all(options)


main()
