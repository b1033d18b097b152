"""Parity: compares what peft.cpp computes with Hugging Face's libraries, live, on real files.

    tools/test -k tokenizer          sets everything up and runs the matching tests
    pytest --quick                   runs the first case of each test that is not marked slow

Nothing is compared with recorded numbers: each test runs the peer (transformers, peft, tokenizers, gguf, safetensors,
jinja2) and peft.cpp's own programs on the same input. Environment variables:

    PEFT_BIN         folder of peft-run
    PEFT_BUILD       the build folder, which holds the test tools
    PEFT_MODEL_GGUF  SmolLM2-135M-Instruct.Q4_1.gguf
    PEFT_DATA_DIR    the data folder of the llamafactory source package
    PEFT_TOKENIZERS  a folder with gpt2, qwen3, gemma3, llama3 and smollm2, each with a tokenizer.json
    PEFT_TIMEOUT     seconds that one program may take (600); a sanitizer needs more

A test whose file is missing is skipped with the reason; with CI=true it fails.
"""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import tempfile

import figures
import pytest

# No test may download anything: what it needs is on disk or missing.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Keeps the token cache of the runs within these tests.
CACHE = tempfile.TemporaryDirectory(prefix="peft_cache_")
os.environ["PEFT_CACHE"] = CACHE.name
# The first process of a parallel run (pytest -n) makes this folder, and its workers inherit the variable.
LOCKS = pathlib.Path(os.environ.setdefault("PEFT_TEST_LOCKS", CACHE.name))
# Several workers with several threads each would wait for one another. Set before anything imports torch.
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="run only the first case of each test that is not marked slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--quick"):
        return
    chosen, seen = [], set()
    for item in items:
        name = item.nodeid.partition("[")[0]
        if name not in seen and not item.get_closest_marker("slow"):
            chosen.append(item)
        seen.add(name)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@contextlib.contextmanager
def turn(alone):
    """Waits until this test may run: an `alone` test runs while no other worker runs one."""
    with open(LOCKS / "gate.lock", "w") as gate, open(LOCKS / "running.lock", "w") as running:
        fcntl.flock(gate, fcntl.LOCK_EX)  # while an `alone` test waits, no other test starts
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    alone = item.get_closest_marker("alone") is not None
    with turn(alone), pytest.MonkeyPatch.context() as patch:
        if alone and IS_WORKER:
            patch.delenv("OMP_NUM_THREADS", raising=False)  # the programs it starts have the machine to themselves
        return (yield)


def from_environment(variable):
    """The existing path that an environment variable names."""
    value = os.environ.get(variable, "")
    if value and pathlib.Path(value).exists():
        return pathlib.Path(value)
    reason = f"{variable} is not set" if not value else f"{variable}={value} does not exist"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def model_gguf():
    return from_environment("PEFT_MODEL_GGUF")


@pytest.fixture(scope="session")
def data_dir():
    return from_environment("PEFT_DATA_DIR")


@pytest.fixture(scope="session")
def tokenizers_dir():
    return from_environment("PEFT_TOKENIZERS")


@pytest.fixture(scope="session")
def bin_dir():
    return from_environment("PEFT_BIN")


@pytest.fixture(scope="session")
def run(bin_dir):
    """run("peft-run", "list", …): returns the finished process, with its output as text. `code` is the required exit code."""

    limit = int(os.environ.get("PEFT_TIMEOUT", 600))

    def call(program, *arguments, code=0, timeout=limit, **options):
        command = [str(bin_dir / program), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout, **options
        )
        assert done.returncode == code, (
            f"{' '.join(command)}\nexit code {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
        )
        return done

    return call


@pytest.fixture
def exact_peer(monkeypatch):
    """Makes the peer exact enough for a comparison in fp64. transformers computes norms and cosines in fp32 even in a fp64
    model. Here its norms run in fp64, and its cosines are computed in fp64 and rounded to fp32, as peft.cpp does: those of
    torch in fp32 differ from that in the last bit, some depending on their address."""

    import torch  # here, because most text tests need neither
    import transformers

    def norm(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)

    def rotary(self, x, position_ids):
        angles = (self.inv_freq.float()[None, :, None] * position_ids[:, None, :].float()).transpose(1, 2)
        both = torch.cat((angles, angles), dim=-1).double()
        return tuple((wave.float() * self.attention_scaling).to(x.dtype) for wave in (both.cos(), both.sin()))

    llama = transformers.models.llama.modeling_llama
    monkeypatch.setattr(llama.LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(llama.LlamaRotaryEmbedding, "forward", rotary)


def pytest_sessionfinish(session):
    if IS_WORKER:
        session.config.workeroutput["figures"] = figures.exported()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Collects what a worker noted; one that crashed sends nothing."""
    figures.add(getattr(node, "workeroutput", {}).get("figures", {"counts": {}, "differences": []}))


def pytest_terminal_summary(terminalreporter):
    """Prints what tests counted, and the largest difference of each comparison with its bound."""
    if figures.FIGURES:
        terminalreporter.section("counted")
        for what, number in sorted(figures.FIGURES.items()):
            terminalreporter.write_line(f"{number:8} {what}")
    if figures.DIFFERENCES:
        terminalreporter.section("largest differences from the peer")
        for (test, what), (difference, bound) in sorted(figures.DIFFERENCES.items()):
            terminalreporter.write_line(f"{difference:9.2e} of {bound:7.1e}  {what:<12} {test}")
