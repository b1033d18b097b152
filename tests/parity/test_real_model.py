"""On a real model, SmolLM2-135M-Instruct from its GGUF: HF PEFT loads what peft-run trains, without missing or unexpected keys and with
the same logits; every precision, packing, accumulation and a held-out share train; another optimizer, schedule, clipping or precision
is one line; and resolved.toml reproduces a run byte for byte."""

import copy
import json
import warnings

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from model_support import apart, model_answer, peer_of_gguf, within

TEXTS = [
    "Who are you?",
    "def f(x):\n    return x ** 2  # 平方 🍎\n",
    "The capital of France is Paris. 1234567890 times three is",
]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, model_gguf, data_dir, run):
    """experiment(name, *assignments): the run's folder and its metrics' lines. Eight records, three steps of four."""
    folder = tmp_path_factory.mktemp("real")
    records = json.loads((data_dir / "identity.json").read_text())[:8]
    text = json.dumps(records).replace("{{name}}", "Ada").replace("{{author}}", "peft")
    (folder / "train.json").write_text(text)
    (folder / "experiment.toml").write_text(
        f"""[model]
path = "{model_gguf}"
[data]
train = "train.json"
[adapter]
name = "lora"
r = 4
target_modules = "all-linear"
[optimizer]
lr = 1e-3
[training]
output_dir = "fp32"
max_steps = 3
batch_size = 4
log_every = 1
"""
    )

    def train(name, *assignments, file="experiment.toml"):
        sets = [word for item in (f"training.output_dir={folder / name}", *assignments) for word in ("--set", item)]
        run("peft-run", folder / file, *sets)
        lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        return folder / name, lines

    return train


def losses(lines):
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def plain(experiment):
    return experiment("fp32")


@pytest.fixture(scope="module")
def base(model_gguf):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_gguf.parent, gguf_file=model_gguf.name)
    return peer_of_gguf(model_gguf), tokenizer


