"""LoRA's initializations: each equals HF PEFT's on the same weights and batches, and training takes the same steps from there; what was
subtracted from the base is added to the saved adapter, which HF PEFT loads on the original base like one that it converted itself;
LoRA-FA's steps equal those of HF PEFT's optimizer."""

import dataclasses
import importlib.util
import json
import statistics
import sys
import types
import warnings

import peft
import pytest
import torch
import transformers
from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig
from peft.tuners.lora.loraga import preprocess_loraga
from safetensors.torch import load_file
from tiny_llama import save_llama

# PEFT's corda.py asks the package attrs for a plain dataclass, and PEFT does not depend on that package.
if importlib.util.find_spec("attr") is None:
    sys.modules["attr"] = types.SimpleNamespace(dataclass=dataclasses.dataclass)
from peft.tuners.lora.corda import preprocess_corda  # noqa: E402

from method_support import base_model, batch, check_saved_form, check_training, form, toml, train
from model_support import apart, farthest, losses_of, model_answer, peer_answer, peer_step, random_examples, within

# By name, since PEFT's functions that look at data do not know "all-linear" or its own defaults.
ALL = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}
QV = {"target_modules": ["q_proj", "v_proj"]}
NESTED = {"eva_config": EvaConfig, "corda_config": CordaConfig, "lora_ga_config": LoraGAConfig}
PATTERNS = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 12}}
# starts that are taken out of the base
OF_BASE = [
    {"init_lora_weights": "pissa", "r": 4, "lora_alpha": 6} | ALL,
    {"init_lora_weights": "pissa", "use_rslora": True, "r": 3},
    {"init_lora_weights": "pissa", "use_dora": True, "r": 4},
    {"init_lora_weights": "pissa_niter_3", "r": 4} | PATTERNS,
    {"init_lora_weights": "olora", "r": 4, "lora_alpha": 5} | PATTERNS,
    {"init_lora_weights": "corda", "r": 4} | QV,
    {"init_lora_weights": "corda", "r": 3, "lora_alpha": 6, "corda_config": {"corda_method": "kpm"}} | ALL,
    {"init_lora_weights": "lora_ga", "r": 4} | ALL,
    {"init_lora_weights": "lora_ga", "r": 3, "use_rslora": True, "lora_ga_config": {"direction": "ArBr", "scale": "gd_scale"}}
    | QV,
    {"init_lora_weights": "lora_ga", "r": 4, "lora_ga_config": {"direction": "A2rBr", "scale": "unit"}} | QV,
    {"init_lora_weights": "loftq", "r": 4, "loftq_config": {"loftq_bits": 4, "loftq_iter": 2}},
]
NAMES = [f"{options['init_lora_weights']}-{i}" for i, options in enumerate(OF_BASE)]
of_base = pytest.mark.parametrize("options", OF_BASE, ids=NAMES)


def tiny(folder):
    save_llama(folder / "model")


def lora_config(options):
    options = {key: NESTED[key](**value) if key in NESTED else value for key, value in options.items()}
    return peft.LoraConfig(task_type="CAUSAL_LM", **options)


def data(folder):
    return batch(transformers.AutoTokenizer.from_pretrained(folder / "model"))


def each(rows):
    """The batch's examples one by one, without padding."""
    for ids, mask, labels in zip(rows["input_ids"], rows["attention_mask"], rows["labels"], strict=True):
        length = int(mask.sum())
        yield {"input_ids": ids[None, :length], "labels": labels[None, :length]}


def their_model(folder, options, one_by_one=False):
    """PEFT's model with its own start, made from the batches that peft-run sees."""
    base, config, rows = base_model(folder), lora_config(options), data(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options["init_lora_weights"] == "corda":
            preprocess_corda(base, config, run_model=lambda: [base(**example) for example in each(rows)])
        if options["init_lora_weights"] == "lora_ga":
            config.lora_ga_config = config.lora_ga_config or LoraGAConfig()
            batches = list(each(rows)) if one_by_one else [rows]
            preprocess_loraga(base, config, lambda: [base(**example).loss.backward() for example in batches])
        model = peft.get_peft_model(base, config)
        if options["init_lora_weights"] == "eva":
            peft.initialize_lora_eva_weights(model, [rows], show_progress_bar=False)
    return model


def layers(model):
    """PEFT's adapted modules by their path in the base."""
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer):
            yield name.removeprefix("base_model.model."), module


