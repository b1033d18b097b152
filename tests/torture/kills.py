"""SIGKILL at a random moment between start and end: every checkpoint is intact and bit-equal to that of the uninterrupted run, only
the steps since the last one are lost, and the resumed run ends as the uninterrupted run does."""

import random
import shutil
import signal
import subprocess
import threading
import time

import output
from bench import BASE, SECONDS, experiment, require

TRAINING = {"max_steps": 40, "save_every": 2, "save_total_limit": 3}
# One chain keeps as few as it may, and the best so far, which with this rate is sometimes the newest and sometimes not.
BEST = {"training": TRAINING | {"eval_every": 1, "save_every": 1, "load_best_model_at_end": True, "save_total_limit": 1},
        "data": BASE["data"] | {"eval_split": 0.2}, "optimizer": {"name": "adamw", "lr": 0.2}, "scheduler": {"name": "constant"}}


class Tally:
    """Counts of all chains together; `hits` are the processes that were killed before they ended."""

    def __init__(self, wanted):
        self.wanted, self.lock = wanted, threading.Lock()
        self.hits, self.in_a_save, self.finished, self.tries = 0, 0, 0, 0

    def enough(self):
        """Enough kills, at least one of them during a save."""
        return self.hits >= self.wanted and self.in_a_save > 0

    def more(self):
        """Whether to continue, within bounds."""
        with self.lock:
            self.tries += 1
            return not self.enough() and self.hits < 8 * self.wanted and self.tries <= 160 * self.wanted


def uninterrupted_run(bench, folder, changes):
    """Returns the folder of a run that keeps a checkpoint of every step, and the seconds of a run that saves as in `changes`."""
    training = changes["training"] | {"save_every": 1, "save_total_limit": 9999}
    bench.peft_run(experiment(folder, "uninterrupted", changes | {"training": training}))
    begun = time.monotonic()
    bench.peft_run(experiment(folder, "timed", changes))
    return folder / "uninterrupted", time.monotonic() - begun


def lives(process, seconds):
    """Whether it did not end after these seconds."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        return True


def finish(process):
    """Waits for the end; returns standard output and standard error."""
    try:
        return process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def logged(folder):
    """The last step in the log."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    complete = [line for line in lines if line.endswith("}")]
    return max((step for step, _ in output.steps_of("\n".join(complete))), default=0)


def check_killed(run, uninterrupted, training):
    found = output.check_checkpoints(run, uninterrupted)
    # The log is a step ahead of the save; with a limit the oldest are deleted after the newest is there.
    require(max(found, default=0) >= logged(run) - training["save_every"], f"{run}: step {logged(run)} was logged, the newest left is {found[-1:]}")
    most = training["save_total_limit"] + 1 + training.get("load_best_model_at_end", False)
    require(len(found) <= most, f"{run}: {len(found)} checkpoints")
    found_adapter = output.adapter(run)
    require(found_adapter is None or found_adapter[0] == output.adapter(uninterrupted)[0], f"{run}: an adapter that is not that of the uninterrupted run")


def check_finished(run, uninterrupted):
    output.check_result(run, uninterrupted)
    output.check_checkpoints(run, uninterrupted)
    output.require_no_litter(run)
    require(output.steps_of((run / "metrics.jsonl").read_text()) == output.steps_of((uninterrupted / "metrics.jsonl").read_text()),
            f"{run}: its metrics.jsonl is not that of the uninterrupted run")


def chain(bench, folder, changes, seed, tally):
    """Kills runs in one folder until all chains together have enough; each run resumes from what the previous one left."""
    uninterrupted, seconds = uninterrupted_run(bench, folder, changes)
    moments, run = random.Random(seed), folder / "run"
    path = experiment(folder, run.name, changes)
    while tally.more():
        process = bench.start(path, "--resume")
        if lives(process, moments.uniform(0, seconds)):
            process.kill()
        _, errors = finish(process)
        if process.returncode == 0:
            check_finished(run, uninterrupted)
            shutil.rmtree(run)
            with tally.lock:
                tally.finished += 1
            continue
        require(process.returncode == -signal.SIGKILL, f"exit code {process.returncode}: {errors}")
        with tally.lock:
            tally.hits += 1
            tally.in_a_save += bool(run.exists() and output.litter(run))
        if run.exists():
            check_killed(run, uninterrupted, changes["training"])
    bench.peft_run(path, "--resume")
    check_finished(run, uninterrupted)
    with tally.lock:
        tally.finished += 1


def row(bench):
    tally = Tally(1000 if bench.long else 25)
    chains = [(bench.folder(f"kills/{number}"), BEST if number % 2 else {"training": TRAINING}, bench.seed + number)
              for number in range(max(2, bench.jobs))]
    bench.each(lambda one: chain(bench, *one, tally), chains)
    require(tally.hits >= tally.wanted, f"only {tally.hits} of {tally.tries} runs could be killed before they ended")
    require(tally.in_a_save, "no kill came while something was being written; make the run save more")
    return (f"{tally.hits} kills survived, {tally.in_a_save} of them while something was being written; {tally.finished} "
            "runs ended bit-equal to the uninterrupted one")
