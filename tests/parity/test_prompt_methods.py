"""Methods that add virtual tokens, each compared with HF PEFT: prompts and prefixes made there have the same outputs and gradients here;
ones made here have HF PEFT's file and config, and HF PEFT computes the same with them; training takes the same steps, with activation
checkpointing and packing; greedy generation with a cache writes the same text; merging them is refused."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_llama import save_llama

from method_support import base_model, batch, check_form, check_refusal, check_training, made_there, toml, train
from model_support import apart, farthest, losses_of, model_answer, peer_answer, random_examples, within

PROMPT, P_TUNING = peft.PromptTuningConfig, peft.PromptEncoderConfig
PREFIX, ADAPTION = peft.PrefixTuningConfig, peft.AdaptionPromptConfig
# method, PEFT's config class, options of both
CASES = [
    ("prompt_tuning", PROMPT, {"num_virtual_tokens": 5}),
    ("prompt_tuning", PROMPT, {"num_virtual_tokens": 3, "prompt_tuning_init": "SAMPLE_VOCAB"}),
    ("p_tuning", P_TUNING, {"num_virtual_tokens": 4, "encoder_hidden_size": 24}),
    ("p_tuning", P_TUNING, {"num_virtual_tokens": 3, "encoder_reparameterization_type": "LSTM"}),
    ("prefix_tuning", PREFIX, {"num_virtual_tokens": 5}),
    ("prefix_tuning", PREFIX, {"num_virtual_tokens": 3, "prefix_projection": True, "encoder_hidden_size": 20}),
    ("prefix_tuning", PREFIX, {"num_virtual_tokens": 4, "init_weights": "zero"}),
    ("adaption_prompt", ADAPTION, {"adapter_len": 4, "adapter_layers": 2}),
    ("adaption_prompt", ADAPTION, {"adapter_len": 6, "adapter_layers": 1}),
]
NAMES = [f"{case[0]}-{sum(other[0] == case[0] for other in CASES[:i])}" for i, case in enumerate(CASES)]
every = pytest.mark.parametrize("method,config,options", CASES, ids=NAMES)


def tiny(folder):
    save_llama(folder / "model", attention_bias=True, mlp_bias=True)


def encoder_of(model):
    """Parameters of HF PEFT's encoder, under the names of adapter_training.safetensors."""
    return {"prompt_encoder." + name: tensor.detach().clone()
            for name, tensor in model.prompt_encoder["default"].state_dict().items()}


def reparameterized(options):
    return options.get("prefix_projection", False) or "encoder_hidden_size" in options or \
        "encoder_reparameterization_type" in options


def gradients_of(model, options):
    """HF PEFT's gradients, under the names of our files."""
    names = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("prompt_encoder."):
            name = name.replace(".default", "") if reparameterized(options) else "prompt_embeddings"
        names[name] = parameter.grad
    return names


@every
def test_loads_adapter_from_hf_peft(tmp_path, method, config, options):
    tiny(tmp_path)
    model, examples = made_there(tmp_path, config, options), random_examples(258)
    logits, loss = peer_answer(model, examples)
    loss.backward()
    theirs, gradients = tmp_path / "theirs", gradients_of(model, options)
    if reparameterized(options):  # of which PEFT saves what it makes
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=theirs)
        within("logits", apart(ours["logits"], logits.detach()), 2e-5)
        save_file(encoder_of(model), theirs / "adapter_training.safetensors")
    for fused in (True, False):
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=theirs, fused=fused)
        within("logits", apart(ours["logits"], logits.detach()), 2e-5)
        assert {name for name in ours if name.startswith("grad.")} == {"grad." + name for name in gradients}
        for name, gradient in gradients.items():
            within("gradients", apart(ours["grad." + name], gradient), 1e-4)


@every
def test_saved_file_equals_hf_peft(run, tmp_path, method, config, options):
    tiny(tmp_path)
    ours, tensors = check_form(run, tmp_path, method, config, options)
    examples = random_examples(258)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = peft.PeftModel.from_pretrained(base_model(tmp_path), ours).eval()
        expected, _ = peer_answer(theirs, examples)
    within("logits", apart(model_answer(tmp_path, tmp_path / "model", examples, adapter=ours)["logits"], expected), 2e-5)


