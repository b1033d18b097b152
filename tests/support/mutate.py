"""Mutates inputs for the tests that compare readers: bytes, and tokens of JSON and TOML."""

import re

NUMBERS = (
    "0 -0 1 -1 00 01 1. .5 -.5 1.5 -0.0 1e3 1E-3 1e+5 1e400 -1e400 1e-400 2147483648 4294967296 9223372036854775807 "
    "9223372036854775808 -9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616 "
    "36893488147419103232 123456789012345678901234567890 0x10 +1 1_0 0.1 3.141592653589793 5e-324 1.7976931348623157e308 "
    "NaN Infinity -Infinity nan inf -inf +inf 0b1 0o7"
).split()
TEXTS = [
    '""',
    '"a"',
    '"\\u0000"',
    '"\\u001b"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"\\x41"',
    '"\\/"',
    '"\\u00e9"',
    '"é😀"',
    '"\x7f"',
    '"\t"',
    '"\n"',
    "'a'",
    '"\\U0001F600"',
    '"""a"""',
    "'''a'''",
    '"""\na\\\n  b""""',
]
WORDS = ["true", "false", "null", "True", "nul", "{}", "[]", "{", "}", "[", "]", ",", ":", "=", ".", " ", "\n", "\r\n", "\r", "\t"]
WORDS += ["# x", "// x", "/* x */", "\0", "\ufeff", "\xa0", "\x0c", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[[", "]]"]
TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[A-Za-z0-9_+.-]+|\s+|.', re.DOTALL)


def mutate_bytes(data, source):
    """Changes, deletes, repeats or inserts some bytes."""
    data = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3))):
        at = source.randrange(len(data) + 1)
        end = min(len(data), at + source.randint(1, 8))
        kind = source.randrange(5)
        if kind == 0:
            data[at:end] = b""
        elif kind == 1:
            data[at:at] = data[at:end]
        elif kind == 2:
            data[at:at] = bytes(source.choice(b"\x00\x1b\x7f\x80\xff{}[],:\"'\\ \n0e-.") for _ in range(source.randint(1, 3)))
        elif at < len(data):
            data[at] = source.randrange(256) if kind == 3 else data[at] ^ 1 << source.randrange(8)
    return bytes(data)


def mutate_tokens(text, source):
    """Replaces some tokens by unusual ones; deletes, repeats, moves or inserts some."""
    tokens = TOKEN.findall(text)
    for _ in range(source.choice((1, 1, 2, 3))):
        at, other = source.randrange(len(tokens) + 1), source.randrange(len(tokens) + 1)
        kind = source.randrange(7)
        if kind == 0:
            tokens[at : at + 1] = []
        elif kind == 1:
            tokens[at:at] = tokens[other : other + source.randint(1, 8)]
        elif kind == 2:
            tokens[at : at + 1] = tokens[other : other + 1]
        else:
            new = source.choice(source.choice([NUMBERS, TEXTS, WORDS]))
            tokens[at : at + (kind > 3)] = [new]
    return "".join(tokens)


def mutated(data, source):
    """A mutation of `data`, mostly of its tokens."""
    if source.random() < 0.25:
        return mutate_bytes(data, source)
    out = mutate_tokens(data.decode("utf-8", "replace"), source).encode("utf-8", "surrogatepass")
    return mutate_bytes(out, source) if source.random() < 0.1 else out
