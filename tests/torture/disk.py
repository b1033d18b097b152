"""Full disks of many sizes: exit code 5 with cause and path, every checkpoint intact, nothing half written; with more space the run
resumes to the uninterrupted end. Each size runs once as it is, so that the space check refuses, and once on a disk that reports
space it does not have, as if another process used it up, so that the write itself fails."""

import os
import shutil

import kills
import output
from bench import Skipped, experiment, require, run
from shim import preloaded

TRAINING = {"max_steps": 4, "save_every": 1}
PAGE = 4096
ASKED = 1 << 20  # space required in addition to a checkpoint's tensors


def size_of(folder):
    """Returns the size of its files, rounded up to pages as a tmpfs counts them."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def sizes(checkpoint, total, wanted):
    """Returns sizes from one page to two checkpoints in even steps, and some around the space required beforehand."""
    small = [PAGE * max(1, round(2 * checkpoint * i / (wanted - 1) / PAGE)) for i in range(wanted)]
    return small, [ASKED, ASKED + checkpoint, ASKED + 2 * checkpoint, ASKED + total + 2 * checkpoint]


def mount(folder, size, again=False):
    run(["mount", *(["-o", f"remount,size={size}"] if again else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]), folder])


def check_full(result, folder, uninterrupted):
    """Checks what a run left on a full disk."""
    require(result.returncode == 5, f"{folder}: exit code {result.returncode}, not 5: {result.stderr}")
    require(os.strerror(28) in result.stderr or "bytes, the disk has" in result.stderr, f"the cause is not reported: {result.stderr}")
    require(str(folder) in result.stderr, f"the path is not reported: {result.stderr}")
    found, logged = output.check_checkpoints(folder, uninterrupted), kills.logged(folder)
    require(max(found, default=0) >= logged - 1, f"{folder}: step {logged} was logged, the newest checkpoints are {found}")
    output.require_no_litter(folder)
    require(output.adapter(folder) is None or output.adapter(folder)[0] == output.adapter(uninterrupted)[0],
            f"{folder}: an adapter that is not that of the uninterrupted run")


def on_a_disk_of(bench, folder, uninterrupted, size, truthful, number):
    """Returns how the run ended: "asked" (refused), "written" (failed while writing) or "done". With more space it then resumes."""
    made = folder / f"run{number}"
    made.mkdir()
    mount(made, size)
    try:
        path = experiment(folder, made.name, {"training": TRAINING})
        result = bench.peft_run(path, code=None, env=None if truthful else preloaded(bench, made, space=1))
        if result.returncode == 0:
            output.check_result(made, uninterrupted)
            return "done"
        check_full(result, made, uninterrupted)
        before = output.checkpoints(made)
        mount(made, 64 << 20, again=True)
        bench.peft_run(path, "--resume")
        output.check_result(made, uninterrupted)
        require(set(output.check_checkpoints(made, uninterrupted)) >= set(before), f"{made}: checkpoints are gone")
        output.require_no_litter(made)
        return "asked" if "the disk has" in result.stderr else "written"
    finally:
        run(["umount", "-l", made])


def row(bench):
    if not bench.mounts:
        raise Skipped("a small disk cannot be mounted here: needs root, or user namespaces")
    folder = bench.folder("disk")
    bench.peft_run(experiment(folder, "uninterrupted", {"training": TRAINING}))
    uninterrupted = folder / "uninterrupted"
    small, asked = sizes(size_of(uninterrupted / "checkpoint-4"), size_of(uninterrupted), 20 if bench.long else 4)
    disks = [(size, truthful) for size in small for truthful in (True, False)] + [(size, True) for size in asked]
    disks.append((small[-1] * 4, False))
    ends = bench.each(lambda one: on_a_disk_of(bench, folder, uninterrupted, *one[1], one[0]), enumerate(disks))
    for end in ("asked", "written", "done"):
        require(end in ends, f"no disk was of the size for a run that ends '{end}'")
    shutil.rmtree(folder)
    return (f"{len(ends) - ends.count('done')} runs on full disks of {len(set(size for size, _ in disks))} sizes: "
            f"{ends.count('asked')} refused for lack of space, {ends.count('written')} failed in writing, 0 checkpoints lost, "
            "all resumed with more space")
