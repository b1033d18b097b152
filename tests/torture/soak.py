"""A long run: memory does not grow, files are closed, checkpoints are rotated. The short form is too short to judge memory."""

import contextlib
import fcntl
import os
import pathlib
import re
import statistics
import threading

import output
from bench import experiment, require

STEPS, SAVES, KEPT, LOG_EVERY = 10_000, 200, 3, 30
SHORT_STEPS, SHORT_SAVES, SHORT_LOG_EVERY = 1_000, 20, 10
GROWTH = 0.01
HOURS = 3


def look(pid):
    """(resident bytes, {(descriptor, what it is open on)}) of a process, or None when it has ended."""
    folder = pathlib.Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE"), open_files(folder / "fd")
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def open_files(folder):
    found = set()
    for descriptor in os.listdir(folder):
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.add((descriptor, os.readlink(folder / descriptor)))
    return found


def short_pipe():
    """(to read, to write): it holds one write, so writing a line waits until the previous one was read."""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, os.sysconf("SC_PAGESIZE"))
    return os.fdopen(reading), os.fdopen(writing, "w")


def watched(bench, folder, path, steps):
    """Returns [(step, *look)] for each line that the run logs, and the largest number of checkpoints at once. The run is never
    more than one line ahead, however fast the machine."""
    reading, writing = short_pipe()
    with reading:
        with writing:
            process = bench.start(path, stdout=writing)
        late = threading.Timer(HOURS * 3600, process.kill)
        late.daemon = True
        late.start()
        seen, most = [], 0
        for line in reading:
            most = max(most, len(output.checkpoints(folder)))
            step, state = re.match(r"step (\d+)/", line), look(process.pid)
            if step and state and int(step[1]) < steps:  # it exits after the last line
                seen.append((int(step[1]), *state))
        late.cancel()
    errors = process.communicate()[1]
    require(process.returncode == 0, f"exit code {process.returncode} (-9 after {HOURS} hours): {errors}")
    return seen, most


def row(bench):
    steps, saves, log_every = (STEPS, SAVES, LOG_EVERY) if bench.long else (SHORT_STEPS, SHORT_SAVES, SHORT_LOG_EVERY)
    training = {"max_steps": steps, "save_every": steps // saves, "save_total_limit": KEPT, "log_every": log_every}
    folder = bench.folder("soak")
    run = folder / "run"
    seen, most = watched(bench, run, experiment(folder, "run", {"training": training}), steps)
    require(output.checkpoints(run) == [steps - steps // saves * i for i in reversed(range(KEPT))],
            f"{run}: {output.checkpoints(run)}")
    require(most <= KEPT + 1, f"{most} checkpoints at once")
    output.require_no_litter(run)
    tenth = {n: [entry for entry in seen if n * steps // 10 < entry[0] <= (n + 1) * steps // 10] for n in (1, 9)}
    early, late = (statistics.median(entry[1] for entry in tenth[n]) for n in (1, 9))
    # A save has files open, too, at whichever moments it is sampled; a file that is never closed is open in every sample.
    files = {n: len(set.intersection(*(entry[2] for entry in tenth[n]))) for n in (1, 9)}
    growth = late / early - 1
    require(growth < GROWTH or not bench.long, f"resident memory grew by {growth:.2%}, from {early} to {late} bytes")
    require(files[1] == files[9], f"open files: {files[1]} early, {files[9]} late")
    return (f"{steps} steps, {len(seen)} samples: resident memory {early / 2**20:.0f} MiB in the second tenth, "
            f"{growth:+.2%} in the last; files open throughout {files[1]} and {files[9]}; {saves} checkpoints rotated, at most "
            f"{most} at once")