def our_start(tensors, path):
    """A and B as they began, of an adapter that was saved before it moved: [A; A0], [B, −B0]."""
    A, B = (tensors[f"base_model.model.{path}.lora_{factor}.weight"] for factor in "AB")
    r = A.shape[0] // 2
    assert torch.equal(A[:r], A[r:]) and torch.equal(B[:, :r], -B[:, r:])
    return A[:r], B[:, :r]


def begin_like_ours(folder, options, tensors):
    """PEFT's model from our start: what it does itself with its own."""
    theirs = peft.get_peft_model(base_model(folder), lora_config(options | {"init_lora_weights": True}))
    with torch.no_grad():
        for path, module in layers(theirs):
            A, B = our_start(tensors, path)
            module.base_layer.weight -= module.scaling["default"] * B @ A
            module.lora_A["default"].weight.copy_(A)
            module.lora_B["default"].weight.copy_(B)
    return theirs


def factors(module):
    return module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach()


def check_start(tensors, theirs, bound):
    """The same B·A, or of LoRA-GA, whose A and B are not of the same singular vectors, the same A and B except for signs."""
    paths = [path for path, _ in layers(theirs)]
    assert {key.rsplit(".lora_", 1)[0] for key in tensors} == {"base_model.model." + path for path in paths}
    for path, module in layers(theirs):
        (A, B), (ours_A, ours_B) = factors(module), our_start(tensors, path)
        if theirs.peft_config["default"].init_lora_weights == "lora_ga":
            within("A", apart(ours_A.abs(), A.abs()), bound)
            within("B", apart(ours_B.abs(), B.abs()), bound)
        else:
            within("start", apart(ours_B @ ours_A, B @ A), bound)


@pytest.mark.parametrize("options", [o for o in OF_BASE if not {"pissa_niter_3", "loftq"} & {o["init_lora_weights"]}],
                         ids=[n for n in NAMES if "niter" not in n and "loftq" not in n])
def test_initialization_equals_hf_peft(run, tmp_path, options):
    tiny(tmp_path)
    _, tensors, _ = train(run, tmp_path, "lora", options, lr=0.0)
    check_start(tensors, their_model(tmp_path, options), 2e-3 if "corda_config" in options else 1e-4)


def test_lora_ga_averages_over_batches(run, tmp_path):
    tiny(tmp_path)
    options = {"init_lora_weights": "lora_ga", "r": 4} | QV
    _, tensors, _ = train(run, tmp_path, "lora", options, lr=0.0, batch_size=1)
    check_start(tensors, their_model(tmp_path, options, one_by_one=True), 1e-4)


def test_lora_ga_scaled_by_weight(run, tmp_path):
    """B of the length of the weight's largest singular value, which both estimate with random directions of their own."""
    tiny(tmp_path)
    for scale in ("unit", "weight_svd"):
        options = {"init_lora_weights": "lora_ga", "r": 4, "lora_ga_config": {"scale": scale}} | QV
        _, tensors, _ = train(run, tmp_path, "lora", options, name=scale, lr=0.0)
        for name, module in base_model(tmp_path).named_modules():
            if scale == "weight_svd" and name.endswith(("q_proj", "v_proj")):
                B, (_, unit) = our_start(tensors, name)[1], our_start(load_file(tmp_path / "unit" / "adapter_model.safetensors"), name)
                factor = B.norm(dim=0).max() / torch.linalg.svdvals(module.weight.detach())[0]
                within("B", apart((B / B.norm()).abs(), (unit / unit.norm()).abs()), 1e-4)  # signs are left open
                assert 0.95 < factor < 1.0001


def test_randomized_pissa_equals_torch_svd_lowrank(run, tmp_path):
    """Its draws are the only ones, so that torch draws the same from the run's seed."""
    tiny(tmp_path)
    _, tensors, _ = train(run, tmp_path, "lora", {"init_lora_weights": "pissa_niter_3", "r": 4}, lr=0.0)
    base = base_model(tmp_path)
    torch.manual_seed(3)
    for name, module in base.named_modules():
        if name.endswith(("q_proj", "v_proj")):
            U, S, V = torch.svd_lowrank(module.weight.detach(), 4, niter=3)
            A, B = our_start(tensors, name)
            within("start", apart(B @ A * 2, U @ torch.diag(S) @ V.T), 1e-5)


