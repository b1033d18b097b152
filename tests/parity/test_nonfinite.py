"""NaN and infinity in a file are refused: weights of a Hugging Face folder in any type, scales of a quantized GGUF and an adapter's
tensors, with the tensor's name, exit code 3 and nothing written; so are weights out of range of a narrower dtype. A model file that
is truncated during a run ends the run with its name, not with a signal."""

import json
import os
import shutil
import subprocess
import time

import gguf
import peft
import pytest
import torch
import transformers
from hostile_files import EXPERIMENT, put_experiment
from safetensors.torch import load_file, save_file
from tiny_llama import save_llama

TENSOR = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def folder(tmp_path):
    put_experiment(tmp_path)
    return tmp_path


def change(file, name, index, value):
    tensors = load_file(file)
    tensors[name].view(-1)[index] = value
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value,index", [("nan", 0), ("inf", 1000), ("-inf", -1), ("-nan", 7)])
def test_weights(run, folder, dtype, value, index):
    """Non-finite values are refused in the stored dtype and after conversion."""
    save_llama(folder / "model", dtype=getattr(torch, dtype))
    file = folder / "model" / "model.safetensors"
    run("peft-run", "plan", folder / "experiment.toml")
    change(file, TENSOR, index, -torch.tensor(float("nan")) if value == "-nan" else float(value))
    for precision in {"float16": ["fp16", "fp32"], "bfloat16": ["bf16", "fp32"]}.get(dtype, ["fp32", "fp64", "bf16"]):
        printed = run("peft-run", folder / "experiment.toml", "--set", f"precision.name={precision}", code=3).stderr
        assert "model" in printed and f"tensor '{TENSOR}' holds NaN or infinity" in printed
    assert not (folder / "out").exists()
    # Infinity and its negative in one tensor: no sum of theirs is needed to see them.
    change(file, TENSOR, 3, float("inf"))
    change(file, TENSOR, 4, float("-inf"))
    assert TENSOR in run("peft-run", folder / "experiment.toml", code=3).stderr


def test_weights_out_of_range_of_dtype(run, folder):
    save_llama(folder / "model")
    change(folder / "model" / "model.safetensors", TENSOR, 5, 1e30)
    run("peft-run", "plan", folder / "experiment.toml")
    printed = run("peft-run", folder / "experiment.toml", "--set", "precision.name=fp16", code=3).stderr
    assert f"tensor '{TENSOR}' holds NaN or infinity in fp16" in printed
    save_adapter(folder, target_modules=["q_proj"])
    merge = ["--model", folder / "model", "--adapter", folder / "adapter", "--any-base", "--output", folder / "merged"]
    assert f"'{TENSOR}' is not finite in float16" in run("peft-run", "merge", *merge, "--dtype", "float16", code=3).stderr
    for kind in ("f16", "q8_0"):
        printed = run("peft-run", "export", *merge, "--as", "gguf", "--type", kind, code=3).stderr
        assert f"'{TENSOR}' is not finite in " in printed
    assert not (folder / "merged").exists() and not (folder / "out").exists()


def test_gguf_scales(run, folder, model_gguf):
    """The fp16 scale of one block of each quantized type that the file has."""
    file = folder / "model.gguf"
    kinds = {}
    for tensor in gguf.GGUFReader(model_gguf).tensors:
        if gguf.GGML_QUANT_SIZES[tensor.tensor_type][0] > 1:
            kinds.setdefault(tensor.tensor_type, tensor)
    assert kinds
    for kind, tensor in kinds.items():
        blocks, size = gguf.GGML_QUANT_SIZES[kind]
        scale = size - 2 if kind == gguf.GGMLQuantizationType.Q6_K else 0
        shutil.copy(model_gguf, file)
        with open(file, "r+b") as out:
            out.seek(tensor.data_offset + 3 * size + scale)
            out.write(b"\x00\x7e")  # NaN
        printed = run("peft-run", folder / "experiment.toml", "--set", f"model.path={file}", code=3).stderr
        name = "embed_tokens" if tensor.name == "token_embd.weight" else tensor.name.split(".")[-2].split("_")[-1]
        assert str(file) in printed and "holds NaN or infinity" in printed and name in printed
    assert not (folder / "out").exists()