def trainable_peer(folder, config, options):
    """HF PEFT cannot make such an adapter trainable again; it gets the encoder that peft-run saved."""

    def load(saved):
        if method_of(config) == "adaption_prompt":
            return peft.PeftModel.from_pretrained(base_model(folder), saved, is_trainable=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = peft.get_peft_model(base_model(folder), config(task_type="CAUSAL_LM", **options))
        if reparameterized(options):
            state = load_file(saved / "adapter_training.safetensors")
            state = {name.removeprefix("prompt_encoder."): tensor for name, tensor in state.items()}
        else:
            state = {"embedding.weight": load_file(saved / "adapter_model.safetensors")["prompt_embeddings"]}
        model.prompt_encoder["default"].load_state_dict(state)
        return model

    return load


def method_of(config):
    return next(method for method, other, _ in CASES if other is config)


@every
def test_training_equals_hf_peft(run, tmp_path, method, config, options):
    tiny(tmp_path)
    losses = check_training(run, tmp_path, method, options, steps=4, peer=trainable_peer(tmp_path, config, options))
    for name, more in {"recomputed": '[memory]\nactivation_checkpointing = "full"', "unfused": "fused = false"}.items():
        folder, _, _ = train(run, tmp_path, method, options, name=name, steps=4, more=more)
        within("losses", farthest(losses_of(folder), losses), 1e-4)


@every
def test_greedy_generation_equals_hf_peft(run, tmp_path, method, config, options):
    tiny(tmp_path)
    model = made_there(tmp_path, config, options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    prompt = "The sum of"
    ids = torch.tensor([tokenizer.encode(prompt)])
    with torch.no_grad():
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)[0]
    printed = run("peft-run", "generate", "--raw", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--prompt", prompt,
               "--max-new-tokens", 24, "--any-base").stdout
    expected = tokenizer.decode(made[ids.shape[1]:], skip_special_tokens=True)
    assert len(set(expected)) > 3
    assert printed.removesuffix("\n") == expected.replace("\r", "\n")  # as Python reads a program's output


@every
def test_selfcheck(run, method, config, options):
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={toml(value)}")]
    printed = run("peft-run", "selfcheck", f"adapter/{method}", *sets).stdout
    assert "BROKEN" not in printed
    assert "gradients match finite differences" in printed and "decoding with a cache gives the same outputs" in printed


@pytest.mark.parametrize("method,config,options,printed", [
    (*CASES[0], "'model.embed_tokens': its adapter cannot be expressed as weights, so it cannot be merged"),
    (*CASES[4], "'model.layers.0.self_attn' has no weights into which its adapter could be merged"),
    (*CASES[8], "'model.layers.1.self_attn' has no weights into which its adapter could be merged"),
], ids=["prompt_tuning", "prefix_tuning", "adaption_prompt"])
def test_merge_is_refused(run, tmp_path, method, config, options, printed):
    tiny(tmp_path)
    made_there(tmp_path, config, options)
    refused = run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--output", tmp_path / "out",
                  code=3)
    assert printed in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method,config,options", [CASES[0], CASES[2], CASES[4], CASES[7]], ids=["prompt", "p", "prefix", "adaption"])
def test_evaluation_and_packing(run, tmp_path, method, config, options):
    """The loss of `eval` and of training on packed rows equals HF PEFT's."""
    tiny(tmp_path)
    ours, _, _ = train(run, tmp_path, method, options, lr=0.0)
    theirs = peft.PeftModel.from_pretrained(base_model(tmp_path), ours).eval()
    with torch.no_grad():
        loss = theirs(**batch(transformers.AutoTokenizer.from_pretrained(tmp_path / "model"))).loss.item()
    packed, _, _ = train(run, tmp_path, method, options, name="packed", lr=0.0, data="packing = true\nmax_length = 512\n")
    within("losses", farthest(losses_of(packed), [loss]), 1e-5)
    printed = run("peft-run", "eval", "--model", tmp_path / "model", "--data", tmp_path / "train.jsonl", "--adapter", ours).stdout
    assert abs(float(printed.splitlines()[-1].split()[0]) - loss) < 1e-4


