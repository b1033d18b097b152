"""Split and Replace with regular expressions give the pieces of HF tokenizers: also where a match has no width, for every behavior,
and inverted. What tokenizers cannot compile is refused."""

import itertools
import json

import pytest
from text_support import run_tool
from tokenizers import Tokenizer

BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PATTERNS = [
    # without width
    "",
    "(?=(\\d{3})+(?!\\d))",
    "(?=\\d)",
    "(?<=\\d)",
    "(?<=[.,])(?=\\s)",
    "\\b",
    "\\B",
    "^",
    "$",
    "\\A",
    "\\z",
    "(?=[A-Z])",
    "(?<![a-z])(?=[a-z])",
    "x*",
    "\\d*",
    "\\s?",
    "a|",
    "|a",
    "(?:)",
    "(?=b)|b",
    "\\d*(?=,)",
    # with width
    "\\d{1,3}",
    "\\p{L}+|\\p{N}+|[^\\s\\p{L}\\p{N}]+",
    "(?i:'s|'t|'re)|\\p{N}",
    "\\s+(?!\\S)|\\s+",
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[[:punct:]]",
    "[a[:punct:]]+",
    "[[:space:]]",
    "[[:alpha:]]+",
    "[a-c&&[^b]]",
    "\\w+",
    "\\W",
    "\\h",
    "\\R",
    "\\X",
    ".",
    "(?m).+",
    "(a)(?:b)?\\1",
    "(?<n>a)\\k<n>",
    "a++",
    "(?>a+)b",
    "a+?",
    "\\x61",
    "\\x{e9}",
    "\\u00e9",
    "\\p{Han}",
    "\\p{Lu}",
    "\\P{L}",
    "\\p{^L}",
    "[\\p{L}\\p{M}]+",
    "(?x) a  b # comment",
    "\\Qa.b\\E",
    "\\Ga",
    "a{,2}",
    "a{2}",
    "[]a]",
    "(?#comment)a",
    # not valid
    "(",
    "[",
    "*",
    "a**",
    "\\p{Nothing}",
    "(?<=a+)b",
    "\\1",
]
TEXTS = [
    "",
    "a",
    "1234567",
    "price 1234567, 89 and 1000.",
    "HelloWorld fooBar aab aba",
    " a  b\t\nc\r\n\nd ",
    "aaabbbaabbab,,xx",
    "été 中文字 😀x é ß",
    "x.\n y.\n",
    "12,345,x",
]


def tokenizer_json(**steps):
    """A tokenizer of bytes, whose ids show the pieces: a normalizer's text as it is, a pre-tokenizer's pieces apart."""
    alphabet = {chr(b if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174 else 256 + n): b for n, b in numbered_bytes()}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": steps.get("normalizer"),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                *([steps["split"]] if "split" in steps else []),
                # "▁" at the start of each piece
                {"type": "Metaspace", "replacement": "|", "prepend_scheme": "always", "split": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": alphabet, "merges": []},
    }


def numbered_bytes():
    """(number among the bytes without a printable character, byte)"""
    count = 0
    for b in range(256):
        yield count, b
        if not (33 <= b <= 126 or 161 <= b <= 172 or b >= 174):
            count += 1


def compare(document, tmp_path):
    """True if both compile it; asserts equal ids then, and that both refuse it otherwise."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    try:
        peer = Tokenizer.from_file(str(path))
    except Exception:  # tokenizers raises plain Exception
        with pytest.raises(AssertionError, match="regular expression"):
            run_tool({"tokenizer": str(path)}, [])
        return False
    answers = run_tool({"tokenizer": str(path)}, [{"text": text} for text in TEXTS])
    for text, answer in zip(TEXTS, answers, strict=True):
        if (ids := ids_there(peer, text)) is not None:
            assert answer["plain"] == ids, text
    return True


def ids_there(peer, text):
    """None where tokenizers panics: its normalizer cannot insert text at the end."""
    try:
        return peer.encode(text, add_special_tokens=False).ids
    except BaseException as error:
        if "index out of bounds" not in str(error):
            raise
        return None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_split(pattern, tmp_path):
    for behavior, invert in itertools.product(BEHAVIORS, (False, True)):
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
        if not compare(tokenizer_json(split=split), tmp_path):
            return


@pytest.mark.parametrize("pattern", PATTERNS)
def test_replace(pattern, tmp_path):
    compare(tokenizer_json(normalizer={"type": "Replace", "pattern": {"Regex": pattern}, "content": "<>"}), tmp_path)
    document = tokenizer_json()
    document["decoder"] = {"type": "Replace", "pattern": {"Regex": pattern}, "content": "<>"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    try:
        peer = Tokenizer.from_file(str(path))
    except Exception:  # reported by the comparison above
        return
    answers = run_tool({"tokenizer": str(path)}, [{"text": text} for text in TEXTS])
    for text, answer in zip(TEXTS, answers, strict=True):
        assert answer["decoded"] == peer.decode(answer["special"], skip_special_tokens=False), text


@pytest.mark.parametrize("literal", ["a", "aa", " ", ".", "(", "12"])
def test_split_at_text(literal, tmp_path):
    for behavior, invert in itertools.product(BEHAVIORS, (False, True)):
        split = {"type": "Split", "pattern": {"String": literal}, "behavior": behavior, "invert": invert}
        assert compare(tokenizer_json(split=split), tmp_path)
