"""A signal that stops a run at a random moment: exit code 75 in time, the checkpoint intact and bit-equal to that of the uninterrupted run,
which the resumed run equals in the end. A second signal ends the process at once and breaks nothing."""

import random
import shutil
import signal
import time

import kills
import output
from bench import experiment, require

TRAINING = {"max_steps": 200, "save_every": 50, "save_total_limit": 3}
AT_THE_END = 5  # steps in which a signal may find the run as good as done
NUMBERS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]
GRACE = 2.0  # seconds in addition to one step and one save


class Tally(kills.Tally):
    def __init__(self, wanted):
        super().__init__(wanted)
        self.saved, self.before, self.unheard, self.second, self.slowest = 0, 0, 0, 0, 0.0

    def enough(self):
        """Enough signals, a third of them during training."""
        return self.hits >= self.wanted and 3 * self.saved >= self.wanted


def send(process, number, twice, run):
    """Sends the signal; returns both outputs, the seconds to the end, and the last step logged before."""
    before, begun = kills.logged(run), time.monotonic()
    process.send_signal(number)
    if twice:
        time.sleep(0.001)
        process.send_signal(number)
    printed, errors = kills.finish(process)
    return printed, errors, time.monotonic() - begun, before


def check_stopped(process, number, printed, errors, run, tally):
    """After one signal: saved, or before the first step with nothing to save, or before the program's own first line."""
    if process.returncode == 75 and "before the first step" in errors:
        tally.before += 1
    elif process.returncode == 75:
        found = output.checkpoints(run)
        require(f"stopped by {number.name} after step {max(found, default=0)}," in printed, f"{printed}\n{errors}\n{found}")
        tally.saved += 1
    else:
        # Between exec and main, and in the last moments of exit, no program can answer.
        require(process.returncode == -number, f"exit code {process.returncode} after {number.name}: {errors}")
        require(not printed or "adapter: " in printed, f"{number.name} ended it without a checkpoint: {printed}{errors}")
        tally.unheard += 1


def chain(bench, folder, worker, uninterrupted, seconds, tally):
    moments, run = random.Random(bench.seed + worker), folder / f"run{worker}"
    path, limit = experiment(folder, run.name, {"training": TRAINING}), GRACE + seconds / TRAINING["max_steps"]
    while tally.more():
        process = bench.start(path, "--resume")
        stopped = kills.lives(process, moments.uniform(0, seconds))
        number, twice = moments.choice(NUMBERS), moments.random() < 0.2
        printed, errors, took, before = send(process, number, twice, run) if stopped else (*kills.finish(process), 0.0, None)
        require(took <= limit, f"{number.name}: it took {took:.2f} s, more than {limit:.2f} s, to end")
        if process.returncode == 0:
            near = TRAINING["max_steps"] - AT_THE_END
            require(not stopped or before >= near, f"{number.name} after step {before} was ignored: the run continued to its end")
            kills.check_finished(run, uninterrupted)
            shutil.rmtree(run)
            with tally.lock:
                tally.finished += 1
            continue
        if run.exists():
            output.check_checkpoints(run, uninterrupted)
        with tally.lock:
            tally.hits += 1
            tally.slowest = max(tally.slowest, took)
            if twice:
                require(process.returncode in (-number, 75), f"exit code {process.returncode}: {errors}")
                tally.second += 1
            else:
                check_stopped(process, number, printed, errors, run, tally)
    bench.peft_run(path, "--resume")
    kills.check_finished(run, uninterrupted)
    with tally.lock:
        tally.finished += 1


def row(bench):
    folder, tally = bench.folder("signals"), Tally(2400 if bench.long else 60)
    uninterrupted, seconds = kills.uninterrupted_run(bench, folder, {"training": TRAINING})
    bench.each(lambda worker: chain(bench, folder, worker, uninterrupted, seconds, tally), range(bench.jobs))
    require(tally.hits >= tally.wanted, f"only {tally.hits} of {tally.tries} runs could be stopped before they ended")
    require(tally.enough(), f"only {tally.saved} of {tally.hits} signals came while it trained")
    return (f"{tally.hits} signals: {tally.saved} saved with exit code 75, {tally.before} before the first step, "
            f"{tally.unheard} before main or after the end, {tally.second} sent twice; slowest {tally.slowest:.2f} s; "
            f"{tally.finished} runs ended bit-equal to the uninterrupted one")
