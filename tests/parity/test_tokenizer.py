"""The tokenizer gives the ids and the decoded text of HF tokenizers, for every real tokenizer available and 2,000 varied strings; the
vocabulary inside a GGUF gives those of the model's own tokenizer.json."""

import json
import os
import random
import unicodedata

import pytest
from text_support import absent, run_tool, tokenizer_folder
from tokenizers import Tokenizer

COUNT = 2000
NAMES = ["gpt2", "qwen3", "gemma3", "llama3", "mistral", "smollm2"]
WORDS = (
    "the of and Hello World I'm don't WE'LL you've naïve façade Straße İstanbul ÇALIŞMA lorem tokenization "
    "antidisestablishmentarianism https://example.org/a?b=c&d=%20 foo_bar FooBar x1 3.14159 1e-5 0xDEADBEEF"
).split()
CODE = [
    "def f(x):\n    return x ** 2  # square\n",
    "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i];\n\t}\n",
    "<div class=\"a\">&nbsp;</div>",
    '{"key": [1, 2.5, null, true]}',
    "SELECT * FROM t WHERE a >= 'x';",
    "#include <vector>\r\n#define A(b) (b)\r\n",
    "\\frac{a}{b} $x^2$ → ≤ ∑",
]
SCRIPTS = {
    "chinese": "今天天气很好我们去公园散步吧。，《》「」繁體字龍",
    "japanese": "こんにちは世界カタカナ漢字。ー、・ｶﾞﾊﾟ",
    "korean": "안녕하세요세계한국어각",
    "arabic": "مرحبا بالعالم السَّلَامُ عَلَيْكُمْ ١٢٣ ، ؟",
    "hebrew": "שלום עולם בְּרֵאשִׁית",
    "devanagari": "नमस्ते दुनिया क्षत्रिय १२३",
    "thai": "สวัสดีชาวโลก ๑๒๓",
    "cyrillic": "Привет мир, Ёжик й ѐ",
    "greek": "Γειά σου Κόσμε ά ΐ ς Σ Ω",
    "emoji": "😀😁🤖👍🏽👨‍👩‍👧‍👦🇩🇪🇫🇷❤️🏳️‍🌈1️⃣🫠",
    "combining": "e\u0301 a\u0308 o\u0302\u0323 n\u0303 \u1e9b\u0323 q\u0307\u0323 \u0344 \u0958 \u2126 \ufb01 \u212b",
    "wide": "ＡＢＣ１２３ ½ ² ① Ⅻ ﷺ ㎏ ½",
    "control": "\x00\x01\x07\x08\x0b\x0c\x1b\x7f\x85\xa0\u200b\u200d\u2028\u2029\ufeff\u3000\u202f\xad",
    "rare": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎 \U0010ffff \ue000 \ufffd \u0378",
}
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n", "\n ", "    ", " " * 17, "\n" * 5, "\t\t\t", "\u3000", "\xa0"]


def any_character(random_source):
    while True:
        c = random_source.randrange(0x20, random_source.choice([0x7F, 0x250, 0x3000, 0xFFFF, 0x1FAFF]))
        # characters newer than Unicode 14 are letters to some builds of Oniguruma and unassigned to others
        if unicodedata.category(chr(c)) not in ("Cs", "Cn"):
            return chr(c)


