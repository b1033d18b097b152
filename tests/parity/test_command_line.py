"""What a user of the command line sees: the log on a terminal of any width, the commands that use its result, tables of one file laid
over another, and warnings of runs that are allowed but hardly meant."""

import fcntl
import os
import re
import shlex
import struct
import subprocess
import termios

import pytest
from tiny_llama import save_llama

EXPERIMENT = """[model]
path = "model"
[data]
train = "train.jsonl"
max_length = 64
[adapter]
name = "lora"
r = 4
target_modules = ["q_proj"]
[training]
output_dir = "out"
max_steps = 6
batch_size = 2
log_every = 3
"""
IA3 = """[adapter]
name = "ia3"
target_modules = ["v_proj", "down_proj"]
feedforward_modules = ["down_proj"]
"""
CLEAR = "\r\x1b[K"


@pytest.fixture
def folder(tmp_path):
    save_llama(tmp_path / "model", max_position_embeddings=512)
    (tmp_path / "train.jsonl").write_text("".join(f'{{"text": "line {i} of the data"}}\n' for i in range(8)))
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    return tmp_path


def on_terminal(command, columns, **options):
    """What a program writes to a terminal of that width."""
    main, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, **options)
    os.close(terminal)
    text = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        text += piece
    os.close(main)
    assert process.wait(600) == 0, text.decode()
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [120, 80, 40, 12])
def test_terminal(run, bin_dir, folder, columns):
    text = on_terminal([bin_dir / "peft-run", folder / "experiment.toml"], columns)
    bars = [piece for piece in re.findall(r"\r\x1b\[K([^\r\n]*)", text) if re.search(r"\b\d/6", piece) and not piece.startswith("step ")]
    assert len(bars) == 5, text  # none after the last step
    for bar in bars:
        assert len(bar) < columns, bar
        assert columns < 40 or "left " in bar and "mem " in bar, bar
        assert columns < 80 or "loss " in bar and "tok/s" in bar and re.match(r"\[#*\.+\] ", bar), bar
    # What is piped stays on a terminal, too.
    shown = re.findall(r"^step .*", re.sub(r"\r\x1b\[K[^\r\n]*(?=\r)", "", text).replace(CLEAR, ""), re.MULTILINE)
    piped = run("peft-run", folder / "experiment.toml", "--set", f"training.output_dir={folder / 'piped'}").stdout
    assert CLEAR not in piped
    expected = re.findall(r"^step .*", piped, re.MULTILINE)
    assert [line.split("  ")[:3] for line in shown] == [line.split("  ")[:3] for line in expected] and len(shown) == 3, text


def commands_after(output):
    return [shlex.split(line) for line in output.partition("next:\n")[2].splitlines()]


def test_next_commands(run, folder):
    """They run as they are printed, also with a quote and a blank in the path."""
    out = folder / "it's mine"
    output = run("peft-run", folder / "experiment.toml", "--set", f"training.output_dir={out}").stdout
    commands = commands_after(output)
    assert [command[1] for command in commands] == ["generate", "eval", "merge", "export"]
    for command in commands:
        assert any(word.startswith(str(out)) for word in command) and str(folder / "model") in command
        if command[1] == "export":  # llama.cpp knows no tokenizer like this model's
            continue
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_next_commands_of_what_cannot_be_merged(run, folder):
    more = '[adapter]\nname = "prompt_tuning"\nnum_virtual_tokens = 4\n[precision]\nname = "bf16"\n'
    (folder / "prompt.toml").write_text(more)
    output = run("peft-run", folder / "experiment.toml", "--with", folder / "prompt.toml").stdout
    commands = commands_after(output)
    assert [command[1] for command in commands] == ["generate", "eval"]
    assert all(command[command.index("--precision") + 1] == "bf16" for command in commands)


