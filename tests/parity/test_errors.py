"""Invalid input: the documented exit code, a message that says what is wrong, where, and what would be right, and no file written or
changed."""

import json
import os
import re
import shutil

import pytest
from tiny_llama import save_llama

EXPERIMENT = """[model]
path = "{model}"
[data]
train = "{train}"
[adapter]
name = "lora"
[training]
output_dir = "out"
max_steps = 1
"""


@pytest.fixture
def folder(tmp_path):
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    return tmp_path


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refused(run, folder, code, *parts, model="model", train="train.jsonl", sets=()):
    """Training ends with `code`, its message holds all `parts`, and nothing was written."""
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model=model, train=train))
    before = snapshot(folder)
    arguments = [word for assignment in sets for word in ("--set", assignment)]
    done = run("peft-run", folder / "experiment.toml", *arguments, code=code)
    for part in parts:
        assert part in done.stderr, done.stderr
    assert snapshot(folder) == before
    assert "\x1b" not in done.stderr


def test_valid_experiment_trains(run, folder):
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model="model", train="train.jsonl"))
    run("peft-run", folder / "experiment.toml")
    assert (folder / "out" / "adapter_model.safetensors").exists()


def test_existing_adapter_is_not_overwritten(run, folder):
    (folder / "out").mkdir()
    (folder / "out" / "adapter_model.safetensors").write_text("precious")
    refused(run, folder, 2, "output_dir", "already holds an adapter", "overwrite_output_dir")


@pytest.mark.parametrize(
    "name,content,parts",
    [
        ("absent.jsonl", None, ["absent.jsonl", "there is no such data file"]),
        ("broken.jsonl", '{"text": "one"}\n{"text": "two"\n', ["broken.jsonl:2", "not JSON"]),
        ("fields.jsonl", '{"text": "one"}\n{"test": "two"}\n', ["fields.jsonl:2", "'test'", "'text'"]),
        ("type.jsonl", '{"text": 5}\n', ["type.jsonl:1", "'text'", "must be a string"]),
        ("twice.jsonl", '{"text": "a", "text": "b"}\n', ["twice.jsonl:1", "twice"]),
        ("empty.jsonl", "", ["empty.jsonl"]),
        ("utf8.jsonl", b'{"text": "\xff"}\n', ["utf8.jsonl:1"]),
        ("utf16.jsonl", '{"text": "a"}\n'.encode("utf-16"), ["utf16.jsonl", "UTF-16", "iconv"]),
        ("latin.jsonl", '{"text": "é"}\n'.encode("latin-1"), ["latin.jsonl:1", "not UTF-8 (at column 11)", "iconv"]),
        ("cr.jsonl", b'{"text": "a"}\r{"text": "b"}\r', ["cr.jsonl", "CR alone"]),
        ("nan.jsonl", '{"text": "a", "score": NaN}\n', ["nan.jsonl:1", "no NaN"]),
        ("pretty.jsonl", json.dumps({"text": "a"}, indent=2), ["pretty.jsonl:1", "spans several lines"]),
        ("data.json", json.dumps({"data": [{"text": "a"}]}, indent=2), ["data.json:1", "in the list 'data'"]),
        ("table.csv", "a,b\n", ["table.csv", ".json or .jsonl"]),
    ],
)
def test_data(run, folder, name, content, parts):
    if content is not None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(run, folder, 3, *parts, train=name)


def test_pattern_of_data_files(run, folder):
    refused(run, folder, 2, "[data] 'train' contains a wildcard, but wildcards are not expanded", train="*.jsonl")


def test_missing_model(run, folder):
    refused(run, folder, 3, "nowhere", model="nowhere")
    (folder / "hollow").mkdir()
    refused(run, folder, 3, "config.json", model="hollow")


@pytest.mark.parametrize("keep", [0, 5, 8, 100, -1])
def test_truncated_safetensors(run, folder, keep):
    file = folder / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(run, folder, 3, "model.safetensors")


