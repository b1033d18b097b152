"""A full disk, real ones of many sizes: exit code 5 with cause and place, every checkpoint whole, nothing half written; and with
more room the run goes on to the unbroken end. Once as it is, so that the space asked for beforehand is missing, and once with a
disk that tells of room it does not have, as if somebody else took it, so that the writing itself fails."""

import os
import shutil

import kills
import output
from bench import Skipped, experiment, require, run
from shim import preloaded

TRAINING = {"max_steps": 4, "save_every": 1}
PAGE = 4096
ASKED = 1 << 20  # room that is asked for beside a checkpoint's tensors


def size_of(folder):
    """Of what it holds, in whole pages as a tmpfs counts."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def sizes(checkpoint, whole, wanted):
    """From next to nothing to two checkpoints, in even steps, and some around what is asked for beforehand."""
    small = [PAGE * max(1, round(2 * checkpoint * i / (wanted - 1) / PAGE)) for i in range(wanted)]
    return small, [ASKED, ASKED + checkpoint, ASKED + 2 * checkpoint, ASKED + whole + 2 * checkpoint]


def mount(folder, size, again=False):
    run(["mount", *(["-o", f"remount,size={size}"] if again else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]), folder])


def check_full(told, folder, unbroken):
    """What a run left that found the disk full."""
    require(told.returncode == 5, f"{folder}: exit code {told.returncode}, not 5: {told.stderr}")
    require(os.strerror(28) in told.stderr or "bytes, the disk has" in told.stderr, f"the cause is not told: {told.stderr}")
    require(str(folder) in told.stderr, f"the place is not told: {told.stderr}")
    found, logged = output.check_checkpoints(folder, unbroken), kills.logged(folder)
    require(max(found, default=0) >= logged - 1, f"{folder}: step {logged} was logged, the newest checkpoints are {found}")
    output.require_no_litter(folder)
    require(output.adapter(folder) is None or output.adapter(folder)[0] == output.adapter(unbroken)[0],
            f"{folder}: an adapter that is not the unbroken one's")


def on_a_disk_of(bench, folder, unbroken, size, truthful, number):
    """How the run ended: "asked", "written" or "done"; then, with room, it goes on."""
    made = folder / f"run{number}"
    made.mkdir()
    mount(made, size)
    try:
        path = experiment(folder, made.name, {"training": TRAINING})
        told = bench.peft_run(path, code=None, env=None if truthful else preloaded(bench, made, space=1))
        if told.returncode == 0:
            output.check_result(made, unbroken)
            return "done"
        check_full(told, made, unbroken)
        before = output.checkpoints(made)
        mount(made, 64 << 20, again=True)
        bench.peft_run(path, "--resume")
        output.check_result(made, unbroken)
        require(set(output.check_checkpoints(made, unbroken)) >= set(before), f"{made}: checkpoints are gone")
        output.require_no_litter(made)
        return "asked" if "the disk has" in told.stderr else "written"
    finally:
        run(["umount", "-l", made])


def row(bench):
    if not bench.mounts:
        raise Skipped("a small disk cannot be mounted here: needs root, or user namespaces")
    folder = bench.folder("disk")
    bench.peft_run(experiment(folder, "unbroken", {"training": TRAINING}))
    unbroken = folder / "unbroken"
    small, asked = sizes(size_of(unbroken / "checkpoint-4"), size_of(unbroken), 20 if bench.long else 4)
    disks = [(size, truthful) for size in small for truthful in (True, False)] + [(size, True) for size in asked]
    disks.append((small[-1] * 4, False))
    ends = bench.each(lambda one: on_a_disk_of(bench, folder, unbroken, *one[1], one[0]), enumerate(disks))
    for end in ("asked", "written", "done"):
        require(end in ends, f"no disk was of the size for a run that ends '{end}'")
    shutil.rmtree(folder)
    return (f"{len(ends) - ends.count('done')} runs on full disks of {len(set(size for size, _ in disks))} sizes: "
            f"{ends.count('asked')} refused for want of space, {ends.count('written')} failed in writing, 0 checkpoints lost, "
            "all went on with more room")
