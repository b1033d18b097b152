"""Several adapters on one model: each adapter trained here loads in HF PEFT, and there, merged from the innermost outwards, or active at
once where HF PEFT supports it, they compute the same; two LoRAs train like HF PEFT's; all commands accept several adapters."""

import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from method_support import TEXTS, base_model, batch, toml
from model_support import apart, farthest, losses_of, model_answer, peer_answer, peer_step, random_examples, within

ALL = {"target_modules": "all-linear"}
LORA = {"name": "lora", "r": 4, "init_lora_weights": False}
IA3 = {"name": "ia3", "init_ia3_weights": False}
FED = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
# outermost first
STACKS = {
    "apart": [LORA | {"target_modules": ["q_proj"]}, IA3 | FED],
    "ia3_around_lora": [IA3 | ALL, LORA | ALL],
    "lora_around_ia3": [LORA | ALL, IA3 | ALL | {"adapter_name": "scales"}],
    "three": [LORA | {"target_modules": ["v_proj"]}, IA3 | FED, {"name": "oft", "oft_block_size": 4, "init_weights": False} | ALL],
    "ia3_around_dora": [IA3 | FED, LORA | ALL | {"use_dora": True, "bias": "lora_only"}],
}


def train(run, folder, adapters, name="run", steps=3, code=0, lr=1e-2):
    """Trains these adapters with peft-run; returns their folders, the outermost first."""
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    tables = "".join("[[adapter]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in one.items()) for one in adapters)
    experiment = folder / f"{name}.toml"
    experiment.write_text(
        f"""[model]
path = "model"
[data]
train = "train.jsonl"
{tables}
[optimizer]
lr = {lr}
weight_decay = 0.0
[scheduler]
name = "constant"
[clipping]
name = "none"
[training]
output_dir = "{name}"
max_steps = {steps}
batch_size = {len(TEXTS)}
log_every = 1
save_every = {steps}
"""
    )
    printed = run("peft-run", experiment, code=code)
    names = []
    for one in adapters:
        names.append(one.get("adapter_name", "default" if "default" not in names else one["name"] if "name" in one else "lora"))
    return [folder / name if one == "default" else folder / name / one for one in names], printed


@pytest.fixture
def tiny(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_llama(tmp_path / "model", attention_bias=True)
    return tmp_path


def loaded(model, folder):
    """HF PEFT's model of a folder; no key may be missing."""
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        model = peft.PeftModel.from_pretrained(model, folder)
    assert not [warning for warning in printed if "keys" in str(warning.message)]
    return model


@pytest.mark.parametrize("name", STACKS)
def test_each_loads_in_hf_peft_and_outputs_agree(run, tiny, name):
    folders, result = train(run, tiny, STACKS[name])
    assert "adapters, outermost first: 'default' " in result.stdout
    model = base_model(tiny)
    for folder in reversed(folders[1:]):
        model = loaded(model, folder).merge_and_unload()
    model = loaded(model, folders[0]).eval()
    examples = random_examples(model.config.vocab_size)
    with torch.no_grad():
        expected, loss = peer_answer(model, examples)
    ours = model_answer(tiny, tiny / "model", examples, adapter=folders)
    within("logits", apart(ours["logits"], expected), 2e-5)
    within("loss", abs(ours["loss"] - loss) / loss, 1e-5)
    alone = model_answer(tiny, tiny / "model", examples, adapter=folders[:1])
    assert apart(ours["logits"], alone["logits"]) > 1e-3

    run("peft-run", "merge", "--model", tiny / "model", *(word for folder in folders for word in ("--adapter", folder)),
        "--output", tiny / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tiny / "merged", dtype=torch.float32)
    with torch.no_grad():
        within("merged", apart(peer_answer(merged, examples)[0], expected), 2e-5)


# outermost first; their virtual tokens are concatenated
VIRTUAL = {
    "prompt_and_prefix": [{"name": "prompt_tuning", "num_virtual_tokens": 3}, {"name": "prefix_tuning", "num_virtual_tokens": 4}],
    "prefix_and_p": [{"name": "prefix_tuning", "num_virtual_tokens": 2},
                     {"name": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 8}],
    "two_prompts": [{"name": "p_tuning", "num_virtual_tokens": 2}, {"name": "prompt_tuning", "num_virtual_tokens": 5}],
    "two_prefixes": [{"name": "prefix_tuning", "num_virtual_tokens": 2},
                     {"name": "prefix_tuning", "num_virtual_tokens": 3, "adapter_name": "second"}],
    "adaption_and_prompt": [{"name": "adaption_prompt", "adapter_len": 4, "adapter_layers": 2},
                            {"name": "prompt_tuning", "num_virtual_tokens": 3}],
}


def virtual_logits(folder, adapters, folders):
    """PEFT has one such method active at a time; here is what it gives to transformers for each, by hand: ids → logits [T, vocabulary]."""
    model = base_model(folder).eval()
    config, rows, layers = model.config, [], [[] for _ in range(model.config.num_hidden_layers)]
    for one, place in zip(adapters, folders):
        if one["name"] == "adaption_prompt":
            model = loaded(model, place).eval()
            continue
        prompt = load_file(place / "adapter_model.safetensors")["prompt_embeddings"]
        if one["name"] != "prefix_tuning":
            rows.append(prompt)
            continue
        # As PeftModel.get_prompt lays it out: [2 · layers, 1, heads, n, head_dim].
        halves = prompt.view(1, len(prompt), 2 * len(layers), config.num_key_value_heads, -1).permute(2, 0, 3, 1, 4)
        for layer, own in enumerate(layers):
            own.append((halves[2 * layer], halves[2 * layer + 1]))
    taken = sum(keys.shape[2] for keys, _ in layers[0])

    def logits(ids):
        x = torch.cat([*rows, model.get_input_embeddings()(torch.tensor(ids))])[None]
        cache = transformers.DynamicCache()
        for layer, own in enumerate(layers):
            if own:
                cache.update(torch.cat([keys for keys, _ in own], 2), torch.cat([values for _, values in own], 2), layer)
        mask, positions = torch.ones(1, taken + x.shape[1]), torch.arange(taken, taken + x.shape[1])[None]
        more = {"past_key_values": cache} if taken else {}
        return model(inputs_embeds=x, attention_mask=mask, position_ids=positions, **more).logits[0][-len(ids):]

    return logits


@pytest.mark.parametrize("name", VIRTUAL)
def test_virtual_tokens_of_several_adapters_concatenate(run, tiny, name):
    folders, _ = train(run, tiny, VIRTUAL[name], lr=5e-2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny / "model")
    examples = random_examples(258)
    with torch.no_grad():
        logits = virtual_logits(tiny, VIRTUAL[name], folders)
        ours = model_answer(tiny, tiny / "model", examples, adapter=folders)
        within("logits", apart(ours["logits"], torch.cat([logits(ids) for ids, _ in examples])), 2e-5)
        for one in folders:
            alone = model_answer(tiny, tiny / "model", examples, adapter=one)
            assert apart(ours["logits"], alone["logits"]) > 1e-3
        prompt = ids = tokenizer.encode("The sum of")
        while len(ids) < len(prompt) + 12 and ids[-1] != tokenizer.eos_token_id:
            ids = [*ids, int(logits(ids)[-1].argmax())]
    printed = run("peft-run", "generate", "--raw", "--model", tiny / "model", "--prompt", "The sum of", "--max-new-tokens", 12,
               *(word for folder in folders for word in ("--adapter", folder))).stdout
    expected = tokenizer.decode(ids[len(prompt):], skip_special_tokens=True)
    assert printed.removesuffix("\n") == expected.replace("\r", "\n")


def test_virtual_tokens_share_the_positions(run, tiny):
    adapters = [{"name": "prompt_tuning", "num_virtual_tokens": 70}, {"name": "prefix_tuning", "num_virtual_tokens": 60}]
    _, result = train(run, tiny, adapters, code=2)
    assert "the model has 128 positions, which leaves none for the text; other adapters use 70" in result.stderr


def test_mixed_model(run, tiny):
    """HF PEFT's way to activate two methods at the same time."""
    lokr = {"name": "lokr", "r": 2, "init_weights": False, "target_modules": ["k_proj", "v_proj"]}
    folders, _ = train(run, tiny, [LORA | {"target_modules": ["q_proj"]}, lokr])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftMixedModel.from_pretrained(base_model(tiny), folders[0])
        model.load_adapter(folders[1], "lokr")
    model.set_adapter(["default", "lokr"])
    examples = random_examples(model.config.vocab_size)
    with torch.no_grad():
        expected, _ = peer_answer(model.eval(), examples)
    within("logits", apart(model_answer(tiny, tiny / "model", examples, adapter=folders)["logits"], expected), 2e-5)


def test_two_loras_train_like_hf_peft(run, tiny):
    """Both active, each with a rate of its own: the same losses and tensors as in PEFT, from the run's folder as it is."""
    adapters = [LORA | {"target_modules": ["q_proj", "v_proj"]}, LORA | ALL | {"r": 2, "lr": 2e-2, "adapter_name": "second"}]
    starts, _ = train(run, tiny, adapters, name="start", steps=1, lr=0.0)
    # lr = 0 left the first as it began; the second is taken as one step of its own rate left it.
    again = [{"init_from": str(starts[0])}, {"init_from": str(starts[1]), "lr": 2e-2, "adapter_name": "second"}]
    folders, _ = train(run, tiny, again, steps=8)
    losses = losses_of(folders[0])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.PeftModel.from_pretrained(base_model(tiny), starts[0], is_trainable=True)
        model.load_adapter(starts[1], "second", is_trainable=True)
    model.base_model.set_adapter(["default", "second"])
    groups = [{"params": [p for n, p in model.named_parameters() if f".{name}." in n], "lr": lr}
              for name, lr in (("default", 1e-2), ("second", 2e-2))]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    data = batch(transformers.AutoTokenizer.from_pretrained(tiny / "model"))
    expected = []
    for _ in range(8):
        expected.append(peer_step(model(**data).loss, optimizer))
    assert expected[-1] < expected[0]
    within("losses", farthest(losses, expected), 1e-4)
    for folder, name in zip(folders, ("default", "second")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = peft.get_peft_model_state_dict(model, adapter_name=name)
        ours = load_file(folder / "adapter_model.safetensors")
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], rtol=1e-3, atol=2e-4, msg=lambda text: f"{key}: {text}")

    # HF PEFT saves both in the same layout as ours.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(tiny / "theirs")
    assert {file.relative_to(tiny / "theirs") for file in (tiny / "theirs").rglob("adapter_model.safetensors")} == {
        folder.relative_to(folders[0]) / "adapter_model.safetensors" for folder in folders}


def test_run_output_works_in_all_commands(run, tiny):
    folders, result = train(run, tiny, STACKS["apart"])
    words = [word for folder in folders for word in ("--adapter", folder)]
    for folder in (tiny / "run" / "checkpoint-3", tiny / "run" / "checkpoint-3" / "ia3"):
        assert (folder / "adapter_model.safetensors").exists()
    assert all(f"adapter: {folder} (" in result.stdout for folder in folders)
    card = (tiny / "run" / "README.md").read_text()
    assert "# LORA + IA3 adapter" in card and "--adapter THIS_FOLDER --adapter THIS_FOLDER/ia3" in card

    resolved = (tiny / "run" / "resolved.toml").read_text()
    assert resolved.count("[[adapter]]") == 2 and resolved.index('"lora"') < resolved.index('"ia3"')
    again = tiny / "again.toml"
    again.write_text(resolved)
    run("peft-run", again, "--set", f"training.output_dir={tiny / 'again'}")
    for folder in folders:
        same = tiny / "again" / folder.relative_to(folders[0])
        assert (same / "adapter_model.safetensors").read_bytes() == (folder / "adapter_model.safetensors").read_bytes()

    plan = run("peft-run", "plan", tiny / "run.toml", "--set", "adapter.1.lr=0.5").stdout
    assert "group 'default'" in plan and "group 'ia3': " in plan and ", lr 0.5," in plan
    assert "already holds an adapter" in run("peft-run", tiny / "run.toml", code=2).stderr
    assert "add the index of one of them" in run("peft-run", "plan", tiny / "run.toml", "--set", "adapter.r=2", code=2).stderr

    rows = run("peft-run", "eval", "--model", tiny / "model", "--data", tiny / "train.jsonl", "--together", *words).stdout
    assert f"{folders[0]} + {folders[1]}" in rows
    base, both = (float(line.split()[0]) for line in rows.splitlines()[-2:])
    assert base != both and both < max(losses_of(tiny / "again"))
    assert run("peft-run", "generate", "--model", tiny / "model", "--prompt", "The sum", "--raw", "--max-new-tokens", 4, *words)
