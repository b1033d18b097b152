"""Faults: each call that changes the disk, from the first to the last of a run, fails or kills the process. In every case the older
checkpoint stays intact, an error has exit code 5 and names cause and path, and the next run resumes to the uninterrupted end and
leaves no temporary files."""

import errno
import itertools
import os
import pathlib
import re
import shutil
import signal
import threading

import output
from bench import experiment, method, require
from shim import CHANGING, GROWING, Server

# Name, kinds of call, action, errno, and whether every later call fails too.
FAULTS = [
    ("killed", CHANGING, "kill", 0, False),
    ("killed in the middle of a write", "write", "torn", 0, False),
    ("EIO", CHANGING, "fail", errno.EIO, False),
    ("ENOSPC from then on", GROWING, "fail", errno.ENOSPC, True),
    ("short write", "write", "short", 0, False),
    ("EINTR", "write", "fail", errno.EINTR, False),
]
MORE = [
    ("EDQUOT", GROWING, "fail", errno.EDQUOT, False),
    ("EROFS from then on", CHANGING, "fail", errno.EROFS, True),
    ("EMFILE", "open,look", "fail", errno.EMFILE, False),
]
HARMLESS = ("short", errno.EINTR)  # a program must not treat these as errors
TRAINING = {"max_steps": 4, "save_every": 1, "save_total_limit": 2}


class Tally:
    """Counts faults and runs; several threads add to it."""

    def __init__(self):
        self.faults, self.starts, self.kinds, self.names, self.lock = 0, 0, set(), set(), threading.Lock()

    def fault(self, fault, end):
        with self.lock:
            self.faults += 1
            self.kinds.add(end.kind)
            self.names.add(fault[0])

    def start(self):
        with self.lock:
            self.starts += 1


