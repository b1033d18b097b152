"""The peer of busy.py, compare.py and growth.py: HF PEFT training on given ids, one line of JSON a step. peer.py REQUEST.json

The request: model (GGUF path), lora (options of the adapter), start (adapter folder; made if absent; none named: an adapter that
is not kept), work (examples and batches, as data_tool writes them), dtype, steps, compile, checkpointing, lr, threads. Padded
batches, PEFT's own defaults (the adapter in fp32), fused AdamW, clipping. With "unsloth": its model on its CPU backend with its own
defaults (also the adapter's start), in the same loop.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time
import warnings

REQUEST = json.loads(pathlib.Path(sys.argv[1]).read_text())
if REQUEST.get("unsloth"):
    import unsloth  # it changes transformers and PEFT, and so comes before them

import peft
import torch
import transformers

warnings.simplefilter("ignore")


def load(request):
    path = pathlib.Path(request["model"])
    base = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=getattr(torch, request["dtype"])
    )
    start = request.get("start")
    if start and pathlib.Path(start).exists():
        model = peft.PeftModel.from_pretrained(base, start, is_trainable=True)
    else:
        torch.manual_seed(0)
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **request["lora"]))
    if start and not pathlib.Path(start).exists():
        model.save_pretrained(start)
        return None
    if request.get("checkpointing"):
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
    model.train()
    return torch.compile(model) if request.get("compile") else model


def load_unsloth(request):
    """Of the same weights, written as a folder, as it reads no GGUF."""
    path = pathlib.Path(request["model"])
    read = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    del read.config.quantization_config  # without which a model is saved
    plain = transformers.AutoModelForCausalLM.from_config(read.config)
    plain.load_state_dict(read.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(folder)
        base, _ = unsloth.FastLanguageModel.from_pretrained(
            folder, max_seq_length=512, dtype=getattr(torch, request["dtype"]), load_in_4bit=False
        )
    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return unsloth.FastLanguageModel.get_peft_model(
        base, r=request["lora"]["r"], lora_alpha=request["lora"]["lora_alpha"], target_modules=linears, lora_dropout=0
    )


def padded(examples):
    width = max(len(example["ids"]) for example in examples)
    batch = {
        "input_ids": torch.tensor([e["ids"] + [0] * (width - len(e["ids"])) for e in examples]),
        "labels": torch.tensor([e["labels"] + [-100] * (width - len(e["ids"])) for e in examples]),
    }
    if any(len(example["ids"]) != width for example in examples):
        batch["attention_mask"] = torch.tensor([[1] * len(e["ids"]) + [0] * (width - len(e["ids"])) for e in examples])
    return batch


def main(request):
    torch.set_num_threads(request["threads"])
    model = load_unsloth(request) if request.get("unsloth") else load(request)
    if model is None:
        return
    work = json.loads(pathlib.Path(request["work"]).read_text())
    parameters = [p for p in model.parameters() if p.requires_grad]
    print(json.dumps({"parameters": sum(p.numel() for p in parameters)}), flush=True)
    optimizer = torch.optim.AdamW(parameters, lr=request["lr"], weight_decay=0.01, fused=True)
    for step in range(request["steps"]):
        batch = padded([work["examples"][i] for i in work["epoch"][step]])
        faults, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - begin
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        print(json.dumps({"loss": loss.item(), "seconds": seconds, "faults": faults}), flush=True)


main(REQUEST)
