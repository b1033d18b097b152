#!/usr/bin/env python3
"""Every method on the same task with about the same budget: a table to choose by; no test, and no figure decides one.

    eval "$(tools/setup env)"
    tests/benchmark/methods.py --out methods.json                     all that `peft-run list` shows, a minute or two each
    tests/benchmark/methods.py --out methods.json --methods lora ia3
    tests/benchmark/methods.py --out topics.json --task topics        after `tools/fetch_models.py CACHE --news`
    tests/benchmark/methods.py --out rates.json --task topics --sweep each of CHOICES at each of RATES
    tests/benchmark/methods.py --draw methods.json topics.json        into docs/methods.md, with plots; needs matplotlib
    tests/benchmark/methods.py --draw rates.json                      the table of a sweep, into docs/methods.md

SmolLM2-135M-Instruct learns a task: to follow instructions (alpaca_en_demo), or to classify a BBC article by its first 300
characters with one of five letters. --held-out examples, drawn with --seed, are used for evaluation. Each method has the
[adapter] table and the learning rate of its plugin's example.toml, except for what OVERRIDES sets; AdamW without weight decay,
cosine with a warm-up, clipping 1.0. Each method runs in a separate process. --out is written after each; if the file exists,
only missing and failed methods are run.
"""

import argparse
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
import tomllib

import common

WARM = 2
TREE = common.HERE.parent.parent
PAGE, IMAGES = TREE / "docs" / "methods.md", TREE / "docs" / "images"
BEGIN, END = "<!-- tests/benchmark/methods.py: begin -->\n", "<!-- tests/benchmark/methods.py: end -->\n"
SWEEP_BEGIN, SWEEP_END = "<!-- tests/benchmark/methods.py --sweep: begin -->\n", "<!-- tests/benchmark/methods.py --sweep: end -->\n"
#: What differs from a plugin's example.toml; `lr` is the optimizer's, the other keys are the adapter's.
OVERRIDES = {
    "ia3": {"lr": 3e-3},  # Liu et al. 2022 train (IA)³ so
    "vera": {"lr": 4e-3},  # Kopiczko et al. 2023, for instructions
    "lora": {"lora_dropout": 0.0},  # so few steps see each example at most once: nothing to drop out for
    "adalora": {"tinit": 4, "tfinal": 8, "lr": 1e-2},  # within so few steps, from three factors of which one is zero
}
#: What --sweep compares: the method and the keys of its [adapter] table that differ from its example.toml.
CHOICES = {
    "lora, r = 4, lora_alpha = 8": ("lora", {"r": 4, "lora_alpha": 8}),
    "lora, r = 4, lora_alpha = 32": ("lora", {"r": 4, "lora_alpha": 32}),
    "lora, r = 16, lora_alpha = 32": ("lora", {"r": 16, "lora_alpha": 32}),
    "lora, r = 64, lora_alpha = 128": ("lora", {"r": 64, "lora_alpha": 128}),
    "lora, r = 64, lora_alpha = 32, use_rslora": ("lora", {"r": 64, "lora_alpha": 32, "use_rslora": True}),
    "lora, r = 16, lora_alpha = 32, use_dora": ("lora", {"r": 16, "lora_alpha": 32, "use_dora": True}),
    "full, all weights": ("full", {"target_modules": ".*"}),
}
RATES = [1e-4, 3e-4, 1e-3, 3e-3]
#: The format of a task's data, and what the table says of it.
TASKS = {"instructions": ("alpaca", "Instructions: alpaca_en_demo"),
         "topics": ("prompt_completion",
                    "Topics: the first 300 characters of BBC articles, with one of five letters and the EOS token as the answer")}
SAME = ("sweep", "task", "machine", "model", "precision", "threads", "steps", "batch", "max_length", "held_out", "seed")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_arguments(parser)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="default: all there are")
    parser.add_argument("--sweep", action="store_true", help="compare CHOICES at each of RATES")
    parser.add_argument("--task", choices=list(TASKS), default="instructions")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--seed", type=int, default=42, help="of the split and of each run")
    parser.add_argument("--precision", default=default_precision(), help="default here: %(default)s")
    parser.add_argument("--out", type=pathlib.Path, help="the JSON file; an existing one is continued")
    parser.add_argument("--draw", type=pathlib.Path, nargs="+", metavar="FILE.json", help="measure nothing, show these files")
    options = parser.parse_args()
    if (options.out is None) == (options.draw is None):
        parser.error("either --out (measure) or --draw (show)")
    if options.steps <= WARM:
        parser.error(f"--steps must be above {WARM}, which warm up")
    return options


def default_precision():
    """bf16 where the processor multiplies in it."""
    return "bf16" if re.search(r"\b(avx512_bf16|amx_bf16)\b", pathlib.Path("/proc/cpuinfo").read_text()) else "fp32"


