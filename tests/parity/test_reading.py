"""Files that transformers and HF PEFT read are read here, with the same result: tied heads that differ, harmless keys of configs, keys
of a newer HF PEFT, names that the model lacks, dropouts and initializations of finished adapters, other spellings of tensors. What is
written names what is in it, and what is something else says so."""

import json
import math
import warnings

import gguf
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_llama import save_llama

from model_support import apart, losses_of, model_answer, peer_of_gguf, random_examples, within
from test_interop import GENERATE, close, logits, merged, peft_adapter


def change_json(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_tensors(file, change):
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def theirs_of(folder, adapter=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        return model if adapter is None else peft.PeftModel.from_pretrained(model, folder / adapter)


def head_file(folder, kind):
    """A model in `folder` whose config and tensors of embedding and head say different things."""
    save_llama(folder / "model", tie_word_embeddings=kind != "untied")
    file = folder / "model" / "model.safetensors"
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    if kind == "equal":
        change_tensors(file, lambda t: t | {head: t[embedding].clone()})
    if kind == "different":
        change_tensors(file, lambda t: t | {head: t[embedding] * 2 + 0.1})
    if kind == "swapped":
        change_tensors(file, lambda t: {head if name == embedding else name: tensor for name, tensor in t.items()})


@pytest.mark.parametrize("kind", ["tied", "equal", "different", "swapped", "untied"])
def test_head(run, tmp_path, kind):
    """Logits with an adapter, merged, and as GGUF; a head that differs is used and reported."""
    head_file(tmp_path, kind)
    peft_adapter(tmp_path, target_modules="all-linear")
    theirs = theirs_of(tmp_path, "adapter")
    examples = random_examples(258)
    expected = logits(theirs, examples)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"], expected)
    loaded, done = merged(run, tmp_path, "adapter")
    close(logits(loaded, examples), expected)
    assert ("different weights" in done.stderr) == (kind == "different")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] == (kind in ("tied", "equal", "swapped"))
    assert ("lm_head.weight" in load_file(tmp_path / "merged" / "model.safetensors")) == (kind in ("different", "untied"))
    run("peft-run", "export", "--model", tmp_path / "model", "--adapter", tmp_path / "adapter", "--as", "gguf", "--type", "f32",
        "--output", tmp_path / "gguf")
    names = [tensor.name for tensor in gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").tensors]
    assert ("output.weight" in names) == (kind in ("different", "untied"))
    close(logits(peer_of_gguf(tmp_path / "gguf" / "model.gguf"), examples), expected)


def experiment(folder, more="", adapter='name = "lora"', model=""):
    (folder / "train.jsonl").write_text('{"text": "one two three"}\n{"text": "four five"}\n')
    (folder / "experiment.toml").write_text(
        f'[model]\npath = "model"\n{model}\n[data]\ntrain = "train.jsonl"\n[adapter]\n{adapter}\n[optimizer]\nlr = 1e-2\n'
        f'[training]\noutput_dir = "run"\nmax_steps = 2\nbatch_size = 2\n{more}\n'
    )
    return folder / "experiment.toml"


def test_training_uses_the_head_of_the_file(run, tmp_path):
    head_file(tmp_path, "different")
    done = run("peft-run", experiment(tmp_path))
    assert "different weights" in done.stderr + done.stdout
    assert "different weights" in run("peft-run", "plan", experiment(tmp_path)).stderr
    first = losses_of(tmp_path / "run")[0]
    change_json(tmp_path / "model" / "config.json", tie_word_embeddings=False)
    run("peft-run", experiment(tmp_path, "overwrite_output_dir = true"))
    assert losses_of(tmp_path / "run")[0] == first


@pytest.mark.parametrize("named", ["float16", "auto", None, "absent"])
@pytest.mark.parametrize("keys", [("torch_dtype",), ("dtype",), ("torch_dtype", "dtype")])
def test_merge_names_the_dtype_of_the_files(run, tmp_path, named, keys):
    save_llama(tmp_path / "model", dtype=torch.bfloat16)
    peft_adapter(tmp_path, target_modules=["q_proj"])
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    for key in ("torch_dtype", "dtype"):
        config.pop(key, None)
    file.write_text(json.dumps(config if named == "absent" else config | dict.fromkeys(keys, named)))
    _, done = merged(run, tmp_path, "adapter")
    assert {tensor.dtype for tensor in load_file(tmp_path / "merged" / "model.safetensors").values()} == {torch.bfloat16}
    assert "merged in bfloat16:" in done.stdout
    receipt = json.loads((tmp_path / "merged" / "merge_receipt.json").read_text())
    assert receipt["dtype"] == "bfloat16" and set(receipt["dtypes"]) == {"bfloat16"}
    assert all(module["dtype"] == "bfloat16" for module in receipt["modules"].values())
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    names = {config[key] for key in ("torch_dtype", "dtype") if key in config}
    assert names == {"bfloat16"}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype == torch.bfloat16


def test_merge_names_several_dtypes(run, tmp_path):
    save_llama(tmp_path / "model", dtype=torch.bfloat16)
    change_tensors(tmp_path / "model" / "model.safetensors",
                   lambda t: {name: v.float() if "norm" in name else v for name, v in t.items()})
    peft_adapter(tmp_path, target_modules=["q_proj"])
    _, done = merged(run, tmp_path, "adapter")
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    receipt = json.loads((tmp_path / "merged" / "merge_receipt.json").read_text())
    narrow = sum(tensor.dtype == torch.bfloat16 for tensor in weights.values())
    assert receipt["dtype"] == "bfloat16"
    assert receipt["dtypes"] == {"bfloat16": narrow, "float32": len(weights) - narrow}
    assert f"of {len(weights)} tensors, {len(weights) - narrow} in float32" in done.stdout


def test_lost_changes_are_one_warning(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path, target_modules="all-linear", lora_alpha=1e-4)
    done = run("peft-run", "export", "--model", tmp_path / "model", "--adapter", tmp_path / "adapter", "--as", "gguf", "--type",
               "q8_0", "--output", tmp_path / "gguf")
    printed = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert len(printed) == 1 and "outweighs the adapter's change" in printed[0] and "--type f32" in printed[0]


HARMLESS = {"_from_model_config": True, "keys_to_ignore_at_inference": ["past_key_values"], "attn_implementation": "sdpa",
            "bos_token": "<s>", "layer_types": ["full_attention"] * 2, "max_sequence_length": 128, "neftune_noise_alpha": 5,
            "pretraining_tp": 2, "use_cache": False, "unsloth_version": "2025.1", "temperature": 0.5, "top_p": 0.9, "max_length": 9,
            "torch_dtype": "auto", "quantization_config": None}


def test_harmless_keys_change_nothing(tmp_path):
    """The same logits with them as without, in transformers and here."""
    save_llama(tmp_path / "model")
    examples = random_examples(258)
    before = model_answer(tmp_path, tmp_path / "model", examples)["logits"]
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    without_null = {key: value for key, value in HARMLESS.items() if value is not None and value != "auto"}
    file.write_text(json.dumps(config | without_null))
    close(logits(theirs_of(tmp_path), examples), before)
    file.write_text(json.dumps(config | HARMLESS))
    assert torch.equal(model_answer(tmp_path, tmp_path / "model", examples)["logits"], before)


def test_every_key_of_the_base_class_is_known(run, tmp_path):
    """What transformers' PreTrainedConfig writes of its own, with its defaults, and every default of generation."""
    save_llama(tmp_path / "model")
    more = transformers.PreTrainedConfig().to_dict() | transformers.GenerationConfig._get_default_generation_params()
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(more | json.loads(file.read_text()), default=str))
    run("peft-run", *GENERATE, tmp_path / "model")


def test_unknown_keys_of_a_model(run, tmp_path):
    """All in one error; ignored, noted and kept in the merged config if asked."""
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    change_json(tmp_path / "model" / "config.json", odd=1, strange="x")
    of = ["--model", tmp_path / "model", "--adapter", tmp_path / "adapter"]
    for command in (["generate", "--raw", "--prompt", "a", "--max-new-tokens", "1"], ["merge", "--output", tmp_path / "merged"],
                    ["export", "--as", "lora", "--output", tmp_path / "lora"],
                    ["export", "--as", "gguf", "--output", tmp_path / "gguf"],
                    ["export", "--as", "gguf-adapter", "--output", tmp_path / "gguf-adapter"]):
        printed = run("peft-run", *command, *of, code=3).stderr
        assert "unknown keys 'odd', 'strange'" in printed and "--ignore-unknown" in printed
        assert "warning: " in (printed := run("peft-run", *command, *of, "--ignore-unknown").stderr)
        assert "ignored unknown keys 'odd', 'strange'" in printed
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["odd"] == 1
    assert "ignore_unknown" in run("peft-run", experiment(tmp_path), code=3).stderr
    run("peft-run", experiment(tmp_path, model="ignore_unknown = true"))


def test_unknown_keys_of_an_adapter(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    config = tmp_path / "adapter" / "adapter_config.json"
    change_json(config, peft_version="0.99.0", newer=None, newest=False, runtime_config={"ephemeral_gpu_offload": True})
    with_adapter = [*GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter"]
    run("peft-run", *with_adapter)
    change_json(config, newer="much", newest={"on": 1})
    printed = run("peft-run", *with_adapter, code=3).stderr
    assert "unknown keys 'newer', 'newest' in a file of HF PEFT 0.99.0" in printed and "--ignore-unknown" in printed
    assert "note: " in (printed := run("peft-run", *with_adapter, "--ignore-unknown").stderr)
    assert "ignored unknown keys 'newer', 'newest'" in printed
    further = experiment(tmp_path, adapter='init_from = "adapter"')
    assert "ignore_unknown" in run("peft-run", further, code=3).stderr
    run("peft-run", experiment(tmp_path, adapter='init_from = "adapter"', model="ignore_unknown = true"))


TYING = [
    {"target_modules": ["embed_tokens", "q_proj"]},
    {"target_modules": ["lm_head", "q_proj"]},
    {"target_modules": ["embed_tokens", "lm_head", "v_proj"], "alpha_pattern": {"lm_head": 3}},
    {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]},
    {"target_modules": ["q_proj"]},
]


@pytest.mark.parametrize("options", TYING)
def test_ensure_weight_tying(run, tmp_path, options):
    """An adapter of HF PEFT's: its logits, merged, and tied only where it is one weight."""
    save_llama(tmp_path / "model", tie_word_embeddings=True)
    theirs = peft_adapter(tmp_path, name="first", ensure_weight_tying=True, **options)
    with torch.no_grad():  # modules_to_save start as the base
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad and ("modules_to_save" in name or "token" in name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(tmp_path / "adapter")
    examples = random_examples(258)
    expected = logits(theirs.eval(), examples)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"], expected)
    loaded, _ = merged(run, tmp_path, "adapter")
    close(logits(loaded, examples), expected)
    tied = json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"]
    assert tied == ("alpha_pattern" not in options)


@pytest.mark.parametrize("options", TYING[:2] + TYING[3:6])
def test_training_with_ensure_weight_tying(run, tmp_path, options):
    """What is saved is loaded by HF PEFT with the same result, and embedding and head remain one weight."""
    save_llama(tmp_path / "model", tie_word_embeddings=True)
    adapter = "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
    run("peft-run", experiment(tmp_path, adapter=f'name = "lora"\nensure_weight_tying = true\n{adapter}'))
    theirs = theirs_of(tmp_path, "run")
    assert theirs.peft_config["default"].ensure_weight_tying
    examples = random_examples(258)
    expected = logits(theirs, examples)
    assert apart(expected, logits(theirs_of(tmp_path), examples)) > 1e-3
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "run")["logits"], expected)
    merged(run, tmp_path, "run")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"]


def test_training_of_tied_modules_equals_hf_peft(run, tmp_path):
    """modules_to_save with ensure_weight_tying is one parameter in HF PEFT, too: its losses."""
    save_llama(tmp_path / "model", tie_word_embeddings=True)
    run("peft-run", experiment(
        tmp_path, adapter='name = "lora"\ninit_lora_weights = true\ntarget_modules = ["q_proj"]\nmodules_to_save = ["embed_tokens"]\n'
                          'ensure_weight_tying = true'))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    model = theirs_of(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"],
                                                           modules_to_save=["embed_tokens"], ensure_weight_tying=True))
    first = load_file(tmp_path / "run" / "adapter_model.safetensors")
    head, embedding = (first[f"base_model.model.{name}.weight"] for name in ("lm_head", "model.embed_tokens"))
    assert torch.equal(head, embedding)
    ids = [tokenizer(text)["input_ids"] + [1] for text in ("one two three", "four five")]
    targets = sum(len(row) - 1 for row in ids)
    with torch.no_grad():
        loss = sum(model(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss * (len(row) - 1) for row in ids) / targets
    within("first loss", abs(losses_of(tmp_path / "run")[0] - loss.item()), 1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ["q_proj", "v_proj", "nowhere"]},
        {"exclude_modules": ["nowhere"]},
        {"layers_to_transform": [0, 1, 77]},
        {"rank_pattern": {"nowhere": 3}, "alpha_pattern": {r"layers\.9\..*": 2}},
        {"modules_to_save": ["classifier"]},
        {"trainable_token_indices": {"nowhere": [1]}},
    ],
)
def test_names_that_the_model_lacks(run, tmp_path, changes):
    """The tensors of a finished adapter decide; in an experiment such a name is an error."""
    save_llama(tmp_path / "model")
    theirs = peft_adapter(tmp_path, target_modules=["q_proj", "v_proj"])
    change_json(tmp_path / "adapter" / "adapter_config.json", **changes)
    examples = random_examples(258)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"], logits(theirs, examples))
    run("peft-run", experiment(tmp_path, adapter='init_from = "adapter"'))
    table = {"target_modules": ["q_proj", "v_proj"]} | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    lines += [f"{key} = {{ '{name}' = {json.dumps(v)} }}" for key, value in table.items() if isinstance(value, dict)
              for name, v in value.items()]
    assert "matches nothing" in (printed := run("peft-run", experiment(
        tmp_path, "overwrite_output_dir = true", adapter='name = "lora"\n' + "\n".join(lines)), code=2).stderr) or "77" in printed


