"""The table of tools/torture: each row breaks something on purpose and prints what it counted."""

import argparse
import concurrent.futures
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback

import determinism
import disk
import faults
import kills
import memory
import replay
import resumes
import signals
import soak
import suites
from bench import ROOT, Bench, Failed, Skipped

# Row: the function that runs it, and whether it belongs to the short form. The rows of the short form do the same each time;
# those that depend on moments in time, or on how fast the machine is, belong to the long form alone.
ROWS = {
    "faults": (faults.row, True),
    "memory": (memory.row, True),
    "replay": (replay.row, True),
    "fuzz": (suites.fuzz, True),
    "disk": (disk.row, True),
    "resume": (resumes.row, True),
    "determinism": (determinism.row, True),
    "inputs": (suites.inputs, True),
    "plugins": (suites.plugins, True),
    "soak": (soak.row, True),
    "kills": (kills.row, False),
    "signals": (signals.row, False),
    "sanitizers": (suites.sanitizers, False),
}


def arguments():
    parser = argparse.ArgumentParser(prog="tools/torture", description=__doc__)
    parser.add_argument("--long", action="store_true", help="all rows, every method, thousands of faults: takes a night")
    parser.add_argument("--short", action="store_true", help="the repeatable rows, on a sample: takes minutes (the default)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--seed", type=int, help="seed of the random choices (default: 1; with --long a new one, which is printed)")
    parser.add_argument("--skip", action="append", default=[], metavar="ROW", choices=list(ROWS))
    parser.add_argument("--only", default="", metavar="REGEX",
                        help="in rows over many methods or variants, run those whose name matches")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="run only these; one of: " + ", ".join(ROWS))
    options = parser.parse_args()
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown or options.long and options.short:
        parser.error(f"unknown rows: {unknown}" if unknown else "--long or --short, not both")
    return options


def binaries():
    found = pathlib.Path(os.environ.get("PEFT_BIN", ROOT / "build" / "release" / "bin"))
    if not (found / "peft-run").exists():
        sys.exit(f"no peft-run in {found}: build first, or set PEFT_BIN")
    return found.resolve()


def run_row(bench, name):
    """Returns verdict, name, seconds, figure."""
    begun = time.monotonic()
    try:
        verdict, figure = "ok", ROWS[name][0](bench)
    except Skipped as reason:
        verdict, figure = "SKIPPED", str(reason)
    except Failed as failure:
        verdict, figure = "FAILED", str(failure)
    except Exception:
        verdict, figure = "FAILED", traceback.format_exc()
    print(f"{verdict:8}{name}: {figure}", flush=True)
    return verdict, name, time.monotonic() - begun, figure


def main():
    options = arguments()
    names = options.rows or [name for name, (_, short) in ROWS.items() if options.long or short]
    names = [name for name in names if name not in options.skip]
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31) if options.long else 1
    # In memory if possible: a sync costs nothing there, and what is tested is whether and when one is requested.
    memory = pathlib.Path("/dev/shm")
    work = pathlib.Path(tempfile.mkdtemp(prefix="peft-torture-", dir=memory if os.access(memory, os.W_OK) else None))
    mounts = os.environ.get("PEFT_TORTURE_MOUNTS") == "1"
    bench = Bench(work, binaries(), options.long, options.jobs, seed, mounts, options.only)
    print(f"{'long' if options.long else 'short'} form, seed {seed}, in {work}", flush=True)
    bench.model()
    # A long row occupies all cores; most short ones have stretches with a single process, so several run at a time.
    with concurrent.futures.ThreadPoolExecutor(1 if options.long else options.jobs) as pool:
        table = list(pool.map(lambda name: run_row(bench, name), names))
    print("\n| row | verdict | seconds | figure |\n|---|---|---|---|")
    for verdict, name, seconds, figure in table:
        print(f"| {name} | {verdict} | {seconds:.0f} | {figure.splitlines()[0]} |")
    failed = [name for verdict, name, _, _ in table if verdict == "FAILED"]
    if failed:
        sys.exit(f"\nfailed: {', '.join(failed)}; the files of the failed rows are in {work}")
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
