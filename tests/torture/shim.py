"""Builds the fault shim (fault.c) and controls what it does to a process."""

import os
import select
import signal
import subprocess
import threading

from bench import HERE, SECONDS, Failed, environment, require, run

GROWING = "open,write,fsync,rename,mkdir,truncate"  # what a full disk refuses; deleting still works on it
CHANGING = GROWING + ",unlink"
BUILDING = threading.Lock()  # rows run several at a time


def library(bench):
    """The shared library for LD_PRELOAD."""
    made = bench.work / "fault.so"
    with BUILDING:
        if not made.exists():
            run(["cc", "-std=gnu17", "-O1", "-fexceptions", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", made,
                 *sorted(HERE.glob("*.c")), "-ldl", "-pthread"])
    return made


def preloaded(bench, prefix, **settings):
    """The environment of a process under the shim: preloaded(bench, folder, trace=file)."""
    return {"LD_PRELOAD": str(library(bench)), "PEFT_FAULT_PREFIX": str(prefix)} | {
        f"PEFT_FAULT_{name.upper()}": str(value) for name, value in settings.items()}


class End:
    """How a child of a server ended: exit code (negative: the signal), standard error, and the call that was hit."""

    def __init__(self, code, errors, hit):
        self.code, self.errors, self.hit = code, errors, hit
        self.kind, self.path = hit.split(" ", 1) if hit else ("", "")


class Server:
    """A process of peft-run that has stopped at its first look at `prefix`; each child() continues
    from there with another fault. One start serves hundreds of faults."""

    def __init__(self, bench, prefix, command):
        name = f"{prefix.parent.name}-{prefix.name}"  # rows run several at a time
        self.stderr_file, self.hit = bench.work / f"{name}.stderr", bench.work / f"{name}.hit"
        take, self.send = os.pipe()
        self.answer, give = os.pipe()
        env = preloaded(bench, prefix, server=f"{take},{give}", report=self.hit)
        with open(self.stderr_file, "ab") as errors:
            self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                            stderr=errors, pass_fds=(take, give), start_new_session=True,
                                            env=environment(1, env))
        os.close(take)
        os.close(give)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.send)
        os.close(self.answer)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # a session of its own: it and its children
            self.process.wait()

    def child(self, kinds="none", n=0, action="fail", error=0, lasting=False):
        for file in (self.stderr_file, self.hit):
            os.truncate(file, 0) if file.exists() else None
        try:
            os.write(self.send, f"{kinds} {n} {action} {error} {'lasting' if lasting else 'once'}\n".encode())
        except BrokenPipeError:
            raise Failed(f"peft-run has ended before it looked into its folder: {self.stderr_file.read_text()}") from None
        if not select.select([self.answer], [], [], SECONDS)[0]:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise Failed(f"{action} at call {n} of {kinds}: did not end after {SECONDS} s")
        answer = os.read(self.answer, 64)
        require(answer, f"peft-run has ended before it looked into its folder: {self.stderr_file.read_text()}")
        return End(os.waitstatus_to_exitcode(int(answer)), self.stderr_file.read_text(errors="replace"),
                   self.hit.read_text().splitlines()[0] if self.hit.exists() and self.hit.stat().st_size else "")
