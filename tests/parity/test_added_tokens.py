"""Tokens added to a base's vocabulary ([model] added_tokens), with and without a tied head, whatever trains them: the saved tokenizer
has HF's ids; HF PEFT's AutoPeftModel loads the folder and computes the same, and a resized model that HF PEFT saves computes the
same here; training takes the same steps; merging and continued training preserve the model; the commands use the tokens; invalid
settings are refused."""

import json
import shutil
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_llama import save_llama

import method_support
from method_support import base_model, form, losses_of, train, train_there
from model_support import apart, farthest, model_answer, peer_answer, random_examples, within

ADDED = ["<tool>", "</tool>", "aaa"]
MODEL = f"added_tokens = {json.dumps(ADDED)}\n"
NEW = [258, 259, 260]
EMBEDDINGS = {"modules_to_save": ["embed_tokens", "lm_head"]}
# method, PEFT's config class, options of both
CASES = {
    "nothing": ("lora", peft.LoraConfig, {}),
    "full": ("lora", peft.LoraConfig, EMBEDDINGS),
    "rows": ("lora", peft.LoraConfig, {"trainable_token_indices": NEW}),
    "rows_of_head": ("lora", peft.LoraConfig, {"trainable_token_indices": {"lm_head": NEW[:2]}}),
    "adapted": ("lora", peft.LoraConfig, {"target_modules": ["embed_tokens", "q_proj"]}),
    "adapted_head": ("lora", peft.LoraConfig, {"target_modules": ["lm_head", "q_proj"]}),
    "rows_alone": ("trainable_tokens", peft.TrainableTokensConfig, {"token_indices": NEW}),
    "other": ("ia3", peft.IA3Config, {}),
    "prompt": ("prompt_tuning", peft.PromptTuningConfig, {"num_virtual_tokens": 3}),
}
#: where PEFT saves only what it wraps, so that the new rows of the other matrix are lost: ours keeps them
HEAD, EMBEDDING = "base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"
LOST = {"adapted": HEAD, "rows_alone": HEAD, "adapted_head": EMBEDDING}
every = pytest.mark.parametrize("case", CASES)
tied_or_not = pytest.mark.parametrize("tied", [False, True], ids=["apart", "tied"])


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    """With the tokens in them."""
    monkeypatch.setattr(method_support, "TEXTS", [f"<tool>add {i} aaaa</tool> {2 * i}." for i in range(4)])


def tiny(folder, tied=False):
    save_llama(folder / "model", tie_word_embeddings=tied)


def resized(folder):
    """The base and its tokenizer, as HF adds tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.add_tokens(ADDED) == len(ADDED)
    model = base_model(folder)
    model.resize_token_embeddings(len(tokenizer))
    return model, tokenizer


def loaded(folder, **options):
    """PEFT's own reading of an adapter's folder, the vocabulary included."""
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        model = peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    assert not [warning for warning in printed if "missing" in str(warning.message)]
    return model


def made_there(folder, case, tokenizer=True):
    """PEFT's model, all that it trains moved by random numbers, and saved; the new rows of the base are random, too."""
    _, config, options = CASES[case]
    model, words = resized(folder)
    embedding, head = (layer.weight.data for layer in (model.get_input_embeddings(), model.get_output_embeddings()))
    torch.manual_seed(2)
    for weight in (head, embedding):  # one and the same where they are tied
        weight[NEW] = 0.2 * torch.randn(len(NEW), weight.shape[1])
    if case in LOST and not model.config.tie_word_embeddings:
        other = head if LOST[case] == HEAD else embedding
        other[NEW] = other[:NEW[0]].mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model, config(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.eval().save_pretrained(folder / "theirs")
    if tokenizer:
        words.save_pretrained(folder / "theirs")
    return model


@every
@tied_or_not
def test_saved_file_equals_hf_peft(run, tmp_path, case, tied):
    """The folder is PEFT's: its keys are among those that PEFT would write, whose others are repeats."""
    tiny(tmp_path, tied)
    method, _, options = CASES[case]
    ours, tensors, _ = train(run, tmp_path, method, options, model=MODEL)
    with torch.no_grad():
        examples = random_examples(261)
        expected, _ = peer_answer(loaded(ours).eval(), examples)
        answer = model_answer(tmp_path, tmp_path / "model", examples, adapter=ours)
    within("logits", apart(answer["logits"], expected), 2e-5)

    made_there(tmp_path, case)
    theirs = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    more = {LOST[case]} if case in LOST and not (tied and LOST[case] == HEAD) else set()  # a tied head is the embedding
    shared = tensors.keys() - more
    assert more <= tensors.keys() and shared <= theirs.keys()
    assert form({name: tensors[name] for name in shared}) == form({name: theirs[name] for name in shared})
    for name in theirs.keys() - shared:
        assert any(torch.equal(theirs[name], theirs[other]) for other in shared), name

    words = transformers.AutoTokenizer.from_pretrained(ours)
    text = "x<tool> y aaaaa</tool>"
    assert words.encode(text) == resized(tmp_path)[1].encode(text)
    assert [words.convert_tokens_to_ids(token) for token in ADDED] == NEW


@every
@tied_or_not
@pytest.mark.parametrize("tokenizer", [True, False], ids=["with_tokenizer", "without"])
def test_loads_adapter_from_hf_peft(tmp_path, case, tied, tokenizer):
    tiny(tmp_path, tied)
    model, examples = made_there(tmp_path, case, tokenizer), random_examples(261)
    with torch.no_grad():
        expected, _ = peer_answer(model, examples)
    answer = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "theirs")
    within("logits", apart(answer["logits"], expected), 2e-5)


