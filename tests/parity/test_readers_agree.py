"""What our parsers accept, the reference libraries accept too, and parse to the same values: json, tomllib, safetensors and tokenizers,
on thousands of mutated files. Where ours refuse what the peer accepts, the reason is one of those listed here by name."""

import datetime
import json
import math
import os
import random
import re
import struct
import subprocess
import tomllib
from pathlib import Path

import pytest
import safetensors
from figures import count
from mutate import mutate_bytes, mutated
from text_support import ROOT, absent
from tokenizers import Tokenizer

os.environ["RUST_BACKTRACE"] = "0"  # tokenizers prints its panics
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
COUNT = 4000


class Reader:
    """Our readers: one process, a request at a time."""

    def __init__(self, tool):
        self.process = subprocess.Popen([tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        """The value, and what the refusal says: one of them is None."""
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"died of {request}"
        answer = json.loads(line)
        return answer.get("value"), answer.get("error")


@pytest.fixture(scope="module")
def reader():
    tool = Path(os.environ.get("PEFT_BUILD", ROOT / "build")) / "tests" / "framework" / "parser_tool"
    if not tool.exists():
        absent(f"SKIPPED: {tool} is not built (set PEFT_BUILD to the build folder)")
    reader = Reader(tool)
    yield reader
    reader.process.stdin.close()
    assert reader.process.wait() == 0


def seeds(kind):
    """The corpus of a kind; of lines each one."""
    files = [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]
    return [line for data in files for line in data.splitlines() if kind == "jsonl"] or files


def compare(kind, ours, refusal, theirs, same, stricter, what, laxer=lambda what: None):
    """One input's verdicts. `theirs`: the peer's value, or the exception that refused it; `stricter`: names the reason for
    which we refuse what the peer takes, or gives None; `laxer`: the same of what we take and the peer refuses."""
    refused = isinstance(theirs, BaseException)
    if refusal is None:
        if refused and laxer(what):
            return count(f"{kind}: taken here, refused there: {laxer(what)}")
        assert not refused, f"taken here, refused there ({theirs!r}): {what!r}"
        assert same(ours, theirs), f"read as {ours!r} here, as {theirs!r} there: {what!r}"
        return count(f"{kind}: taken by both, and read the same")
    if refused:
        return count(f"{kind}: refused by both")
    reason = stricter(refusal, theirs)
    assert reason is not None, f"refused here ({refusal}), taken there: {what!r}"
    count(f"{kind}: refused here, taken there: {reason}")


def peer(read):
    """What the peer reads, or whatever it says no with: its panics are no Exceptions."""
    try:
        return read()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error


def listed(reasons):
    """The reason whose pattern is in the refusal."""
    return lambda refusal: next((name for pattern, name in reasons.items() if re.search(pattern, refusal)), None)


# JSON


def everything(value):
    """All texts, keys and numbers of a value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from everything(item)
    elif isinstance(value, list):
        for item in value:
            yield from everything(item)
    else:
        yield value


def is_surrogate(value):
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def is_not_finite(value):
    return isinstance(value, float) and not math.isfinite(value)


def same_json(ours, theirs):
    """Equal, types too; an integer beyond 64 bits is here the nearest double."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same_json(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same_json, ours, theirs))
    if type(theirs) is int and not -(2**63) <= theirs < 2**64:
        return ours == float(theirs)
    return type(ours) is type(theirs) and ours == theirs


def stricter_json(refusal, theirs):
    named = listed({"appears twice": "a key twice", "nested deeper": "depth", "out of range": "numbers out of range"})
    if named(refusal):
        return named(refusal)
    if any(map(is_surrogate, everything(theirs))):
        return "half a character"
    return "NaN and Infinity" if any(map(is_not_finite, everything(theirs))) else None


@pytest.mark.parametrize("kind", ["config", "index", "adapter_config", "jsonl", "manifest"])
def test_json(reader, kind):
    source, inputs = random.Random(kind), seeds(kind)
    for _ in range(COUNT):
        data = mutated(source.choice(inputs), source)
        ours, refusal = reader.ask(json=data.hex())
        theirs = peer(lambda: json.loads(data.decode("utf-8")))
        compare("json", ours, refusal, theirs, same_json, stricter_json, data)


# TOML


def same_toml(ours, theirs):
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same_toml(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same_toml, ours, theirs))
    if isinstance(theirs, (datetime.date, datetime.time)):
        return ours == "a date or time"
    if is_not_finite(theirs):
        return ours == ("nan" if math.isnan(theirs) else "inf" if theirs > 0 else "-inf")
    return type(ours) is type(theirs) and ours == theirs


def stricter_toml(refusal, theirs):
    if any(type(value) is int and not -(2**63) <= value < 2**63 for value in everything(theirs)):
        return "integers beyond 64 bits"
    return listed({"nested deeper": "depth", "is not representable in 64 bits": "numbers out of range"})(refusal)


def laxer_toml(data):
    """Editors write it, the format's next version allows it."""
    return "a byte order mark" if data.startswith(b"\xef\xbb\xbf") else None


def test_toml(reader):
    source, inputs = random.Random(1), seeds("toml")
    for _ in range(3 * COUNT):
        data = mutated(source.choice(inputs), source)
        ours, refusal = reader.ask(toml=data.hex())
        theirs = peer(lambda: tomllib.loads(data.decode("utf-8")))
        compare("toml", ours, refusal, theirs, same_toml, stricter_toml, data, laxer_toml)


# safetensors

STORED = ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
TYPES = [*STORED, "U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "C64", "F4", "f32", ""]
SIZES = [0, 1, 2, 3, 4, 8, 2**31, 2**32, 2**62, 2**63, 2**64 - 1, 2**64, -1, 1.0, "1", None]


def mutate_safetensors(data, source):
    """A field of the header changed for another, the header's text, or any bytes."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = source.randrange(6)
    if kind == 0:
        return mutate_bytes(data, source)
    name = source.choice(list(header))
    entry = header[name] if name != "__metadata__" else {}
    if kind == 1 and entry:
        entry["dtype"] = source.choice(TYPES)
    elif kind == 2 and entry:
        entry["shape"].insert(source.randrange(len(entry["shape"]) + 1), source.choice(SIZES))
    elif kind == 3 and entry:
        entry["data_offsets"][source.randrange(2)] = source.choice([*SIZES, len(body), len(body) + 1])
    elif kind == 4:
        change = source.choice(["drop", "rename", "add", "more"])
        if change in ("drop", "rename"):
            taken = header.pop(name)
            header |= {"other": taken} if change == "rename" else {}
        header |= {"new": {"dtype": "U8", "shape": [0], "data_offsets": [len(body)] * 2}} if change == "add" else {}
        entry["more"] = 1
    text = json.dumps(header).encode()
    if kind == 5:
        text = mutated(text, source)
    text += source.choice([b"", b"", b"", b" ", b"\0", b"  \n"])
    body = body[: -source.randint(0, 1) or None] + b"x" * (source.random() < 0.1)
    return struct.pack("<Q", len(text)) + text + body


def read_theirs(data):
    """Name → [dtype, shape, bytes] by the safetensors library."""
    return {name: (entry["dtype"], list(entry["shape"]), bytes(entry["data"])) for name, entry in safetensors.deserialize(data)}


def same_tensors(ours, theirs):
    read = {name: (STORED[kind], shape, bytes.fromhex(data)) for name, (kind, shape, _, data) in ours["tensors"].items()}
    return read == theirs


STRICTER_TENSORS = {
    "appears twice": "a name or field twice",
    "unsupported dtype": "types of no use here",
    "must have exactly the keys": "unknown fields of a tensor",
    "does not start with '{'": "blanks before the header",
    "__metadata__": "metadata that is null",
    "nested deeper": "depth",
    "list of at most 16 sizes": "more than 16 dimensions",
    "must be a list of sizes|more than 2\\^63 bytes": "sizes beyond any memory in a tensor without elements",
}


def test_safetensors(reader, tmp_path):
    source, inputs, path = random.Random(2), seeds("safetensors"), tmp_path / "a.safetensors"
    for _ in range(3 * COUNT):
        data = mutate_safetensors(source.choice(inputs), source)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        ours, refusal = reader.ask(safetensors=str(path))
        theirs = peer(lambda: read_theirs(data))
        compare("safetensors", ours, refusal, theirs, same_tensors, lambda said, _: listed(STRICTER_TENSORS)(said), data)


# tokenizer.json

SAMPLES = ["", "Hello, world! I'm   here <s>now</s>\n\n12345 ab abc\t", "naïve 你好 😀 é ﬁ İ ▁ Ġ", " a  b ", "<s></s> now now."]
STRICTER_TOKENIZER = {
    "is not implemented": "parts or options that are not implemented",
    "appears twice": "a key or token twice",
    "nested deeper": "depth",
    "is missing|must be|has the id|have the same id|is not in the vocabulary|is empty|one sequence|no sequence": (
        "fields that contradict each other"
    ),
    "not JSON": "JSON that is invalid here",
}


def mutate_tokenizer(data, source):
    """Values of the document changed for others of it, or for awkward ones; or its text."""
    if source.random() < 0.3:
        return mutated(data, source)
    document = json.loads(data)
    for _ in range(source.randint(1, 2)):
        places = []

        def walk(value, places=places):
            for key in value if isinstance(value, dict) else range(len(value)):
                places.append((value, key))
                if isinstance(value[key], (dict, list)) and key not in ("vocab", "merges"):
                    walk(value[key])

        walk(document)
        (holder, key), (other, of) = source.choice(places), source.choice(places)
        kind = source.randrange(5)
        if kind == 0 and isinstance(holder, dict):
            del holder[key]
        elif kind == 1:
            holder[key] = json.loads(json.dumps(other[of]))
        elif kind == 2 and isinstance(holder, list):
            holder.insert(source.randrange(len(holder) + 1), json.loads(json.dumps(holder[key])))
        else:
            holder[key] = source.choice([None, True, False, 0, 1, 3, -1, "", "a", " ", "▁", "Isolated", "always", "never", [], {}])
    return json.dumps(document, ensure_ascii=False).encode()


def encode_theirs(data):
    tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [peer(lambda text=text: tokenizer.encode(text).ids) for text in SAMPLES]


def same_ids(ours, theirs):
    """Each text has the same ids, or is refused by both (a character without a token and no unknown one)."""
    return all((mine is None) == isinstance(its, BaseException) and (mine is None or mine == its)
               for mine, its in zip(ours, theirs, strict=True))


def all_objects(value):
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from all_objects(item)


def without_unused(data):
    """The document with everything in order that changes no id of a single text: lengths and padding, decoding, pairs of texts,
    offsets, the names next to ids, flags that are off."""
    document = json.loads(data)
    document |= {"version": "1.0", "truncation": None, "padding": None, "decoder": None,
                 "added_tokens": document.get("added_tokens") or []}
    for token in document["added_tokens"]:
        for flag in ("single_word", "lstrip", "rstrip", "special"):
            token[flag] = token.get(flag) or False
        if token.get("normalized") is None:
            token["normalized"] = not token["special"]
    model = {key: value for key, value in document["model"].items() if value is not None}
    document["model"] = {"type": "BPE", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False} | model
    for part in all_objects([document.get("pre_tokenizer"), document.get("post_processor")]):
        if part.get("type") == "TemplateProcessing":
            part["pair"] = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
            part["special_tokens"] = {name: {"id": name, "ids": about["ids"], "tokens": [name] * len(about["ids"])}
                                      for name, about in (part.get("special_tokens") or {}).items()}
        elif part.get("type") in ("ByteLevel", "RobertaProcessing"):
            part["trim_offsets"] = True
        for kind in ("Sequence", "SpecialToken"):
            if isinstance(part.get(kind), dict):
                part[kind]["type_id"] = 0
    return json.dumps(document).encode()


def laxer_tokenizer(ours, data):
    """Why we may take what the peer refuses; asked again without what was not used, it must have our ids."""
    theirs = peer(lambda: encode_theirs(without_unused(data)))
    if isinstance(theirs, BaseException):
        return "a default in the place of a field" if re.search("missing field|null, expected", str(theirs)) else None
    return "a field that is not used" if same_ids(ours, theirs) else None


def test_tokenizer(reader):
    source, inputs = random.Random(3), seeds("tokenizer")
    for _ in range(COUNT):
        data = mutate_tokenizer(source.choice(inputs), source)
        ours, refusal = reader.ask(tokenizer=data.hex(), texts=SAMPLES)
        theirs = peer(lambda: encode_theirs(data))
        compare("tokenizer", ours, refusal, theirs, same_ids, lambda said, _: listed(STRICTER_TOKENIZER)(said), data,
                lambda _: laxer_tokenizer(ours, data))
