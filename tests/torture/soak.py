"""A long run: memory does not grow, files are closed, checkpoints are rotated."""

import os
import pathlib
import statistics
import time

import output
from bench import Failed, experiment, require

STEPS, SAVES, KEPT = 10_000, 200, 3
GROWTH = 0.01
HOURS = 3


def look(pid):
    """(resident bytes, open files) of a process, or None when it has ended."""
    folder = pathlib.Path("/proc") / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE"), len(os.listdir(folder / "fd"))
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return None


def logged(run):
    """The last step of metrics.jsonl, by its last whole line."""
    path = run / "metrics.jsonl"
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    steps = [part.split('"step":')[1].split(",")[0].rstrip("}") for part in lines if '"step":' in part and part.endswith("}")]
    return int(steps[-1]) if steps else 0


def row(bench):
    training = {"max_steps": STEPS, "save_every": STEPS // SAVES, "save_total_limit": KEPT, "log_every": 100}
    folder = bench.folder("soak")
    run, seen, most = folder / "run", [], 0
    with open(folder / "stdout", "wb") as told:
        process = bench.start(experiment(folder, "run", {"training": training}), stdout=told)
        begun = time.monotonic()
        while process.poll() is None:
            if time.monotonic() - begun > HOURS * 3600:
                process.kill()
                process.wait()
                raise Failed(f"has not ended after {HOURS} hours, at step {logged(run)}")
            time.sleep(0.2)
            step, state = logged(run), look(process.pid)
            most = max(most, len(output.checkpoints(run)))
            if state and step:
                seen.append((step, *state))
    require(process.wait() == 0, f"exit code {process.returncode}: {process.stderr.read()}")
    process.stderr.close()
    require(output.checkpoints(run) == [STEPS - STEPS // SAVES * i for i in reversed(range(KEPT))],
            f"{run}: {output.checkpoints(run)}")
    require(most <= KEPT + 1, f"{most} checkpoints at once")
    output.require_no_litter(run)
    tenth = {n: [entry for entry in seen if n * STEPS // 10 < entry[0] <= (n + 1) * STEPS // 10] for n in (1, 9)}
    require(all(len(entries) >= 5 for entries in tenth.values()), f"looked at too seldom: {len(seen)} times")
    early, late = (statistics.median(entry[1] for entry in tenth[n]) for n in (1, 9))
    files = {n: statistics.median(entry[2] for entry in tenth[n]) for n in (1, 9)}
    growth = late / early - 1
    require(growth < GROWTH, f"resident memory grew by {growth:.2%}, from {early} to {late} bytes")
    require(files[1] == files[9], f"open files: {files[1]} early, {files[9]} late")
    return (f"{STEPS} steps: resident memory {early / 2**20:.0f} MiB in the second tenth, {growth:+.2%} in the last; open files "
            f"{files[1]:.0f} and {files[9]:.0f}; {SAVES} checkpoints rotated, at most {most} at once")
