"""Every file from which transformers' AutoTokenizer reads tokens and chat templates is read: the ids, the special tokens and the
template are the same. Where two files contradict each other, an error names both."""

import json

import pytest
from text_support import run_tool
from transformers import AutoTokenizer

WORDS = ["h", "e", "l", "o", "w", "r", "d", "Ġ", "<", ">", "|", "i", "m", "_", "n", "a", "t", "b", "s", "/", "p", "x", "1"]
TEXTS = ["hello <|im_end|> world", "<b> x <t1>hello<t2> <b>", "<s>hello</s>", "<pad><t1><t2><im_a><x1>"]


def tokenizer(*added):
    vocab = {word: i for i, word in enumerate([*WORDS, "<s>", "</s>", "<|im_end|>"])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [flags(content, id=token_id) for token_id, content in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }


def flags(content, **other):
    plain = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {**other, **plain} | {key: value for key, value in other.items() if key in plain}


BASE = 23  # the id of <s>; </s> and <|im_end|> follow it
NEW = 26  # the first id after the vocabulary
CASES = {
    "special_tokens_map": {
        "special_tokens_map.json": {"eos_token": "</s>", "bos_token": flags("<s>"), "additional_special_tokens": ["<|im_end|>"]},
    },
    "config": {"tokenizer_config.json": {"eos_token": "</s>", "extra_special_tokens": ["<|im_end|>", "<t1>"], "pad_token": "<pad>"}},
    "additional": {"tokenizer_config.json": {"eos_token": "</s>", "additional_special_tokens": ["<|im_end|>", "<t2>", "<t1>"]}},
    "decoder": {
        "tokenizer_config.json": {
            "eos_token": "</s>",
            "added_tokens_decoder": {
                str(BASE + 1): flags("</s>"),
                str(NEW): flags("<t1>", lstrip=True, rstrip=True),
                str(NEW + 1): flags("<t2>", special=False, normalized=True),
            },
        }
    },
    "decoder hides the map": {
        "tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {str(BASE + 1): flags("</s>")}},
        "special_tokens_map.json": {"eos_token": "<|im_end|>"},
    },
    "added_tokens": {
        "added_tokens.json": {"<t1>": NEW, "<t2>": NEW + 1},
        "special_tokens_map.json": {"eos_token": "</s>", "additional_special_tokens": ["<t2>"]},
    },
    "model specific": {"tokenizer_config.json": {"eos_token": "</s>", "image_token": "<im_a>"}},
    "named extra": {"tokenizer_config.json": {"eos_token": "</s>", "extra_special_tokens": {"image_token": "<im_a>"}}},
    "map with flags": {"special_tokens_map.json": {"eos_token": flags("</s>", lstrip=True, rstrip=True)}},
    "both lists": {
        "tokenizer_config.json": {"eos_token": "</s>", "additional_special_tokens": ["<t1>"]},
        "special_tokens_map.json": {"extra_special_tokens": ["<t2>"]},
    },
    "agreeing": {
        "tokenizer_config.json": {"eos_token": "</s>", "pad_token": None},
        "special_tokens_map.json": {"eos_token": "</s>", "pad_token": "</s>"},
    },
    "nothing": {},
}
CONTRADICTIONS = {
    "eos": (
        {"tokenizer_config.json": {"eos_token": "</s>"}, "special_tokens_map.json": {"eos_token": "<|im_end|>"}},
        ["tokenizer_config.json", "special_tokens_map.json", "'eos_token'"],
    ),
    "list": (
        {
            "tokenizer_config.json": {"eos_token": "</s>", "additional_special_tokens": ["<t1>"]},
            "special_tokens_map.json": {"additional_special_tokens": ["<t2>"]},
        },
        ["tokenizer_config.json", "special_tokens_map.json", "'additional_special_tokens'"],
    ),
    "id in the decoder": (
        {"tokenizer_config.json": {"added_tokens_decoder": {"99": flags("<t1>")}}},
        ["tokenizer_config.json", "tokenizer.json", "'<t1>'", "99", str(NEW)],
    ),
    "flags in the decoder": (
        {"tokenizer_config.json": {"added_tokens_decoder": {str(BASE + 1): flags("</s>", special=False)}}},
        ["tokenizer_config.json", "tokenizer.json", "'</s>'"],
    ),
    "id in added_tokens": (
        {"added_tokens.json": {"<t1>": 5}},
        ["added_tokens.json", "tokenizer.json", "'<t1>'", str(NEW)],
    ),
}


def write(folder, files, added=((BASE + 1, "</s>"),)):
    folder.mkdir(exist_ok=True)
    files = {"tokenizer.json": tokenizer(*added), "config.json": {"model_type": "llama"}, "tokenizer_config.json": {}, **files}
    if isinstance(files["tokenizer_config.json"], dict):  # so that transformers takes tokenizer.json as it is
        files["tokenizer_config.json"] = {"tokenizer_class": "PreTrainedTokenizerFast", **files["tokenizer_config.json"]}
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def answers(folder, requests):
    return run_tool({"tokenizer_folder": str(folder)}, requests)


@pytest.mark.parametrize("name", CASES)
def test_same_ids(name, tmp_path):
    folder = write(tmp_path / "model", CASES[name])
    peer = AutoTokenizer.from_pretrained(folder)
    for text, answer in zip(TEXTS, answers(folder, [{"text": text} for text in TEXTS]), strict=True):
        assert answer["plain"] == peer.encode(text, add_special_tokens=False), text
        assert answer["skipped"] == peer.decode(answer["plain"], skip_special_tokens=True), text


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_name_both_files(name, tmp_path):
    files, named = CONTRADICTIONS[name]
    with pytest.raises(AssertionError) as error:
        answers(write(tmp_path / "model", files), [])
    for part in named:
        assert part in str(error.value)


TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"
TEMPLATES = {
    "in the configuration": {"tokenizer_config.json": {"chat_template": "config"}},
    "list": {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}]}},
    "file": {"tokenizer_config.json": {"chat_template": "config"}, "chat_template.jinja": "file"},
    "named files": {"chat_template.jinja": "file", "additional_chat_templates/rag.jinja": "rag"},
    "files replace the list": {
        "tokenizer_config.json": {"chat_template": [{"name": "old", "template": "a"}]},
        "chat_template.jinja": "file",
        "additional_chat_templates/rag.jinja": "rag",
    },
    "variables": {
        "tokenizer_config.json": {
            "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<im_a>", "unk_token": None,
            "chat_template": "{{ eos_token }}{{ pad_token }}{{ image_token }}[{{ unk_token is defined }}{{ bos_token is defined }}]",
        }
    },
    "legacy file": {"chat_template.json": {"chat_template": "only processors read it"}},
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_same_template(name, tmp_path):
    folder = write(tmp_path / "model", TEMPLATES[name])
    peer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "x"}]
    answer = answers(folder, [{"messages": messages, "add_generation_prompt": False}])[0]
    if peer.chat_template is None:
        assert answer == {"error": "no chat template"}
    else:
        assert answer == {"text": peer.apply_chat_template(messages, tokenize=False)}