def test_overlay(run, folder):
    """One experiment with another method: the tables of the file replace the experiment's, for a plan, a run and its resume."""
    (folder / "methods").mkdir()
    overlay = folder / "methods" / "ia3.toml"
    overlay.write_text(IA3)
    arguments = [folder / "experiment.toml", "--with", overlay]
    assert "ia3_l" in run("peft-run", "plan", *arguments).stdout
    saving = [*arguments, "--set", "training.save_every=2"]
    run("peft-run", *saving)
    assert '"IA3"' in (folder / "out" / "adapter_config.json").read_text()
    weights = (folder / "out" / "adapter_model.safetensors").read_bytes()
    (folder / "out" / "adapter_model.safetensors").unlink()
    assert "resuming from" in run("peft-run", *saving, "--resume", folder / "out" / "checkpoint-4").stdout
    assert (folder / "out" / "adapter_model.safetensors").read_bytes() == weights
    # resolved.toml repeats the run without the file that was laid over.
    run("peft-run", folder / "out" / "resolved.toml", "--set", f"training.output_dir={folder / 'again'}")
    assert (folder / "again" / "adapter_model.safetensors").read_bytes() == weights
    # A resume without it would be another run.
    run("peft-run", folder / "experiment.toml", "--resume", folder / "out" / "checkpoint-4", code=2)


def test_plan_names_the_defaults(run, folder):
    plan = run("peft-run", "plan", folder / "experiment.toml", "--set", "training.gradient_accumulation_steps=3").stdout
    assert "optimizer: adamw, the default (lr = 2e-04, " in plan
    assert "scheduler: linear, the default (warmup_steps = 0, " in plan
    assert "clipping: norm, the default (max_norm = 1.0" in plan
    assert "precision: fp32, the default\n" in plan
    assert "batch: 6 examples per step (batch_size 2, gradient_accumulation_steps 3)\n" in plan
    plan = run("peft-run", "plan", folder / "experiment.toml", "--set", "scheduler.name=constant", "--set", "optimizer.lr=1e-3").stdout
    assert "scheduler: constant (warmup_steps = 0" in plan and "optimizer: adamw (lr = 0.001, " in plan
    assert "(llama, fp32, cpu" in plan and "parameters, fp32, lr 0.001" in plan


def test_run_that_learned_nothing_is_reported(run, folder):
    """The adapter is saved nevertheless."""
    done = run("peft-run", folder / "experiment.toml", "--set", "optimizer.lr=1000")
    assert re.search(r"warning: (the loss rose from .* in the first step to .* in the last ones|the gradient norm of the last (step|\d+ steps) was 0)", done.stderr)
    assert "lower optimizer.lr" in done.stderr and (folder / "out" / "adapter_model.safetensors").exists()
    good = run("peft-run", folder / "experiment.toml", "--set", f"training.output_dir={folder / 'good'}")
    assert "warning" not in good.stderr


def test_warm_up_longer_than_the_run_is_reported(run, folder):
    long = ["--set", "scheduler.warmup_steps=100"]
    for command in (["plan"], []):
        done = run("peft-run", *command, folder / "experiment.toml", *long)
        assert re.search(r"warning: \[scheduler\] the learning rate never reaches optimizer.lr: at most \d+ % of it, in step 6 of 6", done.stderr)
    done = run("peft-run", "plan", folder / "experiment.toml", "--set", "scheduler.warmup_steps=2")
    assert "warning" not in done.stderr


def test_fp16_on_a_cpu_is_reported(run, folder):
    for precision, warned in (("fp16", True), ("bf16", False), ("fp32", False)):
        for command in (["plan"], []):
            sets = ["--set", f"precision.name={precision}", "--set", f"training.output_dir={folder / precision}", "--set", "training.device=cpu"]
            done = run("peft-run", *command, folder / "experiment.toml", *sets)
            assert ("warning: precision fp16: on a CPU" in done.stderr) == warned, done.stderr


def test_example_of_every_method(run):
    """Each adapter plugin has an experiment next to it, which uses it."""
    rows = [line.split()[:2] for line in run("peft-run", "list", "adapter").stdout.splitlines() if line.startswith("adapter ")]
    assert len(rows) > 20
    for kind, name in rows:
        example = run("peft-run", "describe", f"{kind}/{name}", "--example").stdout
        assert f'name = "{name}"' in example and "[model]" in example, name
    assert run("peft-run", "describe", "lora", "--example").stdout == run("peft-run", "describe", "adapter/lora", "--example").stdout


def test_describe_a_kind(run):
    text = run("peft-run", "describe", "scheduler").stdout
    assert "scheduler/linear\n" in text and "scheduler/cosine\n" in text and "optimizer/" not in text
    assert "[adapter]\n" in run("peft-run", "describe", "adapter").stdout
