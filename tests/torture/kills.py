"""SIGKILL at a random moment, from the start of the program to its end: every checkpoint left is whole and the unbroken run's to the
last bit, no more than the steps since the last one are lost, and in the end it is the unbroken run."""

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
    """What has been done, by several chains at a time; `hits` are the processes that were met before they ended."""

    def __init__(self, wanted):
        self.wanted, self.lock = wanted, threading.Lock()
        self.hits, self.in_a_save, self.finished, self.tries = 0, 0, 0, 0

    def enough(self):
        """One of them shall come in a save."""
        return self.hits >= self.wanted and self.in_a_save > 0

    def more(self):
        """Whether to go on, within bounds."""
        with self.lock:
            self.tries += 1
            return not self.enough() and self.hits < 8 * self.wanted and self.tries <= 160 * self.wanted


def unbroken_run(bench, folder, changes):
    """One that keeps a checkpoint of every step; and the seconds that one takes that saves as `changes` have it."""
    training = changes["training"] | {"save_every": 1, "save_total_limit": 9999}
    bench.peft_run(experiment(folder, "unbroken", changes | {"training": training}))
    begun = time.monotonic()
    bench.peft_run(experiment(folder, "timed", changes))
    return folder / "unbroken", time.monotonic() - begun


def lives(process, seconds):
    """Whether it has not ended after these seconds."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        return True


def finish(process):
    """What it told, when it has ended."""
    try:
        return process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def logged(folder):
    """The last step that the log tells of."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith("}")]
    return max((step for step, _ in output.steps_of("\n".join(whole))), default=0)


def check_killed(run, unbroken, training):
    found = output.check_checkpoints(run, unbroken)
    # The log is a step ahead of the save; with a limit the oldest are deleted after the newest is there.
    require(max(found, default=0) >= logged(run) - training["save_every"], f"{run}: step {logged(run)} was logged, the newest left is {found[-1:]}")
    most = training["save_total_limit"] + 1 + training.get("load_best_model_at_end", False)
    require(len(found) <= most, f"{run}: {len(found)} checkpoints")
    whole = output.adapter(run)
    require(whole is None or whole[0] == output.adapter(unbroken)[0], f"{run}: an adapter that is not the unbroken one's")


def check_finished(run, unbroken):
    output.check_result(run, unbroken)
    output.check_checkpoints(run, unbroken)
    output.require_no_litter(run)
    require(output.steps_of((run / "metrics.jsonl").read_text()) == output.steps_of((unbroken / "metrics.jsonl").read_text()),
            f"{run}: its metrics.jsonl is not the unbroken one's")


def chain(bench, folder, changes, seed, tally):
    """Kills in one folder, until enough are done by all; each start goes on from what the one before left."""
    unbroken, seconds = unbroken_run(bench, folder, changes)
    moments, run = random.Random(seed), folder / "run"
    path = experiment(folder, run.name, changes)
    while tally.more():
        process = bench.start(path, "--resume")
        if lives(process, moments.uniform(0, seconds)):
            process.kill()
        _, errors = finish(process)
        if process.returncode == 0:
            check_finished(run, unbroken)
            shutil.rmtree(run)
            with tally.lock:
                tally.finished += 1
            continue
        require(process.returncode == -signal.SIGKILL, f"exit code {process.returncode}: {errors}")
        with tally.lock:
            tally.hits += 1
            tally.in_a_save += bool(run.exists() and output.litter(run))
        if run.exists():
            check_killed(run, unbroken, changes["training"])
    bench.peft_run(path, "--resume")
    check_finished(run, unbroken)
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
            "runs ended bit-equal to the unbroken one")