def nf4(weight):
    """bitsandbytes' NF4: blocks of 64 by their largest element, each to the nearest of 16 quantiles of a normal."""
    quantile = statistics.NormalDist().inv_cdf
    positive = [quantile(p) for p in torch.linspace(0.9677083, 0.5, 9)[:-1].tolist()]
    negative = [-quantile(p) for p in torch.linspace(0.9677083, 0.5, 8)[:-1].tolist()]
    values = torch.tensor(sorted(positive + [0] + negative), dtype=torch.float32)
    values = values / values.max()
    blocks = weight.reshape(-1, 64)
    most = blocks.abs().amax(1, keepdim=True)
    nearest = ((blocks / most)[..., None] - values).abs().argmin(-1)
    return (values[nearest] * most).reshape(weight.shape)


@pytest.mark.parametrize("bits", [4, 8])
def test_loftq_recovers_quantization_error(run, tmp_path, bits):
    """Alternates: quantizes what A and B do not hold, and gives them the largest part of the quantization error."""
    tiny(tmp_path)
    options = {"init_lora_weights": "loftq", "r": 4, "loftq_config": {"loftq_bits": bits, "loftq_iter": 3}}
    _, tensors, _ = train(run, tmp_path, "lora", options, lr=0.0)
    for name, module in base_model(tmp_path).named_modules():
        if name.endswith(("q_proj", "v_proj")):
            W, part = module.weight.detach(), 0
            for _ in range(3):
                rest = W - part
                most = rest.abs().amax(1, keepdim=True)
                back = nf4(rest) if bits == 4 else (rest * 127 / most).round() * most / 127
                U, S, Vh = torch.linalg.svd(W - back)
                part = U[:, :4] @ torch.diag(S[:4]) @ Vh[:4]
            A, B = our_start(tensors, name)
            within("start", apart(B @ A * 2, part), 1e-3)


def train_there(model, folder, steps, optimizer=None):
    optimizer = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    rows, losses = data(folder), []
    for _ in range(steps):
        losses.append(peer_step(model(**rows).loss, optimizer))
    return losses


@of_base
def test_trained_adapter_loads_on_original_base(run, tmp_path, options):
    """The same losses as PEFT's residual base gives; and the saved adapter makes PEFT's trained model of the untouched base,
    in PEFT and here."""
    tiny(tmp_path)
    _, start, _ = train(run, tmp_path, "lora", options, name="start", lr=0.0)
    ours, _, _ = train(run, tmp_path, "lora", options, steps=4)
    theirs = begin_like_ours(tmp_path, options, start)
    within("losses", farthest(losses_of(ours), train_there(theirs, tmp_path, 4)), 1e-4)
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(theirs, examples)
        untouched, _ = peer_answer(base_model(tmp_path), examples)
        loaded = peft.PeftModel.from_pretrained(base_model(tmp_path), ours)
        within("peer", apart(peer_answer(loaded, examples)[0], expected), 1e-4)
    within("logits", apart(model_answer(tmp_path, tmp_path / "model", examples, adapter=ours)["logits"], expected), 1e-4)
    assert apart(untouched, expected) > 1e-2


@pytest.mark.parametrize("options", OF_BASE[:2] + OF_BASE[5:6] + OF_BASE[7:8], ids=["pissa", "rslora", "corda", "lora_ga"])
def test_saved_conversion_equals_hf_peft(run, tmp_path, options):
    """The form of an adapter that PEFT converted with path_initial_model_for_weight_conversion."""
    tiny(tmp_path)
    _, tensors, config = train(run, tmp_path, "lora", options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = their_model(tmp_path, options)
        held = theirs.peft_config["default"]
        held.init_lora_weights = True
        theirs.save_pretrained(tmp_path / "initial")
        held.init_lora_weights = options["init_lora_weights"]
        train_there(theirs, tmp_path, 1)
        theirs.save_pretrained(tmp_path / "theirs", path_initial_model_for_weight_conversion=tmp_path / "initial")
    assert form(tensors) == form(load_file(tmp_path / "theirs" / "adapter_model.safetensors"))
    expected = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    assert list(config) == list(expected)
    for key in config.keys() - {"base_model_name_or_path", "target_modules"}:
        assert config[key] == (pytest.approx(expected[key]) if key == "lora_alpha" else expected[key]), key


def test_training_continues_from_saved_adapter(run, tmp_path):
    """The first loss of the new run is the next one of the original run, and HF PEFT continues in the same way."""
    tiny(tmp_path)
    complete, _, _ = train(run, tmp_path, "lora", OF_BASE[0], name="complete", steps=3)
    saved, _, _ = train(run, tmp_path, "lora", OF_BASE[0], name="saved", steps=2)
    experiment = (tmp_path / "saved.toml").read_text().replace('output_dir = "saved"', 'output_dir = "more"')
    adapter = experiment[experiment.index("[adapter]"):experiment.index("[optimizer]")]
    (tmp_path / "more.toml").write_text(experiment.replace(adapter, '[adapter]\ninit_from = "saved"\n'))
    run("peft-run", tmp_path / "more.toml")
    within("losses", farthest(losses_of(tmp_path / "more")[:1], losses_of(complete)[2:]), 1e-5)
    theirs = peft.PeftModel.from_pretrained(base_model(tmp_path), saved, is_trainable=True)
    within("peer", farthest(losses_of(tmp_path / "more"), train_there(theirs, tmp_path, 2)), 1e-4)


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_unconverted_hf_peft_file(tmp_path, name):
    """What PEFT saves without conversion: A and B of a base that it changes again when it loads them."""
    tiny(tmp_path)
    theirs = their_model(tmp_path, {"init_lora_weights": name, "r": 4} | ALL)
    train_there(theirs, tmp_path, 3)
    theirs.save_pretrained(tmp_path / "theirs")
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(theirs.eval(), examples)
    ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "theirs")["logits"]
    within("logits", apart(ours, expected), 1e-4)


