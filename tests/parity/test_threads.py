"""The threads of peft-run: they wait without spinning, their number follows the CPUs and the CPU quota of the process, and what the
user sets in OpenMP's variables is left as it is. By what libgomp and peft-run say; tests/benchmark/busy.py measures."""

import json
import os
import pathlib
import re
import subprocess

import pytest
from tiny_llama import save_llama

CPUS = sorted(os.sched_getaffinity(0))
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def environment(**more):
    return {key: value for key, value in os.environ.items() if key not in VARIABLES} | more


@pytest.mark.parametrize("chosen, shown", [
    ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}),
    ({"OMP_NUM_THREADS": "3"}, {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "3"}),
    ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ({"OMP_WAIT_POLICY": "passive"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
    ({"GOMP_SPINCOUNT": "1234"}, {"GOMP_SPINCOUNT": "1234"}),
], ids=str)
def test_how_threads_wait(run, chosen, shown):
    """As OpenMP itself shows it. Without a policy libgomp says PASSIVE, too, but spins 300,000 times."""
    printed = run("peft-run", "list", env=environment(OMP_DISPLAY_ENV="verbose", **chosen)).stderr
    found = dict(re.findall(r"(\w+) = '(.*)'", printed))
    assert {key: found[key] for key in shown} == shown


def test_the_environment_is_the_users(run):
    """Nothing else is changed, and arguments, working directory and exit code come through."""
    assert run("peft-run", "--version").stdout.startswith("peft-run ")
    assert run("peft-run", "no-such-experiment.toml", code=2).stderr


@pytest.fixture
def plan(tmp_path, bin_dir):
    """plan(**variables): the first line that `peft-run plan` prints, in the environment with these variables."""
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "one and two"}) + "\n")
    (tmp_path / "experiment.toml").write_text(
        '[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n[training]\noutput_dir = "out"\n')

    def call(*before, cpus=None, **variables):
        done = subprocess.run([*before, bin_dir / "peft-run", "plan", tmp_path / "experiment.toml"], capture_output=True,
                              text=True, env=environment(**variables),
                              preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)
        assert done.returncode == 0, done.stderr
        line = done.stdout.splitlines()[0]
        assert line.startswith("model: ") and " (llama, fp32, cpu), " in line
        return line.split("cpu), ")[1]

    return call


def test_number_of_threads(plan):
    """That of the CPUs that the process may run on, or the user's."""
    count = len(CPUS)
    noun = "CPU" if count == 1 else "CPUs"
    assert re.fullmatch(rf"\d+ threads? \(of {count} {noun}\)", plan())  # MKL counts cores, of which CPUs may share one
    assert plan(cpus=CPUS[:1]) == "1 thread (of 1 CPU)"
    assert plan(OMP_NUM_THREADS="1") == f"1 thread (of {count} {noun})"


@pytest.fixture
def quota():
    """quota(CPUs): a command that runs the rest of its line in a control group with that quota."""
    name = f"peft-test-{os.getpid()}"
    for root, files in ((pathlib.Path("/sys/fs/cgroup/cpu"), ("cpu.cfs_period_us", "cpu.cfs_quota_us")),
                        (pathlib.Path("/sys/fs/cgroup"), ("cpu.max",))):
        folder = root / name
        try:
            folder.mkdir()
        except OSError:
            continue
        if not all((folder / file).exists() for file in files):
            folder.rmdir()
            continue

        def call(cpus):
            if len(files) == 1:
                (folder / files[0]).write_text(f"{int(cpus * 100000)} 100000")
            else:
                (folder / files[0]).write_text("100000")
                (folder / files[1]).write_text(str(int(cpus * 100000)))
            return ["sh", "-c", f'echo $$ >{folder}/cgroup.procs && exec "$@"', "sh"]

        yield call
        folder.rmdir()
        return
    pytest.skip("SKIPPED: this machine lets nobody make control groups with a CPU quota")


def test_threads_within_a_quota(plan, quota):
    assert plan(*quota(1)) == "1 thread: the quota is 1.0 CPUs" or len(CPUS) == 1
    assert plan(*quota(0.5)) == "1 thread: the quota is 0.5 CPUs"
    assert " (of " in plan(*quota(len(CPUS)))
    if len(CPUS) > 1:  # libtorch itself takes no more threads than there are CPUs
        assert plan(*quota(0.5), OMP_NUM_THREADS="2") == "2 threads, although the quota is 0.5 CPUs"