@pytest.mark.parametrize("case", ["full", "rows", "rows_alone"])
@tied_or_not
def test_training_equals_hf_peft(run, tmp_path, case, tied):
    tiny(tmp_path, tied)
    method, _, options = CASES[case]
    start, _, _ = train(run, tmp_path, method, options, name="start", lr=0.0, model=MODEL)
    ours, tensors, _ = train(run, tmp_path, method, options, steps=4, model=MODEL)
    model = loaded(start, is_trainable=True)
    losses = train_there(tmp_path, model, 4, tokenizer=transformers.AutoTokenizer.from_pretrained(start))
    within("losses", farthest(losses_of(ours), losses), 1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = peft.get_peft_model_state_dict(model)
    assert tensors.keys() - expected.keys() == ({HEAD} if case in LOST and not tied else set())
    for name in tensors.keys() & expected.keys():
        tensor = tensors[name]
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=2e-4, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("case", ["nothing", "full", "rows", "rows_of_head", "adapted", "rows_alone"])
@tied_or_not
def test_merge_preserves_outputs(run, tmp_path, case, tied):
    tiny(tmp_path, tied)
    model, examples = made_there(tmp_path, case), random_examples(261)
    run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--output", tmp_path / "out")
    with torch.no_grad():
        expected, _ = peer_answer(model, examples)
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        within("logits", apart(peer_answer(merged, examples)[0], expected), 2e-5)
    assert merged.config.vocab_size == len(merged.get_input_embeddings().weight) == 261
    if case in ("nothing", "rows", "rows_alone"):
        assert merged.config.tie_word_embeddings == tied
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert [words.convert_tokens_to_ids(token) for token in ADDED] == NEW


def test_commands_use_added_tokens(run, tmp_path):
    tiny(tmp_path)
    ours, _, _ = train(run, tmp_path, "lora", CASES["rows"][2], steps=20, lr=5e-2, model=MODEL, more="save_every = 10")
    plan = run("peft-run", "plan", tmp_path / "run.toml").stdout
    assert "vocabulary: 258 rows, now 261; added '<tool>' 258, '</tool>' 259, 'aaa' 260" in plan

    # Training saw each text as HF's tokenizer cuts it, and what is generated is what PEFT generates.
    words = transformers.AutoTokenizer.from_pretrained(ours)
    ids = torch.tensor([words.encode("<tool>add")])
    with torch.no_grad():
        made = loaded(ours).generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)[0]
    for folder in (ours, ours / "checkpoint-20"):
        printed = run("peft-run", "generate", "--raw", "--model", tmp_path / "model", "--adapter", folder, "--prompt", "<tool>add",
                   "--max-new-tokens", 16).stdout
        assert printed.removesuffix("\n") == words.decode(made[ids.shape[1]:], skip_special_tokens=True).replace("\r", "\n")

    rows = run("peft-run", "eval", "--model", tmp_path / "model", "--data", tmp_path / "train.jsonl", "--adapter", ours).stdout
    base, adapted = (float(line.split()[0]) for line in rows.splitlines()[-2:])
    assert adapted < base < 20  # the base has rows for the tokens, too

    # Continued training keeps the tokens.
    again, same, _ = train(run, tmp_path, "lora", {"init_from": "run"}, name="again", lr=0.0)
    tensors = load_file(ours / "adapter_model.safetensors")
    assert same.keys() == tensors.keys() and all(torch.equal(same[name], tensors[name]) for name in tensors)
    assert (again / "tokenizer.json").read_bytes() == (ours / "tokenizer.json").read_bytes()

    # A run that resumes from its checkpoint has them, too.
    shutil.copytree(ours, tmp_path / "full")
    shutil.rmtree(ours / "checkpoint-20")
    run("peft-run", tmp_path / "run.toml", "--resume")
    assert (ours / "adapter_model.safetensors").read_bytes() == (tmp_path / "full" / "adapter_model.safetensors").read_bytes()

    for as_what, code in (("gguf-adapter", 3), ("lora", 3)):
        printed = run("peft-run", "export", "--as", as_what, "--model", tmp_path / "model", "--adapter", ours, "--output",
                   tmp_path / as_what, code=code).stderr
        assert "low-rank" in printed and not (tmp_path / as_what).exists()


