"""A broken or forged model, tokenizer, data set, adapter or experiment: the documented exit code within a minute and a gigabyte,
never a signal; one message that names the file and the problem, without control characters; nothing written. Valid input is
accepted."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys

import pytest
from figures import count
from hostile_files import EXPERIMENT, Gguf, Safetensors, change_json, fifo, loop, put_experiment, replace, set_json
from method_support import train
from tiny_llama import save_llama

TRAIN = ["experiment.toml"]
ADAPTED = ["generate", "--model", "model", "--adapter", "adapter", "--raw", "--prompt", "a", "--max-new-tokens", "2"]
FROM_GGUF = ["generate", "--model", "model.gguf", "--raw", "--prompt", "ab", "--max-new-tokens", "2"]
CASES = []


def case(name, file, *parts, code=3, command=TRAIN):
    """Registers a function that corrupts a folder; the message must contain `file` and `parts`."""

    def register(breaking):
        CASES.append(pytest.param(breaking, command, code, (file, *parts), id=name))
        return breaking

    return register


def cases(command, code, broken):
    """Registers many cases of one line each: name → (file, parts of the message, function that corrupts the folder)."""
    for name, (file, parts, breaking) in broken.items():
        case(name, file, *parts, code=code, command=command)(breaking)


@pytest.fixture(scope="module")
def valid(run, tmp_path_factory):
    """A model in one file and in shards, an adapter of it, a GGUF file, data and an experiment."""
    folder = tmp_path_factory.mktemp("valid")
    save_llama(folder / "model")
    shutil.copytree(train(run, folder, "lora", {"target_modules": ["q_proj"], "r": 2})[0], folder / "adapter")
    for left in ("run", "run.toml"):
        (shutil.rmtree if left == "run" else os.remove)(folder / left)
    save_llama(folder / "shards", shard="40KB")
    (folder / "model.gguf").write_bytes(Gguf().bytes())
    put_experiment(folder)
    return folder


@pytest.fixture
def folder(valid, tmp_path):
    return shutil.copytree(valid, tmp_path / "case")


def snapshot(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


#: Runs a command and writes how it ended. By way of a small process, as what is started begins with its parent's peak.
MEASURE = """import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
open(sys.argv[1], "w").write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss >> 10}")
"""


def ended(bin_dir, folder, command):
    """Exit code (negative: a signal), standard error as bytes, and peak memory in MiB."""
    printed, figures = folder.parent / "stderr", folder.parent / "figures"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", MEASURE, figures, bin_dir / "peft-run", *command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=printed.open("wb"),
        start_new_session=True,
    )
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    code, memory = map(int, figures.read_text().split())
    return code, printed.read_bytes(), memory


@pytest.mark.parametrize("command", [TRAIN, ADAPTED, FROM_GGUF], ids=["train", "adapter", "gguf"])
def test_valid_input_is_accepted(bin_dir, folder, command):
    code, printed, _ = ended(bin_dir, folder, command)
    assert code == 0, printed.decode()


def test_valid_shards_are_accepted(bin_dir, folder):
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    code, printed, _ = ended(bin_dir, folder, ["generate", "--model", "shards", *ADAPTED[3:]])
    assert code == 0, printed.decode()


# The weights of a model


def model(folder):
    return Safetensors(folder / "model" / "model.safetensors")


def in_header(change, **how):
    """Changes the header of the model's weights."""

    def breaking(folder):
        file = model(folder)
        change(file)
        file.write(**how)

    return breaking


def twice(file):
    """The header contains the first tensor twice."""
    text = json.dumps(file.header)
    name = file.names[0]
    file.write(text=(text[:-1] + f", {json.dumps(name)}: {json.dumps(file.header[name])}}}").encode())


def overlapping(file):
    for which in (0, 1):
        file.entry(which).update(dtype="U8", shape=[32], data_offsets=[16 * which, 16 * which + 32])


def moved(file):
    for name in file.names[1:]:
        file.header[name]["data_offsets"] = [offset + 4 for offset in file.header[name]["data_offsets"]]
    file.body += b"\0" * 4


def retyped(dtype):
    return in_header(lambda file: file.entry().update(dtype=dtype))


