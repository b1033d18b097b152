"""Parity: what peft computes, compared live with Hugging Face's libraries on real files.

    tools/test -k tokenizer          the way that sets everything up

Nothing here is compared with recorded numbers: each test runs the peer (transformers, peft, tokenizers, gguf,
safetensors, jinja2) and peft's own programs on the same input. The environment says where things are:

    PEFT_BIN         folder of peft-run and of the test programs that speak for the library
    PEFT_BUILD       the build folder
    PEFT_MODEL_GGUF  SmolLM2-135M-Instruct.Q4_1.gguf
    PEFT_DATA_DIR    the data folder of the llamafactory source package
    PEFT_TOKENIZERS  a folder with gpt2, qwen3, gemma3, llama3 and smollm2, each holding tokenizer.json
    PEFT_TIMEOUT     seconds that one program may take (600); a sanitizer needs more

A test whose file is absent is skipped and says so; with CI=true it fails.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

# No test may reach for a hub: what it needs is on disk or absent.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tokens that a run keeps for the next one stay within these tests.
CACHE = tempfile.TemporaryDirectory(prefix="peft_cache_")
os.environ["PEFT_CACHE"] = CACHE.name


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
    """run("peft-run", "list", …): the finished process, its output as text. `code` is the exit code it must have."""

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
    """transformers computes norms in fp32 and takes fp32 cosines in a model of fp64 too; that would hide what a comparison
    in fp64 should show. Here its norms run in fp64, and its cosines are rounded to fp32 from fp64 as ours are: torch's own
    differ from that in the last bit, some of them by where they lie in memory."""

    import torch  # late: most tests of text need neither
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


def pytest_terminal_summary(terminalreporter):
    """What tests counted; each comparison's largest difference from the peer, with the bound it had to keep."""
    figures = sys.modules.get("figures")
    if figures is not None and figures.FIGURES:
        terminalreporter.section("counted")
        for what, number in sorted(figures.FIGURES.items()):
            terminalreporter.write_line(f"{number:8} {what}")
    support = sys.modules.get("model_support")
    if support is None or not support.DIFFERENCES:
        return
    terminalreporter.section("largest differences from the peer")
    for (test, what), (difference, bound) in sorted(support.DIFFERENCES.items()):
        terminalreporter.write_line(f"{difference:9.2e} of {bound:7.1e}  {what:<12} {test}")