def test_adapter_of_other_modules_is_refused(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path, target_modules=["q_proj"])
    change_json(tmp_path / "adapter" / "adapter_config.json", target_modules=["nowhere"])
    assert "target_modules" in run("peft-run", *GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter", code=3).stderr


ALL = {"target_modules": ["q_proj", "v_proj"]}
FINISHED = [
    (peft.LoKrConfig, {"r": 4, "init_weights": False}, {"init_weights": "lycoris", "rank_dropout": 0.1, "module_dropout": 0.2,
                                                        "rank_dropout_scale": True}),
    (peft.LoHaConfig, {"r": 4, "init_weights": False}, {"rank_dropout": 0.1, "module_dropout": 0.2}),
    (peft.OFTConfig, {"oft_block_size": 4, "init_weights": False}, {"module_dropout": 0.1}),
    (peft.BOFTConfig, {"boft_block_size": 4, "init_weights": False}, {"boft_dropout": 0.1}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"lora_dropout": 1.0, "init_lora_weights": "newest"}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"init_lora_weights": "eva", "eva_config": {"rho": 2.0, "newer": 1}}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"init_lora_weights": "lora_ga", "lora_ga_config": {"direction": "odd"}}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"init_lora_weights": "corda", "corda_config": {"cache_file": "x"}}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 2}}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"init_lora_weights": "orthogonal"}),
    (peft.LoraConfig, {"init_lora_weights": False}, {"init_lora_weights": "pissa_niter_2000000000"}),  # without 2·10⁹ iterations
    (peft.AdaLoraConfig, {"init_r": 4, "target_r": 2, "total_step": 9, "init_lora_weights": False}, {"r": 3}),
]


