"""Adapters are exchanged with HF PEFT: one made there computes the same here; each key of its file is used once, and mismatched keys
are listed; a different base is detected; several adapters at once add up as they do there."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_llama import save_llama

from model_support import apart, model_answer, random_examples, within


def peft_adapter(folder, name="adapter", seed=0, **options):
    """An adapter with random weights, made by HF PEFT on the model in `folder`."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options))
        model.save_pretrained(folder / name)
    return model


def logits(model, examples):
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids, _ in examples])


def close(ours, theirs, bound=1e-5):
    within("logits", apart(ours, theirs), bound)


@pytest.mark.parametrize(
    "model,options",
    [
        ({}, {"target_modules": "all-linear"}),
        ({"tie_word_embeddings": True}, {"target_modules": ["embed_tokens", "q_proj"]}),
        ({"tie_word_embeddings": True}, {"target_modules": ["lm_head", "up_proj"]}),
        ({"attention_bias": True}, {"target_modules": ["q_proj"], "bias": "all", "lora_bias": True}),
        ({}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
        ({"num_hidden_layers": 3}, {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": 1}),
        ({}, {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True}),
    ],
)
def test_loads_adapter_from_hf_peft(tmp_path, model, options):
    save_llama(tmp_path / "model", **model)
    theirs = peft_adapter(tmp_path, **options)
    examples = random_examples(258)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"],
          logits(theirs, examples))


def test_file_without_frozen_embedding(tmp_path):
    """HF PEFT saves an adapted embedding's base weight with the adapter; a file without it is accepted, that of another base is not."""
    save_llama(tmp_path / "model")
    theirs = peft_adapter(tmp_path, target_modules=["embed_tokens"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    frozen = [name for name in tensors if "base_layer" in name]
    assert frozen
    save_file({name: tensor for name, tensor in tensors.items() if name not in frozen}, file)
    examples = random_examples(258)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"],
          logits(theirs, examples))
    save_file(tensors | {name: tensors[name] + 1 for name in frozen}, file)
    with pytest.raises(AssertionError, match="differs from the base's weight"):
        model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")


GENERATE = ["generate", "--raw", "--prompt", "a", "--max-new-tokens", "1", "--model"]


def test_mismatched_keys_are_listed(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path, r=4)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    names = sorted(tensors)
    changed = dict(tensors)
    changed["base_model.model.stray.weight"] = changed.pop(names[0])
    changed[names[1]] = torch.zeros(3, 3)
    changed[names[2]] = torch.full_like(changed[names[2]], torch.nan)
    save_file(changed, file)
    printed = run("peft-run", *GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter", code=3).stderr
    for part in (f"missing: {names[0]}", "unexpected: base_model.model.stray.weight", f"{names[1]} has shape [3, 3]",
                 f"{names[2]} holds NaN"):
        assert part in printed
    save_file(tensors, file)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_qalora": True}))
    assert "use_qalora" in run("peft-run", *GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter", code=3).stderr


def test_different_base_is_detected(run, tmp_path):
    save_llama(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "experiment.toml").write_text(
        '[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n[training]\n'
        'output_dir = "adapter"\nmax_steps = 1\n'
    )
    run("peft-run", tmp_path / "experiment.toml")
    with_adapter = [*GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter"]
    assert "note:" not in run("peft-run", *with_adapter).stderr

    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] += 1
    save_file(weights, file, metadata={"format": "pt"})
    printed = run("peft-run", *with_adapter, code=3).stderr
    assert "another base" in printed and "--any-base" in printed
    run("peft-run", *with_adapter, "--any-base")

    peft_adapter(tmp_path, "theirs")
    assert "has no fingerprint to compare" in run("peft-run", *GENERATE, tmp_path / "model", "--adapter", tmp_path / "theirs").stderr


def merged(run, folder, *adapters, model="model", arguments=()):
    words = [word for name in adapters for word in ("--adapter", folder / name)]
    done = run("peft-run", "merge", "--model", folder / model, *words, "--output", folder / "merged", *arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformers.AutoModelForCausalLM.from_pretrained(folder / "merged"), done


@pytest.mark.parametrize("shard", [None, "40KB"])
@pytest.mark.parametrize(
    "model,options",
    [
        ({}, {"target_modules": "all-linear"}),
        ({"tie_word_embeddings": True}, {"target_modules": ["embed_tokens", "q_proj"]}),
        ({"tie_word_embeddings": True}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        ({"attention_bias": True, "mlp_bias": True}, {"target_modules": "all-linear", "lora_bias": True, "bias": "all"}),
        ({}, {"target_modules": ["q_proj"], "use_rslora": True, "modules_to_save": ["norm"]}),
    ],
)
def test_merge_equals_hf_peft(run, tmp_path, model, options, shard):
    save_llama(tmp_path / "model", shard=shard, **model)
    theirs = peft_adapter(tmp_path, **options)
    examples = random_examples(258)
    expected = logits(theirs, examples)
    arguments = ["--max-shard-size", "40KB"] if shard else []
    loaded, _ = merged(run, tmp_path, "adapter", arguments=arguments)
    close(logits(loaded, examples), expected)
    assert len(list((tmp_path / "merged").glob("*.safetensors"))) == 1 or shard
    close(model_answer(tmp_path, tmp_path / "merged", examples)["logits"], expected)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("model", "merged")]
    assert tokenizers[0]("a text")["input_ids"] == tokenizers[1]("a text")["input_ids"]


def test_two_adapters_add_up(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path, "one", seed=1, target_modules="all-linear")
    peft_adapter(tmp_path, "two", seed=2, r=4, target_modules=["q_proj", "down_proj"])
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(model, tmp_path / "one", adapter_name="one")
        theirs.load_adapter(tmp_path / "two", "two")
        theirs.base_model.set_adapter(["one", "two"])
    examples = random_examples(258)
    loaded, _ = merged(run, tmp_path, "one", "two")
    close(logits(loaded, examples), logits(theirs, examples))


def test_merge_report(run, tmp_path):
    """In bf16 a small change is mostly lost, and the receipt reports how much, as counted here from the weights."""
    save_llama(tmp_path / "model", dtype=torch.bfloat16)
    theirs = peft_adapter(tmp_path, target_modules=["q_proj"], lora_alpha=0.01)
    loaded, done = merged(run, tmp_path, "adapter")
    receipt = json.loads((tmp_path / "merged" / "merge_receipt.json").read_text())
    assert receipt["dtype"] == "bfloat16" and "warning" in done.stderr and "--dtype float32" in done.stderr
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    before = load_file(tmp_path / "model" / "model.safetensors")
    assert len(receipt["modules"]) == 2
    for name, tensor in weights.items():
        assert tensor.dtype == torch.bfloat16
        module = receipt["modules"].get(name.removesuffix(".weight"))
        if module is None:
            assert torch.equal(tensor, before[name]), "what no adapter touches is copied"
            continue
        layer = theirs.get_submodule("base_model.model." + name.removesuffix(".weight"))
        delta = layer.get_delta_weight("default").detach()
        exact = before[name].float() + delta
        assert torch.equal(tensor, exact.bfloat16())
        assert module["weights"] == tensor.numel()
        assert module["unchanged"] == (tensor == before[name]).sum()
        assert module["relative_error"] == pytest.approx(((tensor.float() - exact).norm() / delta.norm()).item(), rel=1e-3)

    wide, _ = merged_again(run, tmp_path)
    assert wide.dtype == torch.float32
    examples = random_examples(258)
    close(logits(wide, examples), logits(theirs.float(), examples))


def merged_again(run, folder):
    """Merging into an existing folder is refused; elsewhere it works in fp32."""
    words = ["merge", "--model", folder / "model", "--adapter", folder / "adapter", "--dtype", "float32", "--output"]
    assert "already exists" in run("peft-run", *words, folder / "merged", code=2).stderr
    done = run("peft-run", *words, folder / "wide")
    assert "warning" not in done.stderr
    return transformers.AutoModelForCausalLM.from_pretrained(folder / "wide"), done


def test_merge_gguf_into_hf_folder(run, tmp_path, model_gguf):
    """SmolLM2's GGUF with an adapter, as a folder that transformers reads: fp32, with tokenizer and template."""
    (tmp_path / "train.jsonl").write_text('{"prompt": "Who are you?", "completion": " I am Ada."}\n')
    (tmp_path / "experiment.toml").write_text(
        f'[model]\npath = "{model_gguf}"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n[optimizer]\nlr = 1e-2\n'
        '[training]\noutput_dir = "adapter"\nmax_steps = 2\n'
    )
    run("peft-run", tmp_path / "experiment.toml")
    run("peft-run", "merge", "--model", model_gguf, "--adapter", tmp_path / "adapter", "--output", tmp_path / "merged")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert loaded.dtype == torch.float32
    loaded.double()  # so that only the merged weights' rounding counts, not that of 30 layers' sums
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True)["input_ids"]
    ours = model_answer(tmp_path, model_gguf, [(ids, ids)], precision="fp64", adapter=tmp_path / "adapter")["logits"]
    alone = model_answer(tmp_path, model_gguf, [(ids, ids)], precision="fp64")["logits"]
    assert (ours - alone).abs().max() > 0.1
    within("logits", (logits(loaded, [(ids, ids)]) - ours).abs().max(), 1e-4)


def test_eval(run, tmp_path):
    """Loss, perplexity and accuracy of the base and of each adapter, as transformers and PEFT give them."""
    save_llama(tmp_path / "model")
    theirs = peft_adapter(tmp_path, target_modules="all-linear")
    texts = [f"The sum of {i} and {i} is {2 * i}." for i in range(7)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    done = run("peft-run", "eval", "--model", tmp_path / "model", "--data", tmp_path / "data.jsonl", "--adapter",
               tmp_path / "adapter", "--batch-size", "3")
    rows = [line.split() for line in done.stdout.splitlines() if "%" in line]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert [row[4] for row in rows] == ["base", str(tmp_path / "adapter")]
    for row, model in zip(rows, (base, theirs), strict=True):
        loss = right = count = 0
        for text in texts:
            ids = torch.tensor(tokenizer.encode(text) + [tokenizer.eos_token_id])
            with torch.no_grad():
                out = model(input_ids=ids[None]).logits[0, :-1]
            loss += torch.nn.functional.cross_entropy(out, ids[1:], reduction="sum").item()
            right += (out.argmax(-1) == ids[1:]).sum().item()
            count += len(ids) - 1
        assert float(row[0]) == pytest.approx(loss / count, abs=1e-4)
        assert float(row[1]) == pytest.approx(torch.tensor(loss / count).exp().item(), rel=1e-4)
        assert float(row[2]) == pytest.approx(100 * right / count, abs=0.006)