WEIGHTS = "model.safetensors"
cases(
    TRAIN,
    3,
    {
        "weights_empty": (WEIGHTS, ["is empty"], lambda f: (f / "model" / WEIGHTS).write_bytes(b"")),
        "weights_short": (WEIGHTS, ["too short"], lambda f: (f / "model" / WEIGHTS).write_bytes(b"1234")),
        "weights_header_huge": (WEIGHTS, ["more than the format allows"], in_header(lambda file: None, length=2**63)),
        "weights_header_cut": (WEIGHTS, ["truncated inside its header"], in_header(lambda file: None, length=99_999_999)),
        "weights_not_json": (WEIGHTS, ["header:1:", "not JSON"], in_header(lambda file: None, text=b"{]")),
        "weights_header_space": (WEIGHTS, ["does not start with '{'"], in_header(lambda file: None, text=b" {}")),
        "weights_cut": (WEIGHTS, ["truncated"], in_header(lambda file: setattr(file, "body", file.body[:-1]))),
        "weights_longer": (WEIGHTS, ["after the last tensor"], in_header(lambda file: setattr(file, "body", file.body + b"x"))),
        "weights_hole": (WEIGHTS, ["there is a gap"], in_header(moved)),
        "weights_overlap": (WEIGHTS, ["overlaps"], in_header(overlapping)),
        "weights_overflow": (WEIGHTS, ["more than 2^63 bytes"], in_header(lambda file: file.entry().update(shape=[2**40, 2**40]))),
        "weights_negative": (WEIGHTS, ["list of sizes"], in_header(lambda file: file.entry().update(shape=[-1]))),
        "weights_span": (WEIGHTS, ["its shape needs"], in_header(lambda file: file.entry()["shape"].append(2))),
        "weights_type": (WEIGHTS, ["F8_E4M3", "unsupported dtype"], retyped("F8_E4M3")),
        "weights_integers": ("model", ["of integers"], retyped("I32")),
        "weights_nan": ("model", ["NaN or infinity"], in_header(lambda file: file.fill(float("nan")))),
        "weights_infinite": ("model", ["NaN or infinity"], in_header(lambda file: file.fill(float("-inf"), -1))),
        "weights_renamed": (
            "model",
            ["missing: ", "unexpected: evil\\x1b[31m\\x0aname"],
            in_header(lambda file: file.header.update({"evil\x1b[31m\nname": file.header.pop(file.names[0])})),
        ),
        "weights_twice": (WEIGHTS, ["appears twice"], lambda f: twice(model(f))),
        "weights_fifo": (WEIGHTS, ["not a regular file"], lambda f: fifo(f / "model" / WEIGHTS)),
        "weights_folder": (WEIGHTS, ["not a regular file"], lambda f: replace(f / "model" / WEIGHTS, lambda path: path.mkdir())),
        "weights_loop": (WEIGHTS, ["cannot open"], lambda f: loop(f / "model" / WEIGHTS)),
        "weights_pickled": ("model", ["pickles"], lambda f: (f / "model" / WEIGHTS).rename(f / "model" / "pytorch_model.bin")),
    },
)


@case("weights_after_nul", WEIGHTS, "not JSON")
def _(folder):
    file = model(folder)
    file.write(text=json.dumps(file.header).encode() + b"\0\0")


@case("weights_begin_with_mark", WEIGHTS, "does not start with '{'")
def _(folder):
    file = model(folder)
    file.write(text=b"\xef\xbb\xbf" + json.dumps(file.header).encode())


# Shards and their index


def index(change):
    def breaking(folder):
        shutil.rmtree(folder / "model")
        (folder / "shards").rename(folder / "model")
        change_json(folder / "model" / INDEX, change)

    return breaking


def first_shard(name):
    return index(lambda value: value["weight_map"].update({next(iter(value["weight_map"])): name}))


INDEX = "model.safetensors.index.json"
cases(
    TRAIN,
    3,
    {
        "index_up": (INDEX, ["in the folder of the index"], first_shard("../model.safetensors")),
        "index_absolute": (INDEX, ["in the folder of the index"], first_shard("/tmp/model.safetensors")),
        "index_backslash": (INDEX, ["in the folder of the index"], first_shard("..\\model.safetensors")),
        "index_nul": (INDEX, ["a\\x00.safetensors"], first_shard("a\0.safetensors")),
        "index_hidden": (INDEX, ["in the folder of the index"], first_shard(".safetensors")),
        "index_number": (INDEX, ["in the folder of the index"], first_shard(3)),
        "index_escape": (INDEX, ["\\x1b[31mred"], first_shard("\x1b[31mred.safetensors/")),
        "index_absent_shard": ("absent.safetensors", ["cannot open"], first_shard("absent.safetensors")),
        "index_empty": (INDEX, ["has no weight_map"], index(lambda value: value["weight_map"].clear())),
        "index_more": (INDEX, ["is not in"], index(lambda value: value["weight_map"].update(more=list(value["weight_map"].values())[0]))),
        "index_less": (INDEX, ["does not list it there"], index(lambda value: value["weight_map"].popitem())),
    },
)


