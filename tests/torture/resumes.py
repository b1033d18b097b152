"""Resuming at any step, and again at a later step of the resumed run, ends bit-equal to the uninterrupted run: methods, precisions,
accumulation, and every component of the loop that has a state."""

import itertools
import json
import shutil

import output
from bench import BASE, Failed, experiment, method, require

STEPS = 40
PRECISIONS = {
    "fp32": {"name": "fp32"},
    "bf16": {"name": "bf16"},
    "fp16": {"name": "fp16", "init_scale": 2.0**20, "growth_interval": 5},
}
# What lets a state of these plugins matter within so few steps.
OPTIONS = {
    "adamw_8bit": {"min_8bit_size": 16},
    "galore": {"rank": 2, "update_proj_gap": 5},
    "reduce_on_plateau": {"patience": 1},
    "sophia": {"update_period": 5},
    "zclip": {"warmup_steps": 5},
}
SHORT_STEPS = (1, 7, 20, 33, 39)


def variants(bench):
    """{name: changes}"""
    short = {"lora fp32": method("lora") | {"training": {}},
             "lora fp16, 4 batches a step": method("lora") | {"precision": PRECISIONS["fp16"],
                                                              "training": {"gradient_accumulation_steps": 4}}}
    if not bench.long:
        return short
    found = {}
    for name, precision, batches in itertools.product(bench.plugins("adapter"), PRECISIONS, (1, 4)):
        found[f"{name} {precision}, {batches} batches a step"] = method(name) | {
            "precision": PRECISIONS[precision], "training": {"gradient_accumulation_steps": batches}}
    for kind in ("optimizer", "scheduler", "clipping"):
        for name in bench.plugins(kind):
            found[f"{kind} {name}"] = {kind: {"name": name} | OPTIONS.get(name, {}), "training": {"eval_every": 2},
                                       "data": BASE["data"] | {"eval_split": 0.2}}
    return found


def resumed(bench, folder, changes, uninterrupted, step, name, source):
    """From `source`'s checkpoint of `step` in a new folder to the end; compared with the uninterrupted run at every step."""
    run = folder / name
    shutil.copytree(source / f"checkpoint-{step}", run / f"checkpoint-{step}")
    bench.peft_run(experiment(folder, name, changes), "--resume")
    require(output.check_checkpoints(run, uninterrupted) == list(range(step, STEPS + 1)), f"{run}: {output.checkpoints(run)}")
    output.check_result(run, uninterrupted)
    return run


def of_variant(bench, folder, changes, steps):
    """Returns how many resumes were bit-equal, and how many of them from checkpoints of a resumed run."""
    changes = changes | {"training": {"max_steps": STEPS, "save_every": 1} | changes.get("training", {})}
    bench.peft_run(experiment(folder, "uninterrupted", changes))
    uninterrupted, count, again = folder / "uninterrupted", 0, 0
    for step in steps:
        first = resumed(bench, folder, changes, uninterrupted, step, "first", uninterrupted)
        count += 1
        later = (step + STEPS) // 2
        if later == step:  # there is none between it and the end
            shutil.rmtree(first)
            continue
        second = resumed(bench, folder, changes, uninterrupted, later, "second", first)
        count, again = count + 1, again + 1
        shutil.rmtree(first)
        shutil.rmtree(second)
    return count, again


def prove_that_it_sees(bench, folder):
    """Checks that a checkpoint with one flipped bit is refused, and that with a matching manifest the different end is noticed."""
    changes = {"training": {"max_steps": STEPS, "save_every": 1}}
    bench.peft_run(experiment(folder, "uninterrupted", changes))
    uninterrupted, spoiled = folder / "uninterrupted", folder / "spoiled"
    at = spoiled / "checkpoint-20"
    shutil.copytree(uninterrupted / "checkpoint-20", at)
    state = bytearray((at / "optimizer.safetensors").read_bytes())
    state[-2] ^= 1  # of the last number's high bytes
    (at / "optimizer.safetensors").write_bytes(state)
    refused = bench.peft_run(experiment(folder, "spoiled", changes), "--resume", code=3)
    require("no intact checkpoint to resume from" in refused.stderr, f"a spoiled checkpoint was taken: {refused.stderr}")
    require(output.flaw(output.read(at)), "a spoiled checkpoint passes this harness's own check")
    manifest = json.loads((at / "manifest.json").read_text())
    manifest["files"]["optimizer.safetensors"]["sha256"] = output.sha256(bytes(state))
    (at / "manifest.json").write_text(json.dumps(manifest))
    bench.peft_run(experiment(folder, "spoiled", changes), "--resume")
    try:
        output.check_result(spoiled, uninterrupted)
        output.check_checkpoints(spoiled, uninterrupted)
    except Failed:
        return
    raise Failed("a resume from a spoiled optimizer's state was taken for bit-equal")


def steps_of(bench, number, name):
    """In the long form LoRA is resumed at every step, and of the others each at every fourth, beginning with another one."""
    if not bench.long:
        return SHORT_STEPS
    return range(1, STEPS) if name.startswith("lora ") else range(1 + number % 4, STEPS, 4)


def row(bench):
    prove_that_it_sees(bench, bench.folder("resume/proof"))
    found = variants(bench)
    work = [(bench.folder(f"resume/{number}"), name, found[name], steps_of(bench, number, name))
            for number, name in enumerate(bench.wanted(list(found)))]

    def one(item):
        folder, name, changes, steps = item
        try:
            counts = of_variant(bench, folder, changes, steps)
        except Failed as failure:
            raise Failed(f"{name}: {failure}") from None
        shutil.rmtree(folder)
        return counts

    count, again = map(sum, zip(*bench.each(one, work), strict=True))
    return (f"{count} resumes bit-equal to the uninterrupted run, {again} of them from checkpoints of a resumed one: {len(work)} "
            f"variants at {min(len(item[3]) for item in work)} or more of {STEPS} steps")
