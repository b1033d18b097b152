"""Files agree with the safetensors library: it reads ours tensor for tensor, and ours equal its own byte for byte; ours reads its files;
and both refuse the same malformed files."""

import json
import struct

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from method_support import train
from tiny_llama import save_llama

from model_support import model_answer, random_examples


def split(data):
    """The header as an object, and the bytes after it."""
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


@pytest.fixture
def adapter(run, tmp_path):
    save_llama(tmp_path / "model")
    return train(run, tmp_path, "lora", {"target_modules": "all-linear", "r": 4}, steps=2)[0]


def read_and_check(file, folder):
    """Reads tensors and metadata with Python's library, and checks that it would write the same file."""
    header, body = split(file.read_bytes())
    metadata = header.pop("__metadata__", None)
    ends = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert ends[0][0] == 0 and ends[-1][1] == len(body)
    assert all(one[1] == other[0] for one, other in zip(ends, ends[1:], strict=False)), "the tensors tile the file"

    tensors = load_file(file)
    save_file(tensors, folder / "again.safetensors", metadata={"format": "pt"})
    again, its_body = split((folder / "again.safetensors").read_bytes())
    again.pop("__metadata__")
    assert again == header and its_body == body
    return tensors, metadata


def test_adapter_written_by_us_read_by_peer(adapter, tmp_path):
    tensors, metadata = read_and_check(adapter / "adapter_model.safetensors", tmp_path)
    assert metadata.keys() == {"format", "base_fingerprint"} and metadata["format"] == "pt"
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values())


def test_state_written_by_us_read_by_peer(adapter, tmp_path):
    """Other shapes: a scalar among matrices."""
    model_answer(tmp_path, tmp_path / "model", random_examples(258), adapter=adapter)
    tensors, _ = read_and_check(tmp_path / "answer.safetensors", tmp_path)
    assert tensors["loss"].shape == () and len(tensors) > 2


def test_written_by_peer_read_by_us(adapter, tmp_path):
    examples = random_examples(258)
    before = model_answer(tmp_path, tmp_path / "model", examples, adapter=adapter)["logits"]
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(tensors, adapter / "adapter_model.safetensors")  # without metadata
    assert torch.equal(model_answer(tmp_path, tmp_path / "model", examples, adapter=adapter)["logits"], before)
    changed = {name: tensor * 1.5 for name, tensor in tensors.items()}
    save_file(changed, adapter / "adapter_model.safetensors", metadata={"format": "pt", "note": "x"})
    assert not torch.equal(model_answer(tmp_path, tmp_path / "model", examples, adapter=adapter)["logits"], before)


def change_header(data, change):
    header, body = split(data)
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def first(header):
    return next(name for name in header if name != "__metadata__")


BROKEN = {
    "empty": lambda data: b"",
    "length_only": lambda data: data[:8],
    "huge_header": lambda data: struct.pack("<Q", 2**62) + data[8:],
    "header_past_end": lambda data: struct.pack("<Q", len(data)) + data[8:],
    "not_json": lambda data: data[:8] + b"x" + data[9:],
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "hole": lambda data: change_header(data, lambda h: h.pop(first(h))),
    "type": lambda data: change_header(data, lambda h: h[first(h)].update(dtype="F33")),
    "shape": lambda data: change_header(data, lambda h: h[first(h)]["shape"].append(2)),
    "negative": lambda data: change_header(data, lambda h: h[first(h)].update(shape=[-4, -8])),
    "backwards": lambda data: change_header(data, lambda h: h[first(h)]["data_offsets"].reverse()),
    "overflow": lambda data: change_header(data, lambda h: h[first(h)].update(shape=[2**40, 2**40])),
}


@pytest.mark.parametrize("breaking", BROKEN.values(), ids=BROKEN.keys())
def test_malformed_file_is_refused_by_both(run, adapter, tmp_path, breaking):
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(breaking(file.read_bytes()))
    with pytest.raises(safetensors.SafetensorError):
        load_file(file)
    done = run("peft-run", "generate", "--model", tmp_path / "model", "--adapter", adapter, "--raw", "--prompt", "a", code=3)
    assert "adapter_model.safetensors" in done.stderr