@pytest.mark.parametrize("config,options,changes", FINISHED)
def test_dropout_and_initialization_of_a_finished_adapter(run, tmp_path, config, options, changes):
    """Neither changes what is computed. AdaLoRA's random factors enlarge the rounding of both sides to 1e-5 of the exact logits."""
    bound = 4e-5 if config is peft.AdaLoraConfig else 1e-5
    save_llama(tmp_path / "model")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(theirs_of(tmp_path), config(task_type="CAUSAL_LM", **(ALL | options)))
        theirs.save_pretrained(tmp_path / "adapter")
    change_json(tmp_path / "adapter" / "adapter_config.json", **changes)
    examples = random_examples(258)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"],
          logits(theirs.eval(), examples), bound)
    if "rank_dropout" in changes:
        name = "lokr" if config is peft.LoKrConfig else "loha"
        table = f'name = "{name}"\nrank_dropout = 0.1'
        assert "rank_dropout" in run("peft-run", experiment(tmp_path, adapter=table), code=2).stderr


def with_adapter_name(name):
    """As in the state_dict() of HF PEFT's model."""
    for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"):
        name = name.replace(f"{part}.", f"{part}.default.")
        if name.endswith(part):
            name += ".default"
    return name


def test_keys_with_the_adapter_name(tmp_path):
    save_llama(tmp_path / "model")
    theirs = peft_adapter(tmp_path, target_modules=["q_proj", "embed_tokens"], modules_to_save=["lm_head"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    change_tensors(file, lambda t: {with_adapter_name(name): tensor for name, tensor in t.items()})
    assert any(".default." in name for name in load_file(file))
    examples = random_examples(258)
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"], logits(theirs, examples))
    change_tensors(file, lambda t: {name.replace("lm_head.weight", "lm_head.modules_to_save.default.weight"): tensor
                                    for name, tensor in t.items()})
    close(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")["logits"], logits(theirs, examples))
    change_tensors(file, lambda t: t | {name.replace(".default", ""): tensor.clone() for name, tensor in t.items()})
    with pytest.raises(AssertionError, match="with and without the adapter's name"):
        model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter")


@pytest.mark.parametrize("prefix,words", [("module.", "DistributedDataParallel"), ("_orig_mod.", "torch.compile")])
def test_keys_of_a_wrapped_model(run, tmp_path, prefix, words):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    change_tensors(tmp_path / "adapter" / "adapter_model.safetensors", lambda t: {prefix + name: v for name, v in t.items()})
    printed = run("peft-run", *GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter", code=3).stderr
    assert "unexpected: " + prefix in printed and words in printed and "save_pretrained" in printed


@pytest.mark.parametrize("form", ["gguf-adapter", "lora", "gguf", "merge"])
def test_alpha_that_is_not_finite(run, tmp_path, form):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    change_json(tmp_path / "adapter" / "adapter_config.json", lora_alpha=1e308)
    command = ["merge"] if form == "merge" else ["export", "--as", form]
    printed = run("peft-run", *command, "--model", tmp_path / "model", "--adapter", tmp_path / "adapter", "--output",
                  tmp_path / "out", code=3).stderr
    assert "'lora_alpha' must be a number, not one beyond 1e30" in printed and not (tmp_path / "out").exists()


def test_eval_of_a_loss_that_is_not_finite(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    change_json(tmp_path / "adapter" / "adapter_config.json", lora_alpha=1e30)
    (tmp_path / "eval.jsonl").write_text('{"text": "one two three"}\n')
    done = run("peft-run", "eval", "--model", tmp_path / "model", "--adapter", tmp_path / "adapter", "--data",
               tmp_path / "eval.jsonl", code=6)
    assert "the loss is not finite" in done.stderr and "base" in done.stdout


def test_base_name(run, tmp_path):
    """AutoPeftModel loads the base by this name; the card has it, too."""
    save_llama(tmp_path / "model")
    run("peft-run", experiment(tmp_path, model='base_name = "org/name"'))
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/name"
    assert 'base_model: "org/name"' in (tmp_path / "run" / "README.md").read_text()


def test_note_names_the_base_of_the_adapter(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    config = tmp_path / "adapter" / "adapter_config.json"
    with_adapter = [*GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter"]
    change_json(config, base_model_name_or_path="org/name")
    printed = run("peft-run", *with_adapter).stderr
    assert "was trained on 'org/name'" in printed and "does not say" not in printed
    change_json(config, base_model_name_or_path=None)
    assert "does not say which base it was trained on" in run("peft-run", *with_adapter).stderr


def test_what_is_not_an_adapter_says_what_it_is(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)

    def refusal(path):
        return run("peft-run", *GENERATE, tmp_path / "model", "--adapter", path, code=3).stderr

    (tmp_path / "trainer").mkdir()
    (tmp_path / "adapter").rename(tmp_path / "trainer" / "checkpoint-5")
    assert f"give one of them, such as {tmp_path}/trainer/checkpoint-5" in refusal(tmp_path / "trainer")
    adapter = tmp_path / "trainer" / "checkpoint-5"
    run("peft-run", *GENERATE, tmp_path / "model", "--adapter", adapter)
    assert "is a file; give the folder" in refusal(adapter / "adapter_model.safetensors")
    (tmp_path / "hub" / "snapshots").mkdir(parents=True)
    adapter.rename(tmp_path / "hub" / "snapshots" / "abc")
    adapter = tmp_path / "hub" / "snapshots" / "abc"
    assert f"give {adapter}" in refusal(tmp_path / "hub")
    assert "it is a model, not an adapter" in refusal(tmp_path / "model")
    assert "hf download org/name" in refusal("org/name")
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    printed = refusal(adapter)
    assert "a Python pickle, adapter_model.bin" in printed and "save_pretrained" in printed


def test_bone_is_miss(run, tmp_path):
    """HF PEFT's older name of the method."""
    save_llama(tmp_path / "model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(theirs_of(tmp_path), peft.MissConfig(task_type="CAUSAL_LM", r=4, init_weights=False, **ALL))
        theirs.save_pretrained(tmp_path / "adapter")
    change_json(tmp_path / "adapter" / "adapter_config.json", peft_type="BONE")
    printed = run("peft-run", *GENERATE, tmp_path / "model", "--adapter", tmp_path / "adapter", code=3).stderr
    assert "BONE" in printed and "MiSS" in printed


def test_options_with_init_from(run, tmp_path):
    save_llama(tmp_path / "model")
    peft_adapter(tmp_path)
    printed = run("peft-run", experiment(tmp_path, adapter='init_from = "adapter"\nr = 4'), code=2).stderr
    assert "'r' next to init_from: the method's options are those of that adapter" in printed


def test_other_quantizations(run, tmp_path):
    save_llama(tmp_path / "model")
    printed = run("peft-run", "export", "--model", tmp_path / "model", "--as", "gguf", "--type", "q4_k_m", "--output",
                  tmp_path / "out", code=2).stderr
    assert "unsupported export type 'q4_k_m'" in printed and "llama-quantize" in printed
