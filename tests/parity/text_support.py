"""Shared by the parity tests of text: the folder of a real tokenizer, and one run of tokenize_tool."""

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = Path(os.environ.get("PEFT_BUILD", ROOT / "build")) / "tests" / "framework" / "tokenize_tool"


def absent(what):
    """Skips, or fails where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def tokenizer_folder(name):
    """$PEFT_TOKENIZERS/<name>, as tools/fetch_tokenizers.py makes it."""
    root = os.environ.get("PEFT_TOKENIZERS")
    if not root or not (Path(root) / name / "tokenizer.json").exists():
        absent(f"SKIPPED: no {name}/tokenizer.json in $PEFT_TOKENIZERS (tools/fetch_tokenizers.py makes it)")
    return Path(root) / name


def run_tool(first, requests):
    """The answers of one process to all requests."""
    if not TOOL.exists():
        absent(f"SKIPPED: {TOOL} is not built (set PEFT_BUILD to the build folder)")
    lines = "".join(json.dumps(line) + "\n" for line in [first, *requests])
    done = subprocess.run([TOOL], input=lines, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]
