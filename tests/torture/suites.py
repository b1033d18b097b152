"""Rows that run other test suites of the tree and report their counts."""

import re
import subprocess
import sys

from bench import ROOT, Failed, Skipped, require


def output_of(command, timeout):
    try:
        done = subprocess.run(list(map(str, command)), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]}: did not end after {timeout} s") from None
    require(done.returncode == 0, f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def tests(name, *options):
    """How many of a test file's tests passed; none is a failure."""
    path = ROOT / "tests" / "parity" / name
    if not path.exists():
        raise Skipped(f"{path.relative_to(ROOT)} is not there")
    printed = output_of([sys.executable, "-m", "pytest", "-q", path, *options], 3600)
    passed = re.search(r"(\d+) passed", printed)
    require(passed, f"{name}: no test ran\n{printed}")
    return int(passed[1]), printed


def fuzz(bench):
    tool = ROOT / "tools" / "fuzz"
    if not tool.exists():
        raise Skipped("tools/fuzz is not there")
    # Other inputs each night; the short form has the same ones each time, so that a change answers for what it finds.
    form = ["--long", "--seed", bench.seed] if bench.long else ["--short"]
    printed = output_of([tool, *form], 24 * 3600 if bench.long else 900)
    return printed.splitlines()[-1]


def inputs(_):
    passed, printed = tests("test_hostile_input.py")
    count = re.search(r"(\d+) inputs refused", printed)
    return f"{count[0] if count else f'{passed} tests of inputs refused'}"


def plugins(_):
    passed, printed = tests("test_plugins.py")
    count = re.search(r"(\d+) plugins refused", printed)
    return f"{count[0] if count else f'{passed} tests of broken plugins refused'}"


def sanitizers(bench):
    printed = output_of([ROOT / "tools" / "sanitize", *(["--all"] if bench.long else [])], 12 * 3600)
    return printed.splitlines()[-1]