def put(folder, template):
    """Replaces the folder with a copy of the template."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)


def shape(folder):
    """Returns what distinguishes the states of a folder: names without process numbers, and the sizes of tensor files (other
    files hold times)."""
    def size(path):
        return path.stat().st_size if path.suffix == ".safetensors" else path.is_dir() or path.stat().st_size > 0

    return tuple(sorted((re.sub(r"\.writing-\d+$", ".writing", str(path.relative_to(folder))), size(path))
                        for path in folder.rglob("*")))


def expect_end(end, fault, complete):
    """Checks that the child ended as this fault demands; `complete` returns whether its work is done."""
    name, _, action, error, _ = fault
    where = f"{name} at {end.hit}"
    if action in ("kill", "torn"):
        require(end.code == -signal.SIGKILL, f"{where}: exit code {end.code}")
    elif action in HARMLESS or error in HARMLESS:
        require(end.code == 0, f"{where}: exit code {end.code}: {end.errors}")
        require(complete(), f"{where}: exit code 0, but its work is not done")
    elif end.code == 0:
        # What could not be deleted may stay, if the next run deletes it.
        require(end.kind in ("unlink", "look"), f"{where}: the failure was not reported")
        require(complete(), f"{where}: exit code 0, but its work is not done")
    elif end.kind != "look":  # what cannot be read is the input's error, exit code 3
        require(end.code == 5, f"{where}: exit code {end.code}, not 5: {end.errors}")
        require(os.strerror(error) in end.errors, f"{where}: the cause is not reported: {end.errors}")
        require(any(part in end.errors for part in places(end.path)), f"{where}: the path is not reported: {end.errors}")
    else:
        require(end.code in (3, 5), f"{where}: exit code {end.code}: {end.errors}")


def places(path):
    """Returns the names a message may use for this path: without the suffix of a temporary name, or a parent folder."""
    path = pathlib.Path(path)
    named = [path, path.parent, path.parent.parent]
    return [str(one).split(".writing")[0].replace("/.", "/") for one in named]


def every_call(server, faults, tally, reset, judge):
    """Injects each fault at the first, second, … call until no call is left; `judge` checks what each leaves."""
    for fault in faults:
        name, kinds, action, error, lasting = fault
        for n in itertools.count(1):
            reset()
            end = server.child(kinds, n, action, error, lasting)
            if not end.hit:
                require(n > 1, f"{name}: no call of {kinds} was ever hit, so this proves nothing")
                require(end.code == 0, f"{name}: nothing was hit, exit code {end.code}: {end.errors}")
                break
            tally.fault(fault, end)
            judge(end, fault)


def newest_done(end, run):
    """The newest checkpoint that was complete at this call, as far as the call shows, in a run that resumes from the second,
    deletes the first before it saves the fourth, and the second at its end."""
    path = pathlib.Path(end.path)
    if end.kind == "look":
        return 2
    if step := re.search(r"/checkpoint-(\d+)", end.path):
        return {1: 3, 2: 4}.get(int(step[1]), int(step[1]) - 1)
    ends = ("adapter_model", "adapter_config", "README", "trainer_state")
    return 4 if path.parent == run and path.name.lstrip(".").startswith(ends) else 2


def can_tidy(end, fault):
    """Whether the process could clean up after this fault."""
    _, kinds, action, _, lasting = fault
    return action == "fail" and end.kind not in ("unlink", "look") and not (lasting and "unlink" in kinds)


def of_training(bench, folder, changes, faults, tally):
    """A run that resumes from the second of two checkpoints and saves twice, each time deleting the oldest."""
    bench.peft_run(experiment(folder, "uninterrupted", changes | {"training": TRAINING | {"save_total_limit": 9}}))
    uninterrupted, run, template, left = folder / "uninterrupted", folder / "run", folder / "template", {}
    for step in (1, 2):
        shutil.copytree(uninterrupted / f"checkpoint-{step}", template / f"checkpoint-{step}")
    shutil.copy(uninterrupted / "metrics.jsonl", template)

    def complete():
        require(metrics(run) == metrics(uninterrupted), f"{run}: metrics.jsonl is not that of the uninterrupted run")
        output.check_result(run, uninterrupted)
        return output.check_checkpoints(run, uninterrupted) == [3, 4]

    def judge(end, fault):
        found, where = output.check_checkpoints(run, uninterrupted), f"{fault[0]} at {end.hit}"
        require(max(found, default=0) >= newest_done(end, run), f"{where}: a checkpoint is lost, there are {found}")
        output.adapter_or_none(run, uninterrupted, where)
        expect_end(end, fault, complete)
        if can_tidy(end, fault):
            output.require_no_litter(run)
        if shape(run) not in left:
            left[shape(run)] = shutil.copytree(run, folder / f"left{len(left)}")

    path = experiment(folder, "run", changes | {"training": TRAINING})
    with Server(bench, run, [bench.bin / "peft-run", path, "--resume"]) as server:
        every_call(server, faults, tally, lambda: put(run, template), judge)
        for state in left.values():
            put(run, state)
            end = server.child()
            require(end.code == 0, f"{state}: the next run ends with {end.code}: {end.errors}")
            require(complete(), f"{state}: the next run leaves checkpoints {output.checkpoints(run)}")
            output.require_no_litter(run)
            tally.start()
            shutil.rmtree(state)


def metrics(folder):
    return output.steps_of((folder / "metrics.jsonl").read_text())


def same_folder(ours, theirs):
    """Compares all files except the model card, which may name the folder it was made in."""
    return {name: data for name, data in output.read(ours).items() if name != "README.md"} == {
        name: data for name, data in output.read(theirs).items() if name != "README.md"}


def of_folder(bench, folder, name, arguments, faults, tally):
    """A command that makes a folder: the folder is complete or absent, and the command can be repeated."""
    made, reference = folder / name, folder / f"reference-{name}"
    bench.peft_run(*arguments, "--output", reference)

    def drafts():
        return list(folder.glob(f"{name}.*"))

    def complete():
        return made.exists() and same_folder(made, reference)

    def clear():
        for path in [made, *drafts()]:
            shutil.rmtree(path, ignore_errors=True)

    def judge(end, fault):
        where = f"{name}, {fault[0]} at {end.hit}"
        require(not made.exists() or complete(), f"{where}: an incomplete folder was left")
        expect_end(end, fault, complete)
        require(not can_tidy(end, fault) or not drafts(), f"{where}: temporary folders left: {drafts()}")
        if made.exists():
            return
        again = server.child()
        require(again.code == 0 and complete(), f"{where}, then again: exit code {again.code}: {again.errors}")
        require(not drafts(), f"{where}, then again: temporary folders left: {drafts()}")
        tally.start()

    with Server(bench, made, [bench.bin / "peft-run", *arguments, "--output", made]) as server:
        every_call(server, faults, tally, clear, judge)
    clear()


def exports(folder):
    """The commands that make a folder of a model and an adapter."""
    of = ["--model", folder / "model", "--adapter", folder / "adapter"]
    return {"merge": ["merge", *of]} | {f"export-{form}": ["export", "--as", form, *of] for form in ("gguf", "gguf-adapter", "lora")}


def check_modes(bench, folder):
    """Checks that the umask decides who may read what a run writes."""
    bench.peft_run(experiment(folder, "masked", {"training": {"max_steps": 1, "save_every": 1}}), umask=0o027)
    paths = [folder / "masked", *(folder / "masked").rglob("*")]
    for path in paths:
        mode = path.stat().st_mode & 0o777
        require(mode == (0o750 if path.is_dir() else 0o640), f"{path} has mode {mode:o} under umask 027")
    return len(paths)


def row(bench):
    tally = Tally()
    faults = FAULTS + MORE if bench.long else FAULTS
    folder = bench.folder("faults-exports")
    commands = exports(folder) if bench.long else {"merge": exports(folder)["merge"]}
    methods = bench.plugins("adapter") if bench.long else ["lora"]
    names = bench.wanted([*methods, *commands])
    bench.peft_run(experiment(folder, "adapter"))

    def of(name):
        if name in commands:
            of_folder(bench, folder, name, commands[name], faults, tally)
        else:
            of_training(bench, bench.folder(f"faults/{name}"), method(name), faults, tally)

    bench.each(of, names)
    modes = check_modes(bench, folder)
    needed = {"open", "write", "fsync", "rename", "unlink", "mkdir"}
    require(tally.kinds >= needed, f"no fault ever hit {needed - tally.kinds}")
    require(tally.names == {fault[0] for fault in faults}, f"of the faults only {tally.names} were tried")
    made = len(commands.keys() & names)
    return (f"{tally.faults} faults injected ({len(faults)} faults, every call; {len(names) - made} methods, {made} "
            f"exports), 0 checkpoints lost; {tally.starts} runs after them resumed and left no temporary files; {modes} modes "
            "follow the umask")