def peft_run(options, *words):
    done = subprocess.run([options.build / "bin" / "peft-run", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"peft-run {' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def methods(options):
    rows = [line.split() for line in peft_run(options, "list").splitlines()]
    there = [row[1] for row in rows if row[:1] == ["adapter"]]
    unknown = set(options.methods or []) - set(there)
    if unknown:
        sys.exit(f"no adapter {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    return options.methods or there


def topics(options):
    """The articles as questions with one letter as the answer."""
    articles = json.loads((options.data.parent / "news.json").read_text())
    letters = dict(zip(sorted({article["topic"] for article in articles}), "ABCDE", strict=True))
    asked = "\nTopic (" + ", ".join(f"{letter} {topic}" for topic, letter in letters.items()) + "):"
    return [{"prompt": " ".join(article["text"].split())[:300] + asked, "completion": " " + letters[article["topic"]]}
            for article in articles]


def split(options, folder):
    """The data in two files: what is learned, and what is held out."""
    instructions = options.data / "alpaca_en_demo.json"
    records = topics(options) if options.task == "topics" else json.loads(instructions.read_text())
    held = set(random.Random(options.seed).sample(range(len(records)), options.held_out))
    files = folder / "train.json", folder / "held_out.json"
    for file, chosen in zip(files, (False, True)):
        file.write_text(json.dumps([record for i, record in enumerate(records) if (i in held) == chosen]))
    return files


def settings(method):
    """The method's [adapter] table and rate, from its example."""
    example = tomllib.loads((TREE / "plugins" / "adapter" / method / "example.toml").read_text())
    adapter = example["adapter"] | OVERRIDES.get(method, {})
    return adapter, adapter.pop("lr", example["optimizer"]["lr"])


def evaluate(options, held_out, *adapter):
    """Loss and top-1 accuracy in percent over the target tokens, of the base or of an adapter."""
    measured = peft_run(options, "eval", "--model", options.model, "--data", held_out, "--precision", options.precision,
                    "--max-length", options.max_length, "--format", TASKS[options.task][0], *adapter)
    loss, _, accuracy = measured.splitlines()[-1].split()[:3]
    return float(loss), float(accuracy)


def runs(options):
    """What is measured: a name for the table, the [adapter] table and the learning rate."""
    if not options.sweep:
        return {method: settings(method) for method in methods(options)}
    return {f"{name} @ {lr:g}": (settings(method)[0] | keys, lr) for name, (method, keys) in CHOICES.items() for lr in RATES}


def measure(options, folder, files, adapter, lr):
    request = {"files": [str(files[0])], "format": TASKS[options.task][0], "max_length": options.max_length,
               "batch_size": options.batch}
    more = {"adapter": adapter, "precision": {"name": options.precision},
            "optimizer": {"lr": lr, "weight_decay": 0.0}, "scheduler": {"name": "cosine", "warmup_ratio": 0.1},
            "training": {"seed": options.seed}}
    experiment = common.write_experiment(options, folder, request, options.steps, more)
    seen = common.run_ours(options, folder, experiment)
    out = folder / "out"
    eval_loss, accuracy = evaluate(options, files[1], "--adapter", out)
    return {"adapter": adapter, "lr": lr, "parameters": seen["parameters"], "eval_loss": eval_loss, "accuracy": accuracy,
            "step": statistics.median(seen["seconds"][WARM:]),
            "training_peak": max(resident for _, _, resident in seen["marks"][WARM:]),
            "file": sum(file.stat().st_size for file in out.glob("**/adapter_model.safetensors")),
            "losses": seen["losses"]}


def begin(options):
    measured = {"sweep": options.sweep, "task": options.task, "machine": common.machine(), "model": options.model.name, "precision": options.precision,
            "threads": options.threads, "steps": options.steps, "batch": options.batch, "max_length": options.max_length,
            "held_out": options.held_out, "seed": options.seed, "methods": {}}
    if not options.out.exists():
        return measured
    before = json.loads(options.out.read_text())
    different = [key for key in SAME if before.get(key) != measured[key]]
    if different:
        sys.exit(f"{options.out} was measured otherwise ({', '.join(different)}): name another file")
    return before


def run_all(options):
    measured, failed = begin(options), []
    wanted = {name: run for name, run in runs(options).items() if "step" not in measured["methods"].get(name, {})}
    with tempfile.TemporaryDirectory(prefix="peft_methods_") as scratch:
        files = split(options, pathlib.Path(scratch))
        if wanted and "base_loss" not in measured:
            measured["base_loss"], measured["base_accuracy"] = evaluate(options, files[1])
        for number, (method, (adapter, lr)) in enumerate(wanted.items()):
            folder = pathlib.Path(scratch) / str(number)
            folder.mkdir()
            try:
                record = measure(options, folder, files, adapter, lr)
                text = f"{measured['base_loss']:.4f} → {record['eval_loss']:.4f}, {record['step']:.2f} s/step"
            except (RuntimeError, FileNotFoundError) as error:
                record = {"error": str(error)}
                text = f"failed: {error}"
                failed.append(method)
            measured["methods"][method] = record
            common.write(options.out, measured)
            print(f"{method}: {text}", file=sys.stderr, flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def ranked(measured):
    """What was measured, the lowest loss first."""
    known = [(name, record) for name, record in measured["methods"].items() if "step" in record]
    return sorted(known, key=lambda item: item[1]["eval_loss"])


def setting(measured):
    """On what, and how, a table was measured."""
    _, about = TASKS[measured["task"]]
    return (f"{measured['machine']}; {measured['threads']} threads used, {measured['model']}, {measured['precision']}. {about}, "
            f"{measured['steps']} steps of {measured['batch']} examples truncated to {measured['max_length']} tokens; loss and top-1 token "
            f"accuracy on {measured['held_out']} held-out examples, which are {measured['base_loss']:.4f} and {measured['base_accuracy']:.1f} % "
            f"without an adapter. GiB: peak resident memory of training.")


def introduction(measured):
    return (f"{setting(measured)} s/step: median. One run each (seed {measured['seed']}), with the "
            f"options and the learning rate of the method's `example.toml`, except for `OVERRIDES` in `tests/benchmark/methods.py`: the "
            f"table does not show what another learning rate, rank or task would give.")


def sweep_table(measured):
    """A row for each choice and a column for each rate; the lowest loss of a row in bold."""
    lines = []
    for name in CHOICES:
        records = {lr: measured["methods"].get(f"{name} @ {lr:g}", {}) for lr in RATES}
        losses = {lr: record["eval_loss"] for lr, record in records.items() if "eval_loss" in record}
        if not losses:
            continue
        best = min(losses, key=losses.get)
        shown = [f"{losses[lr]:.3f}" if lr in losses else "–" for lr in RATES]
        shown[RATES.index(best)] = f"**{losses[best]:.3f}**"
        lines.append([name.replace("lora,", "`lora`,"), f"{records[best]['parameters']:,}", *shown,
                      f"{records[best]['training_peak'] / 2**30:.2f}"])
    return common.markdown(["choice", "trainable params", *(f"lr = {lr:g}" for lr in RATES), "GiB"], lines)


def table(measured):
    header = ["method", "trainable params", "lr", "eval loss", "reduction", "token acc., %", "s/step", "GiB", "file, KiB"]
    lines = [[f"`{name}`", f"{r['parameters']:,}", f"{r['lr']:g}", f"{r['eval_loss']:.4f}",
              f"{measured['base_loss'] - r['eval_loss']:.4f}", f"{r['accuracy']:.1f}", f"{r['step']:.2f}",
              f"{r['training_peak'] / 2**30:.2f}", f"{r['file'] / 2**10:,.0f}"] for name, r in ranked(measured)]
    return common.markdown(header, lines)


def save_plot(measured, path):
    """The same figures make the same file: no date, no random names."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("the plot needs matplotlib: pip install matplotlib")
    shown = list(reversed(ranked(measured)))
    names = [name for name, _ in shown]
    panels = [("held-out loss", lambda r: r["eval_loss"]), ("trainable parameters", lambda r: r["parameters"]),
              ("seconds per step", lambda r: r["step"]), ("peak memory, GiB", lambda r: r["training_peak"] / 2**30)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "peft", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 1.2 + 0.2 * len(names)), layout="constrained")
        for plot, (title, value) in zip(figure.subplots(1, len(panels), sharey=True), panels):
            plot.plot([value(record) for _, record in shown], names, "o", color="#0072b2")
            plot.set_xlabel(title)
            plot.grid(alpha=0.3)
            plot.spines[["top", "right"]].set_visible(False)
            if title == "trainable parameters":
                plot.set_xscale("log")
            elif title != "held-out loss":
                plot.set_xlim(left=0)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def section(measured):
    if measured.get("sweep"):
        about = f"{setting(measured)} The columns hold the loss; one run each (seed {measured['seed']})."
        return f"{textwrap.fill(about, 128)}\n\n{sweep_table(measured)}\n"
    plot = IMAGES / f"methods-{measured['task']}.svg"
    save_plot(measured, plot)
    return f"{textwrap.fill(introduction(measured), 128)}\n\n{table(measured)}\n\n![Held-out loss, trainable parameters, seconds per step and peak memory by method](images/{plot.name})\n"


def draw(options):
    files = {file: json.loads(file.read_text()) for file in options.draw}
    for file, measured in files.items():
        if not ranked(measured):
            sys.exit(f"{file} holds no measured method")
    text = PAGE.read_text()
    for sweep, (begin, end) in ((False, (BEGIN, END)), (True, (SWEEP_BEGIN, SWEEP_END))):
        parts = [section(measured) for measured in files.values() if measured.get("sweep", False) == sweep]
        if not parts:
            continue
        if text.count(begin) != 1 or text.count(end) != 1:
            sys.exit(f"{PAGE}: the table's place, between {begin.strip()} and {end.strip()}, is not there")
        text = text[:text.index(begin)] + begin + "\n".join(parts) + text[text.index(end):]
    PAGE.write_text(text)


def main():
    options = arguments()
    draw(options) if options.draw else run_all(options)


if __name__ == "__main__":
    main()