# config.json and the files next to it


def config(**keys):
    return lambda folder: set_json(folder / "model" / "config.json", **keys)


def text(file, content):
    def breaking(folder):
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return breaking


CONFIG = "config.json"
cases(
    TRAIN,
    3,
    {
        "config_no_heads": (CONFIG, ["num_attention_heads"], config(num_attention_heads=0)),
        "config_negative": (CONFIG, ["hidden_size"], config(hidden_size=-32)),
        "config_fraction": (CONFIG, ["hidden_size"], config(hidden_size=32.5)),
        "config_enormous": (CONFIG, ["vocab_size"], config(vocab_size=2**63)),
        "config_large": ("model", ["has shape"], config(vocab_size=2**31 - 1, intermediate_size=2**31 - 2)),
        "config_head_dim": (CONFIG, ["'head_dim' must be at most 65536"], config(head_dim=2**28)),
        "config_layers": ("model", ["missing: "], config(num_hidden_layers=10000)),
        "config_uneven_heads": (CONFIG, ["num_key_value_heads"], config(num_key_value_heads=3)),
        "config_unknown": (CONFIG, ["unknown key 'attn_logit_softcapping'"], config(attn_logit_softcapping=50.0)),
        "config_quantized": (CONFIG, ["gptq"], config(quantization_config={"quant_method": "gptq"})),
        "config_type": (CONFIG, ["'mam\\x1bba'"], config(model_type="mam\x1bba")),
        "config_array": (CONFIG, ["must be an object"], text("model/config.json", "[1]")),
        "config_cut": (CONFIG, [":1:", "not JSON"], text("model/config.json", '{"model_type": "lla')),
        "config_latin": (CONFIG, ["not JSON"], text("model/config.json", b'{"model_type": "\xe9"}')),
        "config_nan": (CONFIG, ["not JSON"], text("model/config.json", '{"rope_theta": NaN}')),
        "config_marked": (CONFIG, ["byte order mark"], text("model/config.json", "\ufeff{}")),
        "config_twice": (CONFIG, ["'model_type' appears twice"], text("model/config.json", '{"model_type": "a", "model_type": "llama"}')),
        "config_deep": (CONFIG, ["nested deeper"], text("model/config.json", '{"a": ' + "[" * 100_000)),
        "config_wide": (CONFIG, ["JSON with more than 8388608 values"], text("model/config.json", '{"a": [' + "0," * 9_000_000 + "0]}")),
        "config_fifo": (CONFIG, ["not a regular file"], lambda f: fifo(f / "model" / CONFIG)),
        "generation_config": ("generation_config.json", ["must be an object"], text("model/generation_config.json", "3")),
        "eos_text": ("generation_config.json", ["eos_token_id"], text("model/generation_config.json", '{"eos_token_id": "1"}')),
        "eos_many": ("generation_config.json", ["more than 1000 ids"], text("model/generation_config.json", json.dumps({"eos_token_id": list(range(2000))}))),
    },
)


# The tokenizer and the chat template


def tokenizer(change):
    return lambda folder: change_json(folder / "model" / "tokenizer.json", change)


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def backtracking(folder):
    tokenizer(lambda t: t.update(pre_tokenizer=split("((?:.|..)+)+[^a-z]")))(folder)
    (folder / "train.jsonl").write_text(json.dumps({"text": "a" * 100}) + "\n")


def backtracking_everywhere(folder):
    """Each search takes at most as many steps as there are bytes, but there is a search for each byte."""
    tokenizer(lambda t: t.update(pre_tokenizer=split("a*b|a")))(folder)
    (folder / "train.jsonl").write_text(json.dumps({"text": "a" * 300_000}) + "\n")


def many_turns(folder):
    template(b"{% for message in messages %}{{ message.content }}{% endfor %}")(folder)
    turns = [{"role": ("user", "assistant")[i % 2], "content": "a"} for i in range(3000)]
    (folder / "train.jsonl").write_text(json.dumps({"messages": turns}) + "\n")


def template(source, messages=True):
    def breaking(folder):
        (folder / "model" / "chat_template.jinja").write_bytes(source)
        if messages:
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            (folder / "train.jsonl").write_text(json.dumps({"messages": turns}) + "\n")

    return breaking