def test_export_as_lora_keeps_added_tokens(run, tmp_path):
    tiny(tmp_path)
    ours, _, _ = train(run, tmp_path, "lora", {}, steps=2, model=MODEL)
    run("peft-run", "export", "--as", "lora", "--model", tmp_path / "model", "--adapter", ours, "--output", tmp_path / "out")
    examples = random_examples(261)
    with torch.no_grad():
        expected, _ = peer_answer(loaded(ours).eval(), examples)
        within("logits", apart(peer_answer(loaded(tmp_path / "out").eval(), examples)[0], expected), 2e-5)
    printed = run("peft-run", "export", "--as", "gguf-adapter", "--model", tmp_path / "model", "--adapter", ours, "--output",
               tmp_path / "gguf", code=3).stderr
    assert "change the base's vocabulary" in printed and not (tmp_path / "gguf").exists()


def test_overwrite_removes_old_tokenizer_files(run, tmp_path):
    """A later adapter without added tokens is not read with those of the one before."""
    tiny(tmp_path)
    ours, _, _ = train(run, tmp_path, "lora", {}, model=MODEL)
    assert (ours / "tokenizer.json").exists()
    run("peft-run", tmp_path / "run.toml", "--set", "model.added_tokens=[]", "--set", "training.overwrite_output_dir=true")
    assert not (ours / "tokenizer.json").exists()
    run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", ours, "--output", tmp_path / "out")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").vocab_size == 258


def test_existing_rows_are_not_reinitialized(run, tmp_path):
    """A vocabulary with rows to spare takes tokens without growing."""
    save_llama(tmp_path / "model", vocab_size=300)
    ours, tensors, _ = train(run, tmp_path, "trainable_tokens", {"token_indices": NEW}, model=MODEL)
    assert [tuple(tensor.shape) for tensor in tensors.values()] == [(3, 32)]
    assert "vocabulary: 300 rows; added" in run("peft-run", "plan", tmp_path / "run.toml").stdout
    assert len(transformers.AutoTokenizer.from_pretrained(ours)) == 261


def test_embedding_shorter_than_vocabulary(tmp_path):
    """HF PEFT's adapter of a base that was truncated to its tokenizer."""
    save_llama(tmp_path / "model", vocab_size=300)
    model = base_model(tmp_path)
    model.resize_token_embeddings(270)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False)).eval()
        model.save_pretrained(tmp_path / "theirs")
    examples = random_examples(270)
    with torch.no_grad():
        expected, _ = peer_answer(model, examples)
    within("logits", apart(model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "theirs")["logits"], expected), 2e-5)


def test_invalid_added_tokens(run, tmp_path):
    tiny(tmp_path)
    ours, _, _ = train(run, tmp_path, "lora", {}, model=MODEL)
    for tokens, result in ((["<s>"], "'<s>' is already in the vocabulary"), (["<t>", "<t>"], "'<t>' is already in the vocabulary"),
                         ([""], "a token is empty")):
        refused = run("peft-run", "plan", tmp_path / "run.toml", "--set", f"model.added_tokens={json.dumps(tokens)}", code=2)
        assert "[model] added_tokens: " + result in refused.stderr

    # Two adapters with other tokens, or with other rows for the same ones, are of two models.
    other, _, _ = train(run, tmp_path, "lora", {}, name="other", model='added_tokens = ["<other>"]\n')
    both = ["--model", tmp_path / "model", "--adapter", ours, "--adapter"]
    result = run("peft-run", "generate", "--prompt", "a", "--raw", *both, other, code=3).stderr
    assert "added tokens differ from those of the adapter before it" in result
    shutil.copytree(ours, tmp_path / "moved")
    tensors = load_file(ours / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"][260] += 1
    save_file(tensors, tmp_path / "moved" / "adapter_model.safetensors", metadata={"format": "pt"})
    result = run("peft-run", "generate", "--prompt", "a", "--raw", *both, tmp_path / "moved", code=3).stderr
    assert "rows of added tokens differ from those of the adapter before it" in result
    tensors["base_model.model.model.embed_tokens.weight"][7] += 1
    save_file(tensors, tmp_path / "moved" / "adapter_model.safetensors", metadata={"format": "pt"})
    result = run("peft-run", "generate", "--prompt", "a", "--raw", "--model", tmp_path / "model", "--adapter", tmp_path / "moved", code=3)
    assert "differs from the base's weight: base_model.model.model.embed_tokens.weight" in result.stderr
