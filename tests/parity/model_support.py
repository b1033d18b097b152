"""What the parity tests of models share: small random models, and one run of model_tool or plugin_tool."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def run_tool(name, request):
    """The standard output of tests/framework/<name> for one request."""
    build = os.environ.get("PEFT_BUILD", "")
    tool = Path(build) / "tests" / "framework" / name
    if not build or not tool.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{tool} is not built")
        pytest.skip(f"SKIPPED: {tool} is not built (set PEFT_BUILD to the build folder)")
    plugins = {"PEFT_PLUGIN_PATH": str(Path(build).resolve() / "lib" / "peft" / "plugins")}
    done = subprocess.run(
        [tool], input=json.dumps(request) + "\n", capture_output=True, text=True, env=os.environ | plugins
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def model_answer(folder, model, examples, precision="fp32", adapter="", fused=True):
    """logits, loss and grad.* of model_tool. `examples`: pairs of ids and labels."""
    out = Path(folder) / "answer.safetensors"
    request = {
        "model": str(model),
        "precision": precision,
        "adapter": str(adapter),
        "fused": fused,
        "out": str(out),
        "examples": [{"ids": ids, "labels": labels} for ids, labels in examples],
    }
    run_tool("model_tool", request)
    return load_file(out)


def byte_tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {byte: i + 2 for i, byte in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def save_llama(folder, dtype=torch.float32, shard=None, **options):
    """A random Llama with a tokenizer of single bytes; its biases and norms are random too."""
    torch.manual_seed(0)
    byte_tokenizer().save_pretrained(folder)
    sizes = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.2,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(sizes | options)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model = model.to(dtype)
    model.save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    return model


def random_examples(vocabulary, lengths=(17, 5, 23), masked=0.3):
    generator = torch.Generator().manual_seed(1)
    out = []
    for length in lengths:
        ids = torch.randint(2, vocabulary, (length,), generator=generator)
        labels = ids.masked_fill(torch.rand(length, generator=generator) < masked, -100)
        out.append((ids.tolist(), labels.tolist()))
    return out


def peer_answer(model, examples):
    """The same by transformers, one example at a time: logits end to end, and the mean loss over supervised tokens."""
    logits, total, supervised = [], 0.0, 0
    for ids, labels in examples:
        out = model(input_ids=torch.tensor([ids])).logits[0]
        logits.append(out)
        target = torch.tensor(labels[1:])
        total = total + torch.nn.functional.cross_entropy(out[:-1].float() if out.dtype != torch.float64 else out[:-1],
                                                          target, ignore_index=-100, reduction="sum")
        supervised += int((target != -100).sum())
    return torch.cat(logits), total / supervised