EVA = [
    {},
    {"r": 4, "eva_config": {"rho": 1.0}} | ALL,
    {"r": 4, "lora_alpha": 6, "eva_config": {"rho": 3.0, "adjust_scaling_factors": False, "tau": 0.9}} | ALL,
    # PEFT whitens what several modules share once for each of them, so here none share.
    {"r": 3, "rank_pattern": {"up_proj": 5}, "use_rslora": True, "eva_config": {"whiten": True},
     "target_modules": ["v_proj", "o_proj", "up_proj", "down_proj"]},
]


@pytest.mark.parametrize("options", EVA, ids=["default", "equal_ranks", "unequal", "whitened"])
def test_eva(run, tmp_path, options):
    """PEFT's directions and ranks; then losses and weights as in PEFT from there."""
    tiny(tmp_path)
    options = {"init_lora_weights": "eva"} | options
    _, tensors, config = train(run, tmp_path, "lora", options, name="first", lr=0.0)
    theirs = their_model(tmp_path, options)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = json.loads((tmp_path / "theirs" / "adapter_config.json").read_text())
    assert config["rank_pattern"] == expected["rank_pattern"] and config["eva_config"] == expected["eva_config"]
    assert config["alpha_pattern"] == pytest.approx(expected["alpha_pattern"])
    assert form(tensors) == form(load_file(tmp_path / "theirs" / "adapter_model.safetensors"))
    for path, module in layers(theirs):
        A, B = factors(module)
        ours = tensors[f"base_model.model.{path}.lora_A.weight"]
        within("directions", apart(ours.T @ ours, A.T @ A), 1e-3)
        assert not B.any() and not tensors[f"base_model.model.{path}.lora_B.weight"].any()
    check_training(run, tmp_path, "lora", options, steps=4)


def test_eva_over_batches(run, tmp_path, monkeypatch):
    """Several batches, whose order only peft-run knows: PEFT finds the same with one of the orders there are."""
    monkeypatch.setattr("method_support.TEXTS", ["The sum of all the numbers that there are is not known to me. " * 2,
                                                 "Ask somebody who counts, or count again from the beginning. " * 2])
    tiny(tmp_path)
    options = {"init_lora_weights": "eva", "r": 4}
    _, tensors, config = train(run, tmp_path, "lora", options, lr=0.0, batch_size=1)
    found = []
    for rows in (list(each(data(tmp_path))), list(each(data(tmp_path)))[::-1]):
        model = peft.get_peft_model(base_model(tmp_path), lora_config(options))
        peft.initialize_lora_eva_weights(model, rows, show_progress_bar=False)
        same_ranks = model.peft_config["default"].rank_pattern == config["rank_pattern"]
        ours = {path: tensors[f"base_model.model.{path}.lora_A.weight"] for path, _ in layers(model)}
        found.append(same_ranks and max(apart(ours[path].T @ ours[path], A.T @ A)
                                        for path, (A, _) in ((p, factors(m)) for p, m in layers(model))))
    within("directions", min(value for value in found if value is not False), 1e-3)


def test_orthogonal(run, tmp_path):
    tiny(tmp_path)
    options = {"init_lora_weights": "orthogonal", "r": 6} | ALL
    check_saved_form(run, tmp_path, "lora", peft.LoraConfig, options)
    _, tensors, _ = train(run, tmp_path, "lora", options, name="first", lr=0.0)
    for path in {key.rsplit(".lora_", 1)[0] for key in tensors}:
        A, B = tensors[path + ".lora_A.weight"], tensors[path + ".lora_B.weight"]
        assert A.abs().max() > 0.05 and B.abs().max() > 0.05 and (B @ A).abs().max() < 1e-6