def test_hf_peft_loads_it_with_equal_logits(tmp_path, plain, base, model_gguf, exact_peer):
    """In fp32 both sides are about 1e-4 from the exact logits, of which the largest is 43, on one processor a little more and
    on another a little less; so their difference is bounded by that, 4e-6 of it, and the mathematics by fp64."""
    folder, lines = plain
    assert losses(lines)[-1] < losses(lines)[0]
    model, tokenizer = base
    with warnings.catch_warnings(record=True) as printed:
        warnings.simplefilter("always")
        theirs = peft.PeftModel.from_pretrained(model, folder)
    try:
        assert not [warning for warning in printed if "keys" in str(warning.message)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            back = peft.get_peft_model_state_dict(theirs)
        assert back.keys() == load_file(folder / "adapter_model.safetensors").keys()
        rows = [tokenizer(text)["input_ids"] for text in TEXTS]
        ours = model_answer(tmp_path, model_gguf, [(ids, ids) for ids in rows], adapter=folder)["logits"]
        alone = model_answer(tmp_path, model_gguf, [(ids, ids) for ids in rows])["logits"]
        with torch.no_grad():
            expected = torch.cat([theirs(input_ids=torch.tensor([ids])).logits[0] for ids in rows])
            exact = copy.deepcopy(theirs).double()(input_ids=torch.tensor([rows[2]])).logits[0]
        assert (ours - alone).abs().max() > 0.1, "the adapter does something"
        within("logits", apart(ours, expected), 4e-6)
        ours = model_answer(tmp_path, model_gguf, [(rows[2], rows[2])], precision="fp64", adapter=folder)["logits"]
        within("fp64", apart(ours, exact), 1e-10)
    finally:
        theirs.unload()


@pytest.mark.slow
def test_adapter_trained_by_hf_peft(tmp_path, base, model_gguf, run, exact_peer):
    """An adapter that HF PEFT trained, with a scale of its own on some modules: its logits here; and merged here, the same
    logits in transformers without an adapter. Bounded as above."""
    model, tokenizer = base
    options = {"r": 8, "target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"q_proj": 4, "3.mlp.up_proj": 2}}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **options))
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    try:
        optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(4):
            for ids in rows:
                theirs(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        theirs.save_pretrained(tmp_path / "adapter")
        with torch.no_grad():
            expected = torch.cat([theirs(input_ids=torch.tensor([ids])).logits[0] for ids in rows])
            exact = copy.deepcopy(theirs).double()(input_ids=torch.tensor([rows[2]])).logits[0]
    finally:
        theirs.unload()
    adapter = tmp_path / "adapter"
    ours = model_answer(tmp_path, model_gguf, [(ids, ids) for ids in rows], adapter=adapter)["logits"]
    within("logits", apart(ours, expected), 4e-6)
    ours = model_answer(tmp_path, model_gguf, [(rows[2], rows[2])], precision="fp64", adapter=adapter)["logits"]
    within("fp64", apart(ours, exact), 1e-10)
    run("peft-run", "merge", "--model", model_gguf, "--adapter", adapter, "--output", tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        alone = torch.cat([merged(input_ids=torch.tensor([ids])).logits[0] for ids in rows])
    within("merged", apart(alone, expected), 4e-6)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions(experiment, plain, precision):
    folder, lines = experiment(precision, f"precision.name={precision}")
    # The same start in every precision; 16-bit activations move this loss by some thousandths.
    assert losses(lines)[0] == pytest.approx(losses(plain[1])[0], rel=1e-2)
    assert losses(lines)[-1] < losses(lines)[0]
    for tensor in load_file(folder / "adapter_model.safetensors").values():
        assert tensor.dtype == torch.float32 and tensor.isfinite().all()


@pytest.mark.slow
def test_bf16_is_as_accurate_as_peer(tmp_path, base, model_gguf):
    """From fp32's logits on real texts, ours in bf16 are no farther than HF's own bf16 by more than a tenth."""
    model, tokenizer = base
    rows = [tokenizer(text)["input_ids"] for text in TEXTS]
    half = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        exact = torch.cat([model(input_ids=torch.tensor([ids])).logits[0] for ids in rows])
        theirs = torch.cat([half(input_ids=torch.tensor([ids])).logits[0] for ids in rows]).float()
    ours = model_answer(tmp_path, model_gguf, [(ids, ids) for ids in rows], precision="bf16")["logits"]
    within("bf16 by the peer's", (ours - exact).norm() / (theirs - exact).norm(), 1.1)


@pytest.mark.slow
def test_accumulation_equals_one_large_batch(experiment, plain):
    _, lines = experiment("accumulated", "training.batch_size=2", "training.gradient_accumulation_steps=2")
    assert losses(lines) == pytest.approx(losses(plain[1]), rel=1e-5)


@pytest.mark.slow
def test_packing_and_evaluation(experiment):
    _, apart = experiment("apart", "training.batch_size=8")
    _, packed = experiment("packed", "data.packing=true", "training.batch_size=4")
    assert losses(packed) == pytest.approx(losses(apart), rel=1e-5)  # all eight fit into one
    _, held_out = experiment("split", "data.eval_split=0.25", "training.eval_every=1")
    assert len([line for line in held_out if "eval_loss" in line]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ["optimizer.name=sgd", "scheduler.name=cosine", "scheduler.name=wsd", "clipping.name=agc", "clipping.name=none"],
)
def test_one_line_selects_another_plugin(experiment, plain, line):
    folder, lines = experiment(line.replace("=", "_"), line, "training.max_steps=2")
    assert losses(lines)[0] == pytest.approx(losses(plain[1])[0], rel=1e-6)
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 2


def in_bytes(text):
    number, unit = text.split()
    return float(number) * {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]


@pytest.mark.slow
def test_memory_plan_does_not_change_results(experiment, plain, run):
    """Activation checkpointing leaves the adapter the same byte for byte, and the plan's sum is within 15 % of
    what the run then holds at its highest moment. A budget chooses between the two; one too small is refused with the sum."""
    folder, lines = plain
    expected, peaks, planned = (folder / "adapter_model.safetensors").read_bytes(), [], []
    for name, assignment in (("none", None), ("selective", "selective"), ("full", "full"), ("budget", None)):
        sets = [f"memory.activation_checkpointing={assignment}"] if assignment else []
        if name == "budget":
            sets = [f"memory.budget={(planned[0] + planned[2]) / 2e6:.3f}MB"]
        words = [word for item in sets for word in ("--set", item)]
        printed = run("peft-run", "plan", folder.parent / "experiment.toml", *words).stdout
        planned.append(in_bytes(printed.split(", total ")[1].splitlines()[0]))
        out, metrics = experiment("memory-" + name, *sets)
        assert (out / "adapter_model.safetensors").read_bytes() == expected, name
        peaks.append(max(line.get("peak_allocated_bytes", 0) for line in metrics))
        within("plan, " + name, abs(planned[-1] / peaks[-1] - 1), 0.15)
    assert peaks[0] > peaks[1] > peaks[2] and peaks[0] > peaks[3] > peaks[2]
    printed = run("peft-run", "plan", folder.parent / "experiment.toml", "--set", "memory.budget=500MB", code=5).stderr
    assert "even with all layers recomputed" in printed and "base 513 MiB" in printed


@pytest.mark.slow
def test_resolved_toml_reproduces_the_run(experiment, plain):
    folder, _ = plain
    again, _ = experiment("again", file="fp32/resolved.toml")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