def save_adapter(folder, **options):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)
    peft.get_peft_model(model, config).save_pretrained(folder / "adapter")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_adapters(run, folder, value):
    save_llama(folder / "model")
    save_adapter(folder, target_modules=["q_proj", "v_proj"])
    file = folder / "adapter" / "adapter_model.safetensors"
    key = sorted(load_file(file))[-1]
    change(file, key, -1, value)
    model, adapter = ["--model", folder / "model"], ["--adapter", folder / "adapter"]
    (folder / "going_on.toml").write_text(EXPERIMENT.replace('name = "lora"', 'init_from = "adapter"'))
    for command in (
        [folder / "going_on.toml"],
        ["eval", *model, *adapter, "--data", folder / "train.jsonl"],
        ["generate", *model, *adapter, "--prompt", "one"],
        ["merge", *model, *adapter, "--output", folder / "out"],
        ["export", *model, *adapter, "--as", "gguf", "--output", folder / "out"],
    ):
        printed = run("peft-run", *command, code=3).stderr
        assert "adapter_model.safetensors" in printed and f"{key} holds NaN or infinity" in printed
    assert not (folder / "out").exists()


def test_adapter_values_out_of_range_of_dtype(run, folder):
    save_llama(folder / "model")
    save_adapter(folder, target_modules=["q_proj"])
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor.double() for name, tensor in load_file(file).items()}, file)
    generate = ["generate", "--model", folder / "model", "--adapter", folder / "adapter", "--prompt", "one", "--max-new-tokens", "1"]
    run("peft-run", *generate)
    key = sorted(load_file(file))[0]
    change(file, key, 1, 1e300)
    printed = run("peft-run", *generate, code=3).stderr
    assert f"{key} holds NaN or infinity in " in printed


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_generate_refuses_nonfinite_logits(run, folder, temperature):
    """An adapter with finite weights that gives non-finite logits."""
    save_llama(folder / "model")
    save_adapter(folder, target_modules=["q_proj", "v_proj"])
    file = folder / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(file).items()}, file)
    result = run("peft-run", "generate", "--model", folder / "model", "--adapter", folder / "adapter", "--prompt", "one",
               "--temperature", temperature, code=6)
    assert "the model's logits are NaN or infinite" in result.stderr and result.stdout.strip() in ("", "one")


def test_merged_model_loads_like_any_other(run, folder):
    save_llama(folder / "model")
    save_adapter(folder, target_modules=["q_proj"])
    merge = ["--model", folder / "model", "--adapter", folder / "adapter", "--output", folder / "merged"]
    run("peft-run", "merge", *merge)
    sets = ["--set", f"model.path={folder / 'merged'}"]
    run("peft-run", "plan", folder / "experiment.toml", *sets)
    change(folder / "merged" / "model.safetensors", "model.layers.0.self_attn.q_proj.weight", 0, float("nan"))
    printed = run("peft-run", folder / "experiment.toml", *sets, code=3).stderr
    assert "merged" in printed and "'model.layers.0.self_attn.q_proj.weight' holds NaN or infinity" in printed


def test_model_file_modified_during_run(folder, bin_dir):
    """Another program that writes to the base's file is not a bug of ours."""
    save_llama(folder / "model")
    process = subprocess.Popen([bin_dir / "peft-run", folder / "experiment.toml", "--set", "training.max_steps=300", "--set",
                                "training.log_every=1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics, end = folder / "out" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    with open(folder / "model" / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 3, printed
    assert printed.startswith(f"{folder}/model/model.safetensors: was modified during the run")
    assert not (folder / "out" / "adapter_model.safetensors").exists()


def test_model_file_truncated_during_run(folder, bin_dir):
    save_llama(folder / "model")
    command = [bin_dir / "peft-run", folder / "experiment.toml", "--set", "training.max_steps=1000000", "--set",
               "training.log_every=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    metrics, end = folder / "out" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    os.truncate(folder / "model" / "model.safetensors", 4096)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 3
    assert printed == f"peft-run: {folder}/model/model.safetensors was truncated while in use, or can no longer be read\n"
    assert not (folder / "out" / "adapter_model.safetensors").exists()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines() if line.endswith("}")]
    assert steps == sorted(steps) and len(steps) > 3