@pytest.mark.parametrize("method,config,options", [CASES[3], CASES[5]], ids=["p_tuning", "prefix_tuning"])
def test_training_continues_from_prompt_encoder(run, tmp_path, method, config, options):
    tiny(tmp_path)
    first, tensors, _ = train(run, tmp_path, method, options, name="first", steps=2)
    again, same, _ = train(run, tmp_path, method, {"init_from": "first"}, name="again", lr=0.0)
    assert torch.equal(same["prompt_embeddings"], tensors["prompt_embeddings"])
    encoder, other = (load_file(folder / "adapter_training.safetensors") for folder in (first, again))
    assert encoder.keys() == other.keys() and all(torch.equal(encoder[name], other[name]) for name in encoder)
    # One more step from there is the third step except for AdamW's moments: the loss is the same.
    third, _, _ = train(run, tmp_path, method, options, name="third", steps=3)
    within("losses", farthest(losses_of(again), losses_of(third)[2:]), 1e-5)

    experiment = tmp_path / "again.toml"
    experiment.write_text(experiment.read_text().replace('output_dir = "again"', 'output_dir = "more"'))
    save_file({"prompt_embeddings": tensors["prompt_embeddings"] + 1}, first / "adapter_model.safetensors", metadata={"format": "pt"})
    assert "does not belong to" in run("peft-run", experiment, code=3).stderr
    (first / "adapter_training.safetensors").unlink()
    assert "holds only the encoder's output" in run("peft-run", experiment, code=2).stderr
    run("peft-run", "generate", "--raw", "--model", tmp_path / "model", "--adapter", first, "--prompt", "a", "--max-new-tokens", 1)


@pytest.mark.parametrize("text,count", [("Say", 8), ("Say what is true.", 4)], ids=["repeated", "cut"])
def test_initialization_from_text(run, tmp_path, text, count):
    tiny(tmp_path)
    options = {"num_virtual_tokens": count, "prompt_tuning_init": "TEXT", "prompt_tuning_init_text": text}
    ours, tensors, config = train(run, tmp_path, "prompt_tuning", options, lr=0.0)
    there = options | {"tokenizer_name_or_path": str(tmp_path / "model")}
    theirs = peft.get_peft_model(base_model(tmp_path), PROMPT(task_type="CAUSAL_LM", **there))
    assert torch.equal(tensors["prompt_embeddings"], theirs.get_prompt_embedding_to_save("default"))
    assert {key: config[key] for key in there} == there
    # Loading it needs no tokenizer.
    (ours / "adapter_config.json").write_text(json.dumps(config | {"tokenizer_name_or_path": "nowhere"}))
    run("peft-run", "generate", "--raw", "--model", tmp_path / "model", "--adapter", ours, "--prompt", "a", "--max-new-tokens", 1)


@pytest.mark.parametrize(
    "method,options,printed",
    [
        ("prompt_tuning", {"num_virtual_tokens": 0}, "'num_virtual_tokens' must be positive"),
        ("prompt_tuning", {"num_virtual_tokens": 128}, "num_virtual_tokens: the model has 128 positions"),
        ("prompt_tuning", {"prompt_tuning_init": "TEXT"}, "'prompt_tuning_init' needs prompt_tuning_init_text"),
        ("prompt_tuning", {"prompt_tuning_init_text": "a"}, "'prompt_tuning_init_text' needs prompt_tuning_init"),
        ("prefix_tuning", {"token_dim": 32}, "token_dim: is 32, but this model has 16"),
        ("p_tuning", {"encoder_reparameterization_type": "GRU"}, 'must be "MLP" or "LSTM"'),
        ("adaption_prompt", {"adapter_layers": 3}, "adapter_layers: 3 is more than the model's 2 layers"),
        ("bottleneck", {"layers_to_transform": [2]}, "layers_to_transform: there is no layer 2"),
        ("bottleneck", {"variant": "serial"}, 'must be "houlsby", "pfeiffer" or "parallel"'),
    ],
)
def test_invalid_options(run, tmp_path, method, options, printed):
    check_refusal(run, tmp_path, method, options, printed)