DOUBLE = {"type": "Replace", "pattern": {"Regex": "."}, "content": "aa"}
cases(
    TRAIN,
    3,
    {
        "tokenizer_absent": ("model", ["has no tokenizer.json"], lambda f: (f / "model" / "tokenizer.json").unlink()),
        "tokenizer_cut": ("tokenizer", ["not JSON"], text("model/tokenizer.json", '{"model": {')),
        "tokenizer_deep": ("tokenizer", ["nested deeper"], text("model/tokenizer.json", "[" * 100_000)),
        "tokenizer_unigram": ("tokenizer", ["Unigram"], tokenizer(lambda t: t["model"].update(type="Unigram"))),
        "tokenizer_same_id": ("tokenizer", ["the same id"], tokenizer(lambda t: t["model"]["vocab"].update(zz=3))),
        "tokenizer_huge_id": ("tokenizer", ["must be an integer"], tokenizer(lambda t: t["model"]["vocab"].update(zz=2**63))),
        "tokenizer_merge": ("tokenizer", ["merges[0]"], tokenizer(lambda t: t["model"]["merges"].append(["q", "nowhere"]))),
        "tokenizer_option": ("tokenizer", ["'ev\\x1bil' is not implemented"], tokenizer(lambda t: t["model"].update({"ev\x1bil": 1}))),
        "tokenizer_added": ("tokenizer", ["has the id 99, expected"], tokenizer(lambda t: t["added_tokens"][0].update(id=99))),
        "tokenizer_regex": ("tokenizer", ["does not compile"], tokenizer(lambda t: t.update(pre_tokenizer=split("a(b")))),
        "tokenizer_long_regex": ("tokenizer", ["'Regex' is longer than 10000 bytes"], tokenizer(lambda t: t.update(pre_tokenizer=split("a|" * 10_000)))),
        "tokenizer_many_specials": ("tokenizer", ["more than 1024 special tokens"], tokenizer(lambda t: t.update(post_processor=many_around()))),
        "tokenizer_backtracks": ("tokenizer", ["gave up"], backtracking),
        "tokenizer_backtracks_everywhere": ("tokenizer", ["gave up"], backtracking_everywhere),
        "tokenizer_long_added": ("tokenizer", ["'content' is longer than 4096 bytes"], tokenizer(lambda t: t["added_tokens"].append(t["added_tokens"][0] | {"id": 258, "content": "a" * 5000}))),
        "tokenizer_doubles": (
            "tokenizer",
            ["256 times longer"],
            tokenizer(lambda t: t.update(normalizer={"type": "Sequence", "normalizers": [DOUBLE] * 40})),
        ),
        "tokenizer_special": (
            "tokenizer",
            ["'x\\x1b' is missing"],
            tokenizer(lambda t: t.update(post_processor=around("x\x1b"))),
        ),
        "tokenizer_beyond_model": ("train.jsonl:1", ["the token id 9999", "has only 258 embedding rows"], tokenizer(lambda t: t["model"]["vocab"].update({BYTE_O: 9999}))),
        # added to the vocabulary, as in transformers
        "eos_absent": ("train.jsonl:1", ["has only 258 embedding rows"], lambda f: set_json(f / "model" / "tokenizer_config.json", eos_token="nowhere")),
        "template_syntax": ("model", ["chat template"], template(b"{% if %}")),
        "template_deep": ("model", ["chat template", "nested deeper"], template(b"{{ " + b"(" * 5000 + b" }}")),
        "template_latin": ("chat_template.jinja", ["is not UTF-8"], template(b"\xe9")),
        "template_endless": (
            "train.jsonl:1",
            ["chat template", "200000 steps"],
            template(b"{% for a in range(1000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}"),
        ),
        "template_set_blocks": ("model", ["chat template", "nested deeper"], template(b"{%set a%}" * 50_000 + b"{%endset%}" * 50_000)),
        "template_cycle": (
            "train.jsonl:1",
            ["chat template", "not supported here", "namespace"],
            template(b"{% set ns = namespace() %}{% set ns.me = [ns] %}{{ ns.me }}"),
        ),
        "template_cycle_json": (
            "train.jsonl:1",
            ["chat template", "not JSON serializable"],
            template(b"{% set ns = namespace() %}{% set ns.me = ns %}{{ ns|tojson }}"),
        ),
        "template_caller": (
            "train.jsonl:1",
            ["chat template", "nested deeper"],
            template(
                b"{% set ns=namespace() %}{% macro m() %}{% set ns.f=caller %}{{ caller() }}{% endmacro %}"
                b"{% call m() %}{{ ns.f() }}{% endcall %}"
            ),
        ),
        "template_deep_value": (
            "train.jsonl:1",
            ["chat template", "nested deeper"],
            template(b"{% set n = namespace(x=[]) %}{% for i in range(100000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}"),
        ),
        "template_repeats": ("train.jsonl:1", ["chat template", "16 MiB"], template(b"{{ 'a' * 99999999999 }}")),
        "template_replaces": (
            "train.jsonl:1",
            ["chat template", "16 MiB"],
            template(b"{{ 'a'" + b"|replace('a', '" + b"a" * 1000 + b"')" + b"|replace('a', 'b' * 1000)|replace('b', 'c' * 1000) }}"),
        ),
        "template_long": (
            "train.jsonl:1",
            ["chat template", "256 MiB"],
            template(b"{% set a = 'a' * 100000 %}{% for i in range(190000) %}{{ a }}{% endfor %}"),
        ),
        "template_works": (
            "train.jsonl:1",
            ["chat template", "16 GiB"],
            template(b"{% set a = 'a' * 9000000 %}{% for i in range(190000) %}{{ a|tojson|length }}{% endfor %}"),
        ),
        "template_raises": ("train.jsonl:1", ["chat template", "no\\x1b"], template(b"{{ raise_exception('no\x1b') }}")),
    },
)
BYTE_O = "o"  # of the data's first word