def test_orthogonal_training_equals_hf_peft(run, tmp_path):
    tiny(tmp_path)
    check_training(run, tmp_path, "lora", {"init_lora_weights": "orthogonal", "r": 6} | ALL, steps=4)


@pytest.mark.parametrize("options", [{"r": 4, "lora_alpha": 12}, {"use_rslora": True, "rank_pattern": {"q_proj": 3}} | ALL,
                                     {"init_lora_weights": "gaussian"}], ids=["r", "rslora", "gaussian"])
def test_lora_fa_steps_equal_hf_peft_optimizer(run, tmp_path, monkeypatch, options):
    """PEFT's optimizer computes in bf16 where it can; here it must not, so that rounding hides nothing."""
    from peft.optimizers import lorafa

    monkeypatch.setattr(lorafa, "is_bf16_available", lambda: False)
    tiny(tmp_path)

    def optimizer(model):
        made = lorafa.create_lorafa_optimizer(model, r=options.get("r", 8), lora_alpha=options.get("lora_alpha", 8), lr=1e-2)
        step, taken = made.step, 0

        def step_with_torch_s_eps():
            """PEFT adds eps before the correction of the bias, torch's AdamW after it."""
            nonlocal taken
            taken += 1
            made.param_groups[0]["eps"] = 1e-8 * (1 - 0.999**taken) ** 0.5
            step()

        made.step = step_with_torch_s_eps
        return made

    losses = check_training(run, tmp_path, "lora", options | {"use_lorafa": True}, optimizer=optimizer)
    assert losses[-1] < losses[0]
    start, end = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("start", "run"))
    assert all(torch.equal(start[key], end[key]) == ("lora_A" in key) for key in start)


@pytest.mark.parametrize("options", [{"init_lora_weights": name} for name in ("pissa", "orthogonal", "olora", "loftq", "eva",
                                                                              "corda")]
                         + [{"init_lora_weights": "lora_ga", "r": 4}, {"use_lorafa": True},
                            {"init_lora_weights": "pissa", "lora_dropout": 0.5, "use_rslora": True, "use_lorafa": True}])
def test_selfcheck(run, options):
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={toml(value)}")]
    printed = run("peft-run", "selfcheck", "adapter/lora", *sets).stdout
    assert "BROKEN" not in printed and "merged weights give the same outputs" in printed


@pytest.mark.parametrize(
    "options,printed",
    [
        ({"init_lora_weights": "pisa"}, "'init_lora_weights' must be true, false"),
        ({"init_lora_weights": "pissa_niter_0"}, "'init_lora_weights' must be true, false"),
        ({"init_lora_weights": "orthogonal", "r": 3}, "needs an even r"),
        ({"init_lora_weights": "pissa", "r": 99}, "has 32 singular values, but r needs 99"),
        ({"init_lora_weights": "lora_ga", "r": 9}, "2 · r needs 18"),
        ({"init_lora_weights": "pissa", "target_modules": ["embed_tokens"]}, "is an embedding"),
        ({"init_lora_weights": "olora", "lora_alpha": 0}, "must be positive with this init_lora_weights"),
        ({"init_lora_weights": "corda", "target_modules": ["lm_head"]}, "has inputs only for target tokens"),
        ({"init_lora_weights": "eva", "r": 32}, "has 32 inputs, but rho · r needs 64"),
        ({"init_lora_weights": "eva", "eva_config": {"rho": 0.5}}, "[adapter.eva_config] 'rho' must be 1 or more"),
        ({"eva_config": {"rh": 2}}, "[adapter.eva_config] unknown key 'rh'; did you mean 'rho'?"),
        ({"eva_config": 2}, "'eva_config' must be a table"),
        ({"use_lorafa": True, "use_dora": True}, "excludes use_dora and lora_bias"),
    ],
)
def test_invalid_options(run, tmp_path, options, printed):
    tiny(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": "one two three four five six"}\n')
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in options.items())
    (tmp_path / "experiment.toml").write_text(
        f'[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "lora"\n{lines}'
        '[training]\noutput_dir = "out"\nmax_steps = 1\n'
    )
    assert printed in run("peft-run", tmp_path / "experiment.toml", code=2).stderr
    assert not (tmp_path / "out").exists()
