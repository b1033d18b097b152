"""Small valid files that the tests of hostile input break: a model, adapter, GGUF file and experiment, and their parts."""

import json
import os
import struct

import numpy as np

EXPERIMENT = """[model]
path = "model"
[data]
train = "train.jsonl"
[adapter]
name = "lora"
[training]
output_dir = "out"
max_steps = 1
"""


def put_experiment(folder):
    """Writes an experiment of one step and its data; the model must be in model/."""
    (folder / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (folder / "experiment.toml").write_text(EXPERIMENT)


class Safetensors:
    """A file as header and data; `text` replaces the JSON text of the header."""

    def __init__(self, path):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        self.path, self.header, self.body = path, json.loads(data[8 : 8 + size]), data[8 + size :]
        self.names = [name for name in self.header if name != "__metadata__"]

    def write(self, text=None, length=None):
        text = json.dumps(self.header).encode() if text is None else text
        self.path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + self.body)

    def entry(self, which=0):
        return self.header[self.names[which]]

    def fill(self, number, which=0):
        """Sets a tensor's first element to an fp32 number."""
        begin = self.entry(which)["data_offsets"][0]
        self.body = self.body[:begin] + struct.pack("<f", number) + self.body[begin + 4 :]


def change_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def set_json(path, **keys):
    change_json(path, lambda value: value.update(keys))


class Gguf:
    """A llama of one layer, written field by field, so that each field can be invalid."""

    STRING, ARRAY = 8, 9

    def __init__(self):
        source = np.random.default_rng(1)
        self.magic, self.version, self.alignment = b"GGUF", 3, 32
        self.more_pairs = self.more_tensors = 0
        self.pairs = [self.text("general.architecture", "llama")]
        for key, value in {"block_count": 1, "context_length": 64, "embedding_length": 8, "feed_forward_length": 32}.items():
            self.pairs.append(self.number(f"llama.{key}", value))
        self.pairs += [self.number("llama.attention.head_count", 2), self.number("llama.attention.head_count_kv", 1)]
        self.pairs.append(("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)))
        self.pairs += [self.text("tokenizer.ggml.model", "gpt2"), self.text("tokenizer.ggml.pre", "gpt-2")]
        self.pairs.append(self.texts("tokenizer.ggml.tokens", ["a", "b", "ab", "<e>"]))
        self.pairs.append(self.texts("tokenizer.ggml.merges", ["a b"]))
        self.pairs.append(self.number("tokenizer.ggml.eos_token_id", 3))
        sizes = {"token_embd": (4, 8), "output_norm": (8,)}
        layer = {"attn_norm": (8,), "ffn_norm": (8,), "attn_q": (8, 8), "attn_k": (4, 8), "attn_v": (4, 8)}
        layer |= {"attn_output": (8, 8), "ffn_gate": (32, 8), "ffn_up": (32, 8), "ffn_down": (8, 32)}
        sizes |= {f"blk.0.{name}": size for name, size in layer.items()}
        self.tensors, self.data = [], b""
        for name, size in sizes.items():
            values = source.normal(size=size).astype(np.float32).tobytes()
            self.tensors.append([f"{name}.weight", list(reversed(size)), 0, len(self.data)])
            self.data += values + b"\0" * (-len(values) % 32)

    @staticmethod
    def number(key, value):
        return (key, 4, struct.pack("<I", value))

    @staticmethod
    def string(text):
        data = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(data)) + data

    @classmethod
    def text(cls, key, value):
        return (key, cls.STRING, cls.string(value))

    @classmethod
    def texts(cls, key, values):
        return (key, cls.ARRAY, struct.pack("<IQ", cls.STRING, len(values)) + b"".join(map(cls.string, values)))

    def put(self, pair):
        self.pairs = [known for known in self.pairs if known[0] != pair[0]] + [pair]

    def bytes(self):
        out = self.magic + struct.pack("<I", self.version)
        out += struct.pack("<QQ", len(self.tensors) + self.more_tensors, len(self.pairs) + self.more_pairs)
        for key, kind, value in self.pairs:
            out += self.string(key) + struct.pack("<I", kind) + value
        for name, sizes, kind, offset in self.tensors:
            out += self.string(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes) + struct.pack("<IQ", kind, offset)
        return out + b"\0" * (-len(out) % self.alignment) + self.data


def replace(path, make):
    """Replaces a file by the result of `make`."""
    path.unlink(missing_ok=True)
    make(path)


def fifo(path):
    replace(path, os.mkfifo)


def loop(path):
    """Replaces a file by a symbolic link to itself."""
    replace(path, lambda link: link.symlink_to(link.name))