def test_safetensors_of_another_model(run, folder):
    save_llama(folder / "model", num_hidden_layers=3)
    config = json.loads((folder / "model" / "config.json").read_text())
    (folder / "model" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    refused(run, folder, 3, "unexpected", "model.layers.2.")
    (folder / "model" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    refused(run, folder, 3, "missing", "model.layers.3.")
    (folder / "model" / "config.json").write_text(json.dumps(config | {"intermediate_size": 63}))
    refused(run, folder, 3, "has shape", "63")


def test_config_that_is_not_implemented(run, folder):
    config = json.loads((folder / "model" / "config.json").read_text())
    for change, part in (({"hidden_act": "gelu"}, "hidden_act"), ({"model_type": "mamba"}, "mamba")):
        (folder / "model" / "config.json").write_text(json.dumps(config | change))
        refused(run, folder, 3, "config.json", part)


def test_names_are_escaped_in_messages(run, folder):
    (folder / "model" / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"x": "\x1b[31mred.safetensors"}}
    (folder / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(run, folder, 3, "red.safetensors")


def test_folder_name_that_toml_cannot_hold(run, folder):
    """Refused if resolved.toml would have to contain the name; accepted on the command line."""
    odd = folder / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    (odd / "experiment.toml").write_text(EXPERIMENT.format(model=folder / "model", train=folder / "train.jsonl"))
    printed = run("peft-run", odd / "experiment.toml", code=2).stderr
    assert "a folder whose name is not UTF-8" in printed and "caf\\xe9" in printed and not (odd / "out").exists()
    test_valid_experiment_trains(run, folder)
    shutil.copytree(folder / "model", odd / "model")
    of = ["--model", odd / "model", "--adapter", folder / "out"]
    run("peft-run", "export", "--as", "lora", *of, "--output", odd / "lora")
    config = json.loads((odd / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"{folder}/caf\ufffd/model"


def test_path_with_nul(run, folder):
    """The system would open what the part before it names."""
    for key in ("model.path", "data.train", "data.eval", "training.output_dir", "plugins.paths", "adapter.init_from"):
        table = key.partition(".")[0]
        refused(run, folder, 2, f"[{table}] ", "contains a NUL character", sets=[f'{key}="model\\u0000x"'])


def test_empty_words(run, folder):
    """An empty word is a mistake of the command line or names no file, never an internal error."""
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model="model", train="train.jsonl"))
    for code, *words in ((2, "list", "--plugin-path", ""), (2, "describe", "--plugin-path", ""), (2, ""),
                         (3, "generate", "--model", "", "--prompt", "x"), (2, "plan", ""),
                         (3, "merge", "--model", folder / "model", "--adapter", "", "--output", folder / "merged"),
                         (2, folder / "experiment.toml", "--set", ""), (2, "describe", "/")):
        assert "internal error" not in run("peft-run", *words, code=code).stderr
    assert "--plugin-path must name a folder" in run("peft-run", "list", "--plugin-path", "", code=2).stderr


def test_numbers_beyond_what_fp32_holds(run, folder):
    refused(run, folder, 2, "'lora_alpha' must be a number, not one beyond 1e30", sets=["adapter.lora_alpha=1e308"])
    test_valid_experiment_trains(run, folder)
    config = folder / "out" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 1e308}))
    of = ["--model", folder / "model", "--adapter", folder / "out", "--output", folder / "merged"]
    assert "'lora_alpha' must be a number, not one beyond 1e30" in run("peft-run", "merge", *of, code=3).stderr


def test_plan_counts_a_billion_steps(run, folder):
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model="model", train="train.jsonl"))
    printed = run("peft-run", "plan", folder / "experiment.toml", "--set", "training.max_steps=1000000000", timeout=60).stdout
    steps = next(line for line in printed.splitlines() if line.startswith("steps: "))
    one = run("peft-run", "plan", folder / "experiment.toml").stdout
    (tokens,) = re.findall(r"^steps: 1, ([\d,]+) tokens, ([\d,]+) target", one, re.MULTILINE)
    assert steps.startswith(f"steps: 1000000000, about {tokens[0]},000,000,000 tokens, {tokens[1]},000,000,000 target tokens")
    refused(run, folder, 2, "'max_steps' must be at most 1e12", sets=["training.max_steps=9223372036854775807"])


def test_experiment_after_resume(run, folder):
    """What follows --resume is a folder or the experiment, which need not be named .toml."""
    for name in ("experiment.toml", "experiment.conf"):
        (folder / name).write_text(EXPERIMENT.format(model="model", train="train.jsonl"))
        shutil.rmtree(folder / "out", ignore_errors=True)
        assert "starting from scratch" in run("peft-run", "--resume", folder / name).stdout


def test_patterns_without_match(run, folder):
    refused(run, folder, 2, "target_modules", "quack_proj", "q_proj", sets=['adapter.target_modules=["quack_proj"]'])


@pytest.mark.parametrize("kind", ["adapter", "optimizer", "scheduler", "clipping", "precision", "objective"])
def test_unknown_plugin(run, folder, kind):
    refused(run, folder, 4, kind, "nonesuch", sets=[f'{kind}.name="nonesuch"'])


def test_misspelled_plugin(run, folder):
    refused(run, folder, 4, "'lorra' of kind adapter", "did you mean 'lora'?", sets=['adapter.name="lorra"'])