def test_templates_without_a_default(tmp_path):
    folder = write(tmp_path / "model", {"additional_chat_templates/rag.jinja": "rag", "additional_chat_templates/tools.jinja": "t"})
    with pytest.raises(ValueError, match="no default specified"):
        AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    with pytest.raises(AssertionError, match="no chat template is named 'default'.*'rag', 'tools'"):
        answers(folder, [])


FAULTS = {
    "syntax": ("tokenizer.json", "{"),
    "no model": ("tokenizer.json", {"version": "1.0"}),
    "unknown model": ("tokenizer.json", {"version": "1.0", "model": {"type": "Nothing"}}),
    "unknown step": ("tokenizer.json", tokenizer() | {"normalizer": {"type": "Nothing"}}),
    "vocabulary": ("tokenizer.json", tokenizer() | {"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}),
    "merges": ("tokenizer.json", tokenizer() | {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x"]}}),
    "expression": (
        "tokenizer.json",
        tokenizer() | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
    ),
    "token id": ("tokenizer.json", tokenizer((99, "<x>"))),
    "map syntax": ("special_tokens_map.json", "{"),
    "map type": ("special_tokens_map.json", []),
    "map value": ("special_tokens_map.json", {"additional_special_tokens": "x"}),
    "added syntax": ("added_tokens.json", "["),
    "added id": ("added_tokens.json", {"<t1>": "x"}),
    "config syntax": ("tokenizer_config.json", "{,}"),
    "config token": ("tokenizer_config.json", {"eos_token": 5}),
    "config decoder": ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}),
    "config template": ("tokenizer_config.json", {"chat_template": 5}),
    "eos": ("generation_config.json", {"eos_token_id": "x"}),
    "template bytes": ("chat_template.jinja", None),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_the_file(name, tmp_path):
    file, value = FAULTS[name]
    folder = write(tmp_path / "model", {} if value is None else {file: value})
    if value is None:
        (folder / file).write_bytes(b"\xff")
    with pytest.raises(AssertionError) as error:
        answers(folder, [])
    assert file in str(error.value)