def chunk(source, special):
    """A few words, a line of code, a run of spaces, digits, another script, a special token (complete or truncated)."""
    kind = source.randrange(10)
    if kind <= 1:
        return " ".join(source.choice(WORDS) for _ in range(source.randint(1, 8)))
    if kind == 2:
        return source.choice(CODE)
    if kind == 3:
        return source.choice(SPACES) * source.randint(1, 3)
    if kind == 4:
        return "".join(source.choice("0123456789") for _ in range(source.randint(1, 12)))
    if kind in (5, 6):
        letters = SCRIPTS[source.choice(list(SCRIPTS))]
        start = source.randrange(len(letters))
        return letters[start : start + source.randint(1, 20)]
    if kind == 7:
        token = source.choice(special)
        return token if source.random() < 0.8 else token[: source.randint(1, len(token))]
    if kind == 8:
        return "".join(source.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~'sStTdD▁Ġ") for _ in range(source.randint(1, 10)))
    return source.choice("aA \n0.é中▁\u0301") * source.randint(1, 60)


def varied_strings(special, seed):
    source = random.Random(seed)
    # Runs of marks whose order a normal form settles, longer than any language has.
    marks = ["é" + "".join(source.choice("\u0301\u0308\u0315\u0316\u0323\u0327\u0344\u0345\u093c\u0f71") for _ in range(length)) + "o"
             for length in range(25, 65)]
    strings = marks + ["", " ", "\n", "a", "▁", " a", "a ", "'S 'T", special[0], f" {special[0]} ", special[0] * 3]
    while len(strings) < COUNT:
        glue = source.choice(["", " ", source.choice(SPACES)])
        if source.random() < 0.15:
            strings.append("".join(any_character(source) for _ in range(source.randint(1, 40))))
        else:
            strings.append(glue.join(chunk(source, special) for _ in range(source.randint(1, 8))))
    return strings


def compare(expected, first, seed):
    """Every string, with and without special tokens, and back again."""
    added = json.loads(expected.to_str())["added_tokens"]
    strings = varied_strings([token["content"] for token in added], seed)
    answers = run_tool(first, [{"text": text} for text in strings])[-COUNT:]
    assert len(answers) == len(strings) == COUNT
    for text, answer in zip(strings, answers):
        plain = expected.encode(text, add_special_tokens=False).ids
        special = expected.encode(text, add_special_tokens=True).ids
        assert answer["plain"] == plain, repr(text)
        assert answer["special"] == special, repr(text)
        assert answer["decoded"] == expected.decode(special, skip_special_tokens=False), repr(text)
        assert answer["skipped"] == expected.decode(special, skip_special_tokens=True), repr(text)


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_hf_tokenizers(name):
    path = str(tokenizer_folder(name) / "tokenizer.json")
    compare(Tokenizer.from_file(path), {"tokenizer": path}, seed=NAMES.index(name))


def test_gguf_byte_level_vocabulary(tmp_path):
    """The metadata of SmolLM2's GGUF gives the ids of SmolLM2's tokenizer.json."""
    folder = tokenizer_folder("smollm2")
    expected = Tokenizer.from_file(str(folder / "tokenizer.json"))
    compare(expected, {"gguf_metadata": str(folder / "gguf_metadata.json")}, seed=10)


def test_gguf_equals_transformers_without_digits():
    """transformers reads the same GGUF but ignores tokenizer.ggml.pre (digits alone): without digits the ids are equal."""
    path = os.environ.get("PEFT_MODEL_GGUF")
    if not path:
        absent("SKIPPED: $PEFT_MODEL_GGUF is not set")
    from transformers import AutoTokenizer

    expected = AutoTokenizer.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path))
    strings = [text for text in varied_strings(expected.all_special_tokens, seed=11) if not any(c.isnumeric() for c in text)]
    assert len(strings) > 500
    first = {"gguf_metadata": str(tokenizer_folder("smollm2") / "gguf_metadata.json")}
    answers = run_tool(first, [{"text": text} for text in strings])[1:]
    for text, answer in zip(strings, answers, strict=True):
        assert answer["plain"] == expected(text, add_special_tokens=False)["input_ids"], repr(text)
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        assert run_tool(first, [{"text": token}])[1]["plain"] == [expected.convert_tokens_to_ids(token)]


def sentencepiece_metadata(document):
    """The metadata a GGUF would have for this tokenizer.json: sentencepiece's scores fall with the id, but runs of spaces
    were added to the vocabulary with a score below all others."""
    vocab = document["model"]["vocab"]
    tokens = sorted(vocab, key=vocab.get)
    special = {token["content"]: token["special"] for token in document["added_tokens"]}
    kinds = [2 if token == "<unk>" else 3 if special.get(token) else 4 if token in special else 1 for token in tokens]
    kinds = [6 if len(token) == 6 and token.startswith("<0x") else kind for token, kind in zip(tokens, kinds)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-1e9 if token.strip("▁") == "" and len(token) > 1 else -float(i) for i, token in enumerate(tokens)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": vocab["<s>"],
        "tokenizer.ggml.unknown_token_id": vocab["<unk>"],
        "tokenizer.ggml.add_bos_token": True,
    }


def test_gguf_sentencepiece_vocabulary(tmp_path):
    """The merges derived from scores give the ids of Mistral's real tokenizer.json."""
    path = tokenizer_folder("mistral") / "tokenizer.json"
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps(sentencepiece_metadata(json.loads(path.read_text()))))
    compare(Tokenizer.from_file(str(path)), {"gguf_metadata": str(metadata)}, seed=12)


def test_generated_json_is_a_tokenizer_json():
    """HF tokenizers takes the text made from a GGUF and gives the same ids with it."""
    metadata = str(tokenizer_folder("smollm2") / "gguf_metadata.json")
    made = run_tool({"gguf_metadata": metadata}, [])[0]
    compare(Tokenizer.from_str(made), {"gguf_metadata": metadata}, seed=13)