def around(token):
    """A post-processor that prepends a token that it does not define."""
    single = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {}}


def many_around():
    """A post-processor that prepends a few tokens a thousand times."""
    special = {"x": {"id": "x", "ids": [0] * 20, "tokens": ["x"] * 20}}
    single = [{"SpecialToken": {"id": "x", "type_id": 0}}] * 1000 + [{"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


# Data


def data(content):
    return text("train.jsonl", content)


cases(
    TRAIN,
    3,
    {
        "data_cut": ("train.jsonl:2", ["not JSON"], data('{"text": "a"}\n{"text": "b"')),
        "data_after_nul": ("train.jsonl:1", ["not JSON"], data('{"text": "a"}\0{"text": "b"}\n')),
        "data_mark_within": ("train.jsonl:2", ["byte order mark"], data('{"text": "a"}\n\ufeff{"text": "b"}\n')),
        "data_deep": ("train.jsonl:1", ["nested deeper"], data('{"text": ' + "[" * 100_000 + "\n")),
        "data_array_open": ("train.jsonl:2", ["the array is not closed"], data('[{"text": "a"},\n{"text": "b"}')),
        "data_half_character": ("train.jsonl:1", ["not JSON"], data('{"text": "\\ud800"}\n')),
        "data_number": ("train.jsonl:1", ["must be an object"], data("5\n")),
        "data_commas": ("train.jsonl:1", ["not JSON"], data("[" + "," * 60_000_000 + "]")),
        "data_numbers": ("train.jsonl:1", ["must be an object"], data("0\n" * 60_000_000)),
        "data_turns": ("train.jsonl:1", ["1500 answers in a conversation of 3000 messages"], many_turns),
        "data_key": ("train.jsonl:1", ["'\\x1b[31m'"], data('{"\\u001b[31m": "a"}\n')),
        "data_role": ("train.jsonl:1", ["'\\x1broot'"], data('{"messages": [{"role": "\\u001broot", "content": "a"}]}\n')),
        "data_fifo": ("train.jsonl", ["there is no such data file"], lambda f: fifo(f / "train.jsonl")),
        "data_blank": ("train.jsonl", ["is empty"], data(" \n\t\n")),
        "data_says_nothing": ("train.jsonl", ["no example has target tokens"], data('{"text": ""}\n')),
    },
)


# GGUF


def gguf(change):
    def breaking(folder):
        file = Gguf()
        change(file)
        (folder / "model.gguf").write_bytes(file.bytes())

    return breaking


def repetitive(file):
    """Each token can be merged from others in every possible way."""
    tokens = ["<u>", *("a" * length for length in range(1, 1000))]
    file.pairs = [pair for pair in file.pairs if pair[0] != "tokenizer.ggml.merges"]
    file.put(Gguf.text("tokenizer.ggml.model", "llama"))
    file.put(Gguf.texts("tokenizer.ggml.tokens", tokens))
    file.put(("tokenizer.ggml.scores", Gguf.ARRAY, struct.pack("<IQ", 6, len(tokens)) + struct.pack(f"<{len(tokens)}f", *[0] * len(tokens))))


def gguf_bytes(change):
    return lambda folder: (folder / "model.gguf").write_bytes(change(Gguf().bytes()))


def tensor(which, **fields):
    places = {"name": 0, "sizes": 1, "type": 2, "offset": 3}

    def change(file):
        for field, value in fields.items():
            file.tensors[which][places[field]] = value

    return gguf(change)


def drop_tensor(file):
    """Removes the last tensor with its bytes."""
    file.data = file.data[: file.tensors.pop()[3]]


def pair(key, kind, value):
    return gguf(lambda file: file.put((key, kind, value)))


HUGE = struct.pack("<Q", 2**60)
GGUF = {
    "gguf_magic": (["not a GGUF file"], gguf(lambda file: setattr(file, "magic", b"GGML"))),
    "gguf_version": (["GGUF version 4"], gguf(lambda file: setattr(file, "version", 4))),
    "gguf_big_endian": (["big-endian"], gguf(lambda file: setattr(file, "version", 3 << 24))),
    "gguf_header_only": (["truncated"], gguf_bytes(lambda data: data[:8])),
    "gguf_half": (["truncated"], gguf_bytes(lambda data: data[: len(data) // 2])),
    "gguf_last_byte": (["does not fit"], gguf_bytes(lambda data: data[:-1])),
    "gguf_more_bytes": (["1 bytes after"], gguf_bytes(lambda data: data + b"\0")),
    "gguf_tensors": (["the header declares", "tensors; the limit"], gguf(lambda file: setattr(file, "more_tensors", 2**60))),
    "gguf_one_tensor_more": (["the name of tensor 11 "], gguf(lambda file: setattr(file, "more_tensors", 1))),
    "gguf_pairs": (["the header declares", "key/value pairs; the limit"], gguf(lambda file: setattr(file, "more_pairs", 2**60))),
    "gguf_pair_twice": (["appears twice"], gguf(lambda file: file.pairs.append(file.pairs[1]))),
    "gguf_long_text": (["needs 1152921504606846976 bytes"], pair("general.name", 8, HUGE)),
    "gguf_long_array": (["all arrays together"], pair("general.tags", 9, struct.pack("<I", 8) + HUGE)),
    "gguf_nested_array": (["array of arrays"], pair("general.tags", 9, struct.pack("<IQ", 9, 1) + b"\0" * 12)),
    "gguf_kind": (["unknown type 99"], pair("general.tags", 99, b"")),
    "gguf_latin": (["is not UTF-8", "\\xff"], pair("general.name", 8, Gguf.string(b"\xff\x1b"))),
    "gguf_alignment": (["power of two"], pair("general.alignment", 4, struct.pack("<I", 0))),
    "gguf_architecture": (["'mam\\x1bba'"], pair("general.architecture", 8, Gguf.string("mam\x1bba"))),
    "gguf_heads": (["llama.attention.head_count"], pair("llama.attention.head_count", 4, struct.pack("<I", 0))),
    "gguf_experts": (["mixtures of experts"], pair("llama.expert_count", 4, struct.pack("<I", 8))),
    "gguf_scaling": (["not implemented"], pair("llama.rope.scaling.type", 8, Gguf.string("odd\n"))),
    "gguf_no_vocabulary": (["tokenizer.ggml.model"], gguf(lambda file: file.pairs.__delitem__(8))),
    "gguf_token_twice": (["'a' appears twice"], gguf(lambda file: file.put(Gguf.texts("tokenizer.ggml.tokens", ["a", "a", "b", "c"])))),
    "gguf_long_token": (["has 5000 bytes"], gguf(lambda file: file.put(Gguf.texts("tokenizer.ggml.tokens", ["a" * 5000, "b", "ab", "c"])))),
    "gguf_many_merges": (["too many possible merges"], gguf(repetitive)),
    "gguf_shape": (["larger than the file"], tensor(0, sizes=[2**33, 2**33])),
    "gguf_shape_wraps": (["larger than the file"], tensor(0, sizes=[2**62, 2**62, 16])),
    "gguf_no_elements": (["of size 0"], tensor(0, sizes=[0, 4])),
    "gguf_dimensions": (["5 dimensions"], tensor(0, sizes=[1, 1, 1, 1, 8])),
    "gguf_type": (["Q2_K"], tensor(0, type=10)),
    "gguf_type_unknown": (["unknown (77)"], tensor(0, type=77)),
    "gguf_blocks": (["not a multiple of the block size"], tensor(0, type=8)),
    "gguf_offset": (["does not fit"], tensor(0, offset=2**63)),
    "gguf_offset_wraps": (["does not fit"], tensor(0, offset=2**64 - 32)),
    "gguf_offset_odd": (["multiple of the alignment"], tensor(0, offset=4)),
    "gguf_overlap": (["overlaps"], tensor(1, offset=0)),
    "gguf_tensor_twice": (["appears twice"], tensor(1, name="token_embd.weight")),
    "gguf_tensor_name": (["'blk.7.\\x1b[0m'"], tensor(1, name="blk.7.\x1b[0m")),
    "gguf_missing": (["missing: model.layers.0"], gguf(lambda file: drop_tensor(file))),
    "gguf_transposed": (["has shape"], tensor(8, sizes=[32, 8])),
}
cases(FROM_GGUF, 3, {name: ("model.gguf", parts, breaking) for name, (parts, breaking) in GGUF.items()})


@case("gguf_hole", "model.gguf", "there is a gap", command=FROM_GGUF)
def _(folder):
    file = Gguf()
    for entry in file.tensors[1:]:
        entry[3] += 32
    file.data = file.data[:128] + b"\0" * 32 + file.data[128:]
    (folder / "model.gguf").write_bytes(file.bytes())


# Adapters


def adapter(**keys):
    return lambda folder: set_json(folder / "adapter" / "adapter_config.json", **keys)


def adapter_weights(change, **how):
    def breaking(folder):
        file = Safetensors(folder / "adapter" / "adapter_model.safetensors")
        change(file)
        file.write(**how)

    return breaking


def tensors_of(file):
    return [entry for name, entry in file.header.items() if name != "__metadata__"]


def as_integers(file):
    for entry in tensors_of(file):
        entry["dtype"] = "I32"


def empty(file, shape, count):
    """Appends tensors without elements."""
    end = max(entry["data_offsets"][1] for entry in tensors_of(file))
    for number in range(count):
        file.header[f"more{number}"] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end]}


ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
cases(
    ADAPTED,
    3,
    {
        "adapter_type": (ADAPTER, ["is not a plugin's name", "../"], adapter(peft_type="../../EVIL\n")),
        "adapter_no_type": (ADAPTER, ["has no 'peft_type'"], adapter(peft_type=None)),
        "adapter_unknown": (ADAPTER, ["unknown key 'use_magic'"], adapter(use_magic=True)),
        "adapter_key": (ADAPTER, ["'\\x1b[31m'"], adapter(**{"\x1b[31m": True})),
        "adapter_rank_none": (ADAPTER, ["'r' must be positive"], adapter(r=0)),
        "adapter_rank_text": (ADAPTER, ["'r' must be an integer"], adapter(r="2")),
        "adapter_rank_huge": (ADAPTER, ["beyond 64 bits"], adapter(r=2**64 - 1)),
        "adapter_rank_other": (ADAPTER_WEIGHTS, ["does not fit"], adapter(r=4)),
        "adapter_rank_large": (ADAPTER, ["'r' must be at most 65536"], adapter(r=2**24)),
        "adapter_rank_of_module": (ADAPTER, ["'rank_pattern' must contain ranks of at most 65536"], adapter(rank_pattern={"q_proj": 2**62})),
        "adapter_many_targets": (ADAPTER, ["and 99950 more"], adapter(target_modules=[f"n{i}" for i in range(100_000)])),
        "adapter_many_layers": (ADAPTER, ["no target is in layer 100", "and 99950 more"], adapter(layers_to_transform=list(range(100, 100_100)))),
        "adapter_deep": (ADAPTER, ["nested deeper"], adapter(target_modules=json.loads("[" * 40 + "]" * 40))),
        "adapter_matches_nothing": (ADAPTER, ["nowhere"], adapter(target_modules=["nowhere"])),
        "adapter_backtracks": (ADAPTER, ["gave up"], adapter(target_modules="(([a-z._]|[a-z0-9._])*)*[A-Z]")),
        "adapter_many_keys": (ADAPTER, ["and 99950 more"], adapter(**{f"key{i}": 1 for i in range(100_000)})),
        "adapter_twice": (ADAPTER, ["'r' appears twice"], text("adapter/" + ADAPTER, '{"peft_type": "LORA", "r": 2, "r": 4}')),
        "adapter_cut": (ADAPTER, ["not JSON"], text("adapter/" + ADAPTER, '{"peft_type": "LO')),
        "adapter_absent": (ADAPTER, ["cannot be opened"], lambda f: (f / "adapter" / ADAPTER).unlink()),
        "adapter_weights_absent": (ADAPTER_WEIGHTS, ["cannot open"], lambda f: (f / "adapter" / ADAPTER_WEIGHTS).unlink()),
        "adapter_missing": (ADAPTER_WEIGHTS, ["missing"], adapter_weights(lambda file: drop_last(file))),
        "adapter_unexpected": (ADAPTER_WEIGHTS, ["unexpected", "\\x1b"], adapter_weights(lambda file: rename(file, "x\x1b"))),
        "adapter_nan": (ADAPTER_WEIGHTS, ["holds NaN or infinity"], adapter_weights(lambda file: file.fill(float("nan")))),
        "adapter_integers": (ADAPTER_WEIGHTS, ["lora_A.weight has dtype Int, expected a floating-point dtype"], adapter_weights(as_integers)),
        "adapter_empty_shape": (ADAPTER_WEIGHTS, ["more than 2^63 bytes"], adapter_weights(lambda file: empty(file, [0, 2**62, 2**62], 1))),
        "adapter_many_tensors": (ADAPTER_WEIGHTS, ["unexpected: more", "and 99950 more"], adapter_weights(lambda file: empty(file, [0], 100_000))),
        "adapter_shape": (ADAPTER_WEIGHTS, ["does not fit"], adapter_weights(lambda file: file.entry()["shape"].reverse())),
        "adapter_weights_cut": (ADAPTER_WEIGHTS, ["truncated"], adapter_weights(lambda file: setattr(file, "body", file.body[:-4]))),
        "adapter_other_base": (ADAPTER_WEIGHTS, ["another base", "\\x1b"], adapter_weights(lambda file: rebase(file, "\x1b0"))),
    },
)


def rename(file, name):
    file.header[name] = file.header.pop(file.names[0])


def rebase(file, fingerprint):
    file.header["__metadata__"]["base_fingerprint"] = fingerprint


def drop_last(file):
    last = max(file.names, key=lambda name: file.header[name]["data_offsets"])
    file.body = file.body[: file.header.pop(last)["data_offsets"][0]]


# Experiments


def experiment(line):
    return lambda folder: (folder / "experiment.toml").write_bytes(EXPERIMENT.encode() + line)


TOML = {
    "toml_latin": (["not TOML"], experiment(b'[x]\ny = "\xe9"\n')),
    "toml_nul": (["not TOML"], experiment(b"[x]\ny = 1\0\n")),
    "toml_twice": (["not TOML"], experiment(b"batch_size = 1\nbatch_size = 2\n")),
    "toml_open": (["not TOML"], experiment(b'[x]\ny = "open\n')),
    "toml_deep_value": (["nested deeper than 100"], experiment(b"y = " + b"[" * 100_000)),
    "toml_deep_key": (["nested deeper than 100"], experiment(b"[" + b"a." * 100_000 + b"a]\n")),
    "toml_key": (["'\\x1b[31m'"], experiment(b'"\\u001b[31m" = 1\n')),
    "toml_table": (["unknown table [traning]"], experiment(b"[traning]\n")),
    "toml_type": (["'batch_size' must be an integer"], experiment(b'batch_size = "1"\n')),
    "toml_range": (["'batch_size'"], experiment(b"batch_size = -1\n")),
    "toml_number": (["not TOML"], experiment(b"batch_size = 9223372036854775808\n")),
    "toml_fifo": (["not a regular file"], lambda f: fifo(f / "experiment.toml")),
    "toml_folder": (["not a regular file"], lambda f: replace(f / "experiment.toml", lambda path: path.mkdir())),
}
cases(TRAIN, 2, {name: ("experiment.toml", parts, breaking) for name, (parts, breaking) in TOML.items()})
cases(
    TRAIN,
    4,
    {"toml_plugins": ("no plugin 'absent'", ["x\\x1b[31m"], experiment(b'[plugins]\npaths = ["x\\u001b[31m"]\n[optimizer]\nname = "absent"\n'))},
)


@pytest.mark.parametrize("breaking,command,code,parts", CASES)
def test_malformed_input_is_refused(bin_dir, folder, breaking, command, code, parts):
    breaking(folder)
    before = snapshot(folder)
    got, printed, memory = ended(bin_dir, folder, command)
    assert got == code, printed[-2000:]
    message = printed.decode()  # UTF-8
    for part in parts:
        assert part in message, message[-2000:]
    assert not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in message), "a control character"
    assert len(message) < 100_000
    assert memory < 1024, f"{memory} MiB"
    assert snapshot(folder) == before, "something was written"
    count("inputs refused as expected: corrupt, truncated or forged")
