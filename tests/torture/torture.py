"""The table of tools/torture: each row breaks something on purpose and prints what it counted."""

import argparse
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

# Row: what runs it, and whether it belongs to the short form.
ROWS = {
    "faults": (faults.row, True),
    "replay": (replay.row, True),
    "disk": (disk.row, True),
    "kills": (kills.row, True),
    "signals": (signals.row, True),
    "memory": (memory.row, True),
    "resume": (resumes.row, True),
    "determinism": (determinism.row, True),
    "inputs": (suites.inputs, True),
    "plugins": (suites.plugins, True),
    "fuzz": (suites.fuzz, True),
    "soak": (soak.row, True),
    "sanitizers": (suites.sanitizers, False),
}


def arguments():
    parser = argparse.ArgumentParser(prog="tools/torture", description=__doc__)
    parser.add_argument("--long", action="store_true", help="every method, thousands of faults: a night")
    parser.add_argument("--short", action="store_true", help="a sample of each, within minutes (the default)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--seed", type=int, help="of the random moments; told, and new each time where it is not given")
    parser.add_argument("--skip", action="append", default=[], metavar="ROW", choices=list(ROWS))
    parser.add_argument("--only", default="", metavar="REGEX",
                        help="in rows that go through many methods or variants, those whose name it is found in")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only these; one of: " + ", ".join(ROWS))
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
    """(verdict, figure)"""
    try:
        return "ok", ROWS[name][0](bench)
    except Skipped as reason:
        return "SKIPPED", str(reason)
    except Failed as failure:
        return "FAILED", str(failure)
    except Exception:
        return "FAILED", traceback.format_exc()


def main():
    options = arguments()
    names = options.rows or [name for name, (_, short) in ROWS.items() if options.long or short]
    names = [name for name in names if name not in options.skip]
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    # In memory where there is room: a sync there costs nothing, and what is tested is whether and when one is asked for.
    memory = pathlib.Path("/dev/shm")
    work = pathlib.Path(tempfile.mkdtemp(prefix="peft-torture-", dir=memory if os.access(memory, os.W_OK) else None))
    mounts = os.environ.get("PEFT_TORTURE_MOUNTS") == "1"
    bench = Bench(work, binaries(), options.long, options.jobs, seed, mounts, options.only)
    print(f"{'long' if options.long else 'short'} form, seed {seed}, in {work}", flush=True)
    bench.model()
    table = []
    for name in names:
        begun = time.monotonic()
        verdict, figure = run_row(bench, name)
        table.append((verdict, name, time.monotonic() - begun, figure))
        print(f"{verdict:8}{name}: {figure}", flush=True)
    print("\n| row | verdict | seconds | figure |\n|---|---|---|---|")
    for verdict, name, seconds, figure in table:
        print(f"| {name} | {verdict} | {seconds:.0f} | {figure.splitlines()[0]} |")
    failed = [name for verdict, name, _, _ in table if verdict == "FAILED"]
    if failed:
        sys.exit(f"\nfailed: {', '.join(failed)}; what they left is in {work}")
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