def test_plugin_of_another_abi(run, folder, bin_dir):
    """A copy of a valid plugin whose record says that it was built for another libtorch."""
    good = (bin_dir.parent / "lib" / "peft" / "plugins" / "peft_adapter_lora.so").read_bytes()
    at = good.index(b"peft plugin 1\0peft ABI ")
    version = good.index(b"libtorch ", at) + len(b"libtorch ")
    plugins = folder / "plugins"
    plugins.mkdir(mode=0o755)
    other = plugins / "peft_adapter_lora.so"
    other.write_bytes(good[:version] + b"9" + good[version + 1 :])
    other.chmod(0o755)
    refused(run, folder, 4, str(other), "libtorch 9", sets=[f'plugins.paths=["{plugins}"]'])


def test_plateau_schedule_needs_evaluations(run, folder):
    follows = "scheduler.name=reduce_on_plateau"
    refused(run, folder, 2, "follows the evaluation loss", "data.eval_split", sets=[follows])
    refused(run, folder, 2, "training.eval_every", sets=[follows, "data.eval=train.jsonl"])


def test_evaluation_options_need_data(run, folder):
    """Each option that has no meaning without evaluation data, which is all that is missing."""
    wanted = "needs evaluation data: [data] eval or eval_split"
    refused(run, folder, 2, f"'eval_every' {wanted}", sets=["training.eval_every=1"])
    best = ["training.load_best_model_at_end=true", "training.eval_every=1", "training.save_every=1"]
    refused(run, folder, 2, f"'load_best_model_at_end' {wanted}", f"'eval_every' {wanted}", sets=best)
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model="model", train="train.jsonl"))
    given = ["training.eval_every=1", f"data.eval={folder / 'train.jsonl'}"]
    run("peft-run", folder / "experiment.toml", *(word for each in given for word in ("--set", each)))


def test_data_that_teaches_something_else_is_reported(run, folder):
    """Examples that are truncated, skipped, empty or longer than the model's positions: by plan, training and eval."""
    words = {"short": "a", "long": "b" * 200}  # of 128 positions, one token each
    lines = [{"prompt": "p", "completion": words["short"]}] * 8 + [{"prompt": "p", "completion": ""}] * 2
    lines += [{"prompt": "p", "completion": words["long"]}] * 2 + [{"prompt": "q" * 300, "completion": "x"}] * 3
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:8]))
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model="model", train="train.jsonl"))

    def warnings(*arguments):
        done = run("peft-run", *arguments)
        return [line.removeprefix("warning: ") for line in done.stderr.splitlines() if line.startswith("warning: ")], done.stdout

    limits = {
        250: ["data: 3 of 15 examples are truncated: their ends are not learned; raise max_length or split them",
              "data: 3 of 15 examples are skipped: they have no target tokens within max_length",
              "data: 2 answers are empty: the model learns to end at once; remove such records, or give the message weight 0",
              "data: 2 of 12 examples are longer than the 128 positions that the model was pretrained for "
              "(max_position_embeddings); lower max_length to 128"],
        400: ["data: 2 answers are empty: the model learns to end at once; remove such records, or give the message weight 0",
              "data: 5 of 15 examples are longer than the 128 positions that the model was pretrained for "
              "(max_position_embeddings); lower max_length to 128"],
    }
    for max_length, expected in limits.items():
        sets = ["--set", f"data.max_length={max_length}", "--set", "training.overwrite_output_dir=true"]
        for command in (["plan"], []):
            said, printed = warnings(*command, folder / "experiment.toml", *sets)
            assert said == expected
            assert "; 2 empty answers" in printed
        said, printed = warnings("eval", "--model", folder / "model", "--adapter", folder / "out", "--data", folder / "train.jsonl",
                                 "--max-length", max_length)
        assert said == expected
    held = ["--set", "data.max_length=400", "--set", f"data.train={folder / 'few.jsonl'}",
            "--set", f"data.eval={folder / 'train.jsonl'}"]
    said, _ = warnings("plan", folder / "experiment.toml", *held)
    assert said == [line.replace("data:", "eval:") for line in limits[400]]
    assert warnings("plan", folder / "experiment.toml", "--set", f"data.train={folder / 'few.jsonl'}")[0] == []


def test_diverged(run, folder):
    """If the loss is NaN, the exit code is 6 and no adapter is written."""
    (folder / "experiment.toml").write_text(EXPERIMENT.format(model="model", train="train.jsonl"))
    done = run("peft-run", folder / "experiment.toml", "--set", "optimizer.lr=1e30", "--set", "training.max_steps=5",
               "--set", "training.max_nonfinite_steps=0", code=6)
    assert "step 2: the loss is nan" in done.stderr
    assert not (folder / "out" / "adapter_model.safetensors").exists()
