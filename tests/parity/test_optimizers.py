"""Optimizers, schedulers and clipping equal the known implementations step for step: optimizers those of torch.optim, transformers,
bitsandbytes and their authors, in fp64 within 1e-12 where the peer computes in fp64; each schedule at each step that of transformers
or torch; clipping that of torch.nn.utils and of the papers; the loss scale of fp16 that of torch.amp.GradScaler."""

import json
import math

import bitsandbytes
import pytest
import pytorch_optimizer
import schedulefree
import torch
import transformers
import zclip
from galore_torch import GaLoreAdamW
from sophia_opt import SophiaG
from transformers.optimization import Adafactor

from model_support import run_tool


def ask(**request):
    return json.loads(run_tool("plugin_tool", request))


def toml(options):
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())


class MuonAndAdamW:
    """torch's Muon for matrices and its AdamW for the rest, as torch says to use them; AdamW's rate is a share of Muon's."""

    def __init__(self, parameters, share, lr, weight_decay, **more):
        self.share = share
        self.muon = torch.optim.Muon([p for p in parameters if p.dim() == 2], lr=lr, weight_decay=weight_decay, **more)
        self.adamw = torch.optim.AdamW([p for p in parameters if p.dim() != 2], lr=lr, weight_decay=weight_decay)
        self.param_groups = self.muon.param_groups

    def step(self):
        for group in self.adamw.param_groups:
            group["lr"] = self.share * self.param_groups[0]["lr"]
        self.muon.step()
        self.adamw.step()


OPTIMIZERS = [
    ("adamw", {"lr": 0.01}, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0)),
    (
        "adamw",
        {"lr": 0.02, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1),
    ),
    ("sgd", {"lr": 0.1}, lambda p: torch.optim.SGD(p, lr=0.1)),
    (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.01),
    ),
    (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ),
    (
        "lion",
        {"lr": 0.01, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1},
        lambda p: pytorch_optimizer.Lion(p, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
    ),
    (
        "lamb",
        {"lr": 0.01, "beta2": 0.99, "weight_decay": 0.1},
        # adam_debias: no factor on top of the trust ratio, which already sets the step's length.
        lambda p: pytorch_optimizer.Lamb(
            p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, weight_decouple=False, adam_debias=True
        ),
    ),
    (
        "adafactor",
        {"lr": 0.01},
        lambda p: Adafactor(p, lr=0.01, scale_parameter=False, relative_step=False),
    ),
    (
        "adafactor",
        {"lr": 0.01, "beta1": 0.9, "weight_decay": 0.1, "scale_parameter": True, "clip_threshold": 0.5, "eps1": 1e-20,
         "decay_rate": -0.7},
        lambda p: Adafactor(
            p, lr=0.01, beta1=0.9, weight_decay=0.1, scale_parameter=True, relative_step=False, clip_threshold=0.5,
            eps=(1e-20, 1e-3), decay_rate=-0.7,
        ),
    ),
    (
        "muon",
        {"lr": 0.01, "weight_decay": 0.1, "adamw_lr": 0.005},
        lambda p: MuonAndAdamW(p, 0.5, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ),
    (
        "muon",
        {"lr": 0.02, "momentum": 0.9, "nesterov": False, "ns_steps": 3, "adjust_lr_fn": "original"},
        lambda p: MuonAndAdamW(
            p, 1.0, lr=0.02, weight_decay=0, momentum=0.9, nesterov=False, ns_steps=3, adjust_lr_fn="original"
        ),
    ),
]


def draws(shapes, steps, scale=1.0, dtype=torch.float64, seed=0):
    """Starts, and gradients of each step, of which one parameter lacks some."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: [torch.randn(s, generator=generator, dtype=torch.float64).mul(scale).to(dtype) for s in shapes]  # noqa: E731
    start, gradients = draw(), [draw() for _ in range(steps)]
    for step in (3, 4, 20):
        gradients[step][1] = None  # a parameter without a gradient stays where it is
    return start, gradients


def run(name, options, start, gradients, **more):
    """The parameters after each step, as tensors."""
    flat = lambda tensors: [t if t is None else t.flatten().tolist() for t in tensors]  # noqa: E731
    dtype = start[0].dtype
    got = ask(
        kind="optimizer", name=name, options=toml(options), start=flat(start), shapes=[list(t.shape) for t in start],
        dtype=str(dtype).removeprefix("torch."), gradients=[flat(step) for step in gradients], **more,
    )
    return [
        [torch.tensor(values, dtype=dtype).view(t.shape) for values, t in zip(step, start, strict=True)] for step in got
    ]


def peer_steps(start, gradients, make, each=lambda optimizer, step: None):
    """The same of a Python optimizer; `each` is called before each step."""
    parameters = [tensor.clone().requires_grad_() for tensor in start]
    optimizer = make(parameters)
    for step, now in enumerate(gradients):
        each(optimizer, step)
        for parameter, gradient in zip(parameters, now, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        optimizer.step()
        yield optimizer, [parameter.detach().clone() for parameter in parameters]


def same(got, expected, rtol=1e-12, atol=1e-14):
    for ours, theirs in zip(got, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name,options,peer", OPTIMIZERS, ids=[f"{row[0]}-{i}" for i, row in enumerate(OPTIMIZERS)])
def test_optimizer(name, options, peer):
    start, gradients = draws([(5,), (33,), (4, 7), (9, 2)], 50)
    rates = [1 - 0.01 * step for step in range(50)]

    def schedule(optimizer, step):
        for group in optimizer.param_groups:
            group["lr"] = options["lr"] * rates[step]

    expected = [after for _, after in peer_steps(start, gradients, peer, schedule)]
    same(run(name, options, start, gradients, rates=rates), expected)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_schedule_free(decay):
    """Both what trains and what is evaluated, with a rate that first rises."""
    start, gradients = draws([(5,), (33,), (4, 7)], 30)
    options = {"lr": 0.05, "beta1": 0.85, "weight_decay": decay, "r": 0.5}
    rates = [min(1.0, step / 6) for step in range(30)]

    def schedule(optimizer, step):
        optimizer.train()
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * rates[step]

    make = lambda p: schedulefree.AdamWScheduleFree(  # noqa: E731
        p, lr=0.05, betas=(0.85, 0.999), weight_decay=decay, r=0.5
    )
    trained, averaged = [], []
    for optimizer, after in peer_steps(start, gradients, make, schedule):
        trained.append(after)
        optimizer.eval()
        averaged.append([parameter.detach().clone() for parameter in optimizer.param_groups[0]["params"]])
    same(run("schedule_free_adamw", options, start, gradients, rates=rates), trained)
    same(run("schedule_free_adamw", options, start, gradients, rates=rates, eval=True), averaged)
    assert all(not torch.equal(a, b) for a, b in zip(trained[-1], averaged[-1], strict=True))


def test_sophia():
    """The authors' SophiaG, shown the same gradients of drawn labels every third step."""
    start, gradients = draws([(5,), (33,), (4, 7)], 30, scale=0.01)
    _, sampled = draws([(5,), (33,), (4, 7)], 30, scale=0.02, seed=1)
    sampled = [[torch.zeros_like(s) if t is None else t for t, s in zip(step, start, strict=True)] for step in sampled]
    options = {"lr": 0.01, "rho": 0.04, "weight_decay": 0.1, "update_period": 3}

    def observe(optimizer, step):
        if step % 3:
            return
        for parameter, gradient in zip(optimizer.param_groups[0]["params"], sampled[step // 3], strict=True):
            parameter.grad = gradient.clone()
        optimizer.update_hessian()

    make = lambda p: SophiaG(p, lr=0.01, rho=0.04, weight_decay=0.1)  # noqa: E731
    # Its `bs`, the number of labels, is an argument of step().
    expected = []
    for _, after in peer_steps(start, gradients, lambda p: WithTokens(make(p), 500), observe):
        expected.append(after)
    got = run(
        "sophia", options, start, gradients, tokens=500, sampled=[[t.flatten().tolist() for t in s] for s in sampled]
    )
    same(got, expected)


class WithTokens:
    """SophiaG with its step's argument bound."""

    def __init__(self, optimizer, tokens):
        self.optimizer, self.tokens = optimizer, tokens
        self.param_groups, self.update_hessian = optimizer.param_groups, optimizer.update_hessian

    def step(self):
        self.optimizer.step(bs=self.tokens)


def test_galore():
    """The authors' GaLoreAdamW, whose singular vectors are fp32; a matrix no larger than the rank, and a vector, are not projected."""
    start, gradients = draws([(40, 12), (33,), (9, 50), (4, 30)], 30, dtype=torch.float32)
    gradients[3][1] = gradients[4][1] = None
    options = {"lr": 0.01, "rank": 4, "update_proj_gap": 7, "scale": 0.5, "weight_decay": 0.1}
    projected = {"rank": 4, "update_proj_gap": 7, "scale": 0.5, "proj_type": "std"}
    make = lambda p: GaLoreAdamW(  # noqa: E731
        [{"params": [p[0], p[2]], **projected}, {"params": [p[1], p[3]]}], lr=0.01, weight_decay=0.1,
        no_deprecation_warning=True,
    )
    expected = [after for _, after in peer_steps(start, gradients, make)]
    same(run("galore", options, start, gradients), expected, rtol=1e-5, atol=1e-6)


def test_adamw_8bit(monkeypatch):
    """bitsandbytes' AdamW8bit to fp32's last digits: the same codes come out of the same blocks, of which one is not full,
    one holds zeros and one values of every size; a small tensor keeps its moments in full precision. On a CPU bitsandbytes looks codes
    of fp32 numbers up in a table of 2^16 places, and misses the nearest in one of a thousand; it searches for those of fp64."""

    def exact(values, code, absmax, out, size):
        codes, largest = torch.ops.bitsandbytes.quantize_blockwise(values.double(), code, size)
        out.copy_(codes), absmax.copy_(largest)

    monkeypatch.setattr(bitsandbytes.backends.cpu.ops, "_quant_blockwise_fp32_direct", exact)
    start, gradients = draws([(70, 100), (33,), (64, 64), (5000,)], 30, dtype=torch.float32)
    for step in gradients:
        step[0][:3] = 0
        step[2] *= torch.logspace(-6, 2, 64)
    options = {"lr": 0.01, "beta2": 0.99, "weight_decay": 0.1}
    make = lambda p: bitsandbytes.optim.AdamW8bit(p, lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)  # noqa: E731
    expected = [after for _, after in peer_steps(start, gradients, make)]
    same(run("adamw_8bit", options, start, gradients), expected, rtol=1e-6, atol=1e-7)
    # It is not plain AdamW, which differs by far more.
    plain = run("adamw", options, start, gradients)[-1]
    assert (plain[0] - expected[-1][0]).abs().max() > 1e-3


def peer_rates(make, total, base_lr):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base_lr)
    schedule = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


T = transformers
SCHEDULES = [
    ("constant", {}, lambda o, n: T.get_constant_schedule(o)),
    ("constant", {"warmup_steps": 7}, lambda o, n: T.get_constant_schedule_with_warmup(o, 7)),
    ("linear", {"warmup_ratio": 0.1}, lambda o, n: T.get_linear_schedule_with_warmup(o, math.ceil(n * 0.1), n)),
    ("linear", {}, lambda o, n: T.get_linear_schedule_with_warmup(o, 0, n)),
    ("cosine", {"warmup_steps": 5}, lambda o, n: T.get_cosine_schedule_with_warmup(o, 5, n)),
    (
        "cosine",
        {"warmup_steps": 5, "min_lr": 2e-4},
        lambda o, n: T.get_scheduler("cosine_with_min_lr", o, 5, n, {"min_lr": 2e-4}),
    ),
    (
        "cosine",
        {"warmup_steps": 5, "min_lr_ratio": 0.1},
        lambda o, n: T.get_scheduler("cosine_with_min_lr", o, 5, n, {"min_lr_rate": 0.1}),
    ),
    (
        "cosine_with_restarts",
        {"warmup_steps": 5, "num_cycles": 3},
        lambda o, n: T.get_cosine_with_hard_restarts_schedule_with_warmup(o, 5, n, num_cycles=3),
    ),
    (
        "linear",
        {"warmup_steps": 4, "min_lr_ratio": 0.2},
        lambda o, n: T.get_polynomial_decay_schedule_with_warmup(o, 4, n, lr_end=2e-4, power=1.0),
    ),
    ("one_cycle", {}, lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 1e-3, total_steps=n, cycle_momentum=False)),
    (
        "one_cycle",
        {"pct_start": 0.2, "div_factor": 10, "final_div_factor": 100, "anneal_strategy": "linear", "three_phase": True},
        lambda o, n: torch.optim.lr_scheduler.OneCycleLR(
            o, 1e-3, total_steps=n, pct_start=0.2, div_factor=10, final_div_factor=100, anneal_strategy="linear",
            three_phase=True, cycle_momentum=False,
        ),
    ),
    (
        "polynomial",
        {"warmup_steps": 4, "power": 2.0, "lr_end": 1e-5},
        lambda o, n: T.get_polynomial_decay_schedule_with_warmup(o, 4, n, lr_end=1e-5, power=2.0),
    ),
    ("inverse_sqrt", {"warmup_steps": 6}, lambda o, n: T.get_inverse_sqrt_schedule(o, 6)),
    ("inverse_sqrt", {"timescale": 20}, lambda o, n: T.get_inverse_sqrt_schedule(o, 0, 20)),
    ("inverse_sqrt", {}, lambda o, n: T.get_inverse_sqrt_schedule(o, 0)),
    *(
        (
            "wsd",
            {"warmup_steps": 5, "decay_steps": 11, "decay_type": kind, "min_lr_ratio": 0.1},
            lambda o, n, kind=kind: T.get_wsd_schedule(o, 5, 11, n, decay_type=kind, min_lr_ratio=0.1),
        )
        for kind in ("linear", "cosine", "1-sqrt")
    ),
]


@pytest.mark.parametrize("name,options,peer", SCHEDULES, ids=[f"{row[0]}-{i}" for i, row in enumerate(SCHEDULES)])
def test_schedule(name, options, peer):
    for total in (41, 17):
        got = ask(kind="scheduler", name=name, options=toml(options), total=total, base_lr=1e-3)
        expected = peer_rates(lambda optimizer, n=total: peer(optimizer, n), total, 1e-3)
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-18)


def test_rex():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = pytorch_optimizer.REXScheduler(optimizer, total_steps=41, max_lr=1e-3, min_lr=1e-5)
    schedule.step_t = 0  # torch's base class has taken the curve's first point already, for no step
    expected = []
    for _ in range(41):
        optimizer.step()
        expected.append(schedule.step())
    got = ask(kind="scheduler", name="rex", options=toml({"min_lr": 1e-5}), total=41, base_lr=1e-3)
    assert got == pytest.approx(expected, rel=1e-12)
    late = ask(kind="scheduler", name="rex", options=toml({"min_lr": 1e-5, "warmup_steps": 6}), total=47, base_lr=1e-3)
    assert late == pytest.approx([1e-3 * step / 6 for step in range(6)] + expected, rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 1},
        {"factor": 0.5, "patience": 0, "threshold": 0.05, "threshold_mode": "abs", "cooldown": 2, "min_lr": 1e-5},
        {"factor": 0.3, "patience": 2, "threshold": 0.02, "eps": 1e-4},
    ],
)
def test_reduce_on_plateau(options):
    """Every second step is followed by an evaluation, of a loss that falls, rests and rises by turns."""
    generator = torch.Generator().manual_seed(0)
    losses = [
        2 + math.cos(step / 9) + 0.1 * torch.rand((), generator=generator).item() if step % 2 else None for step in range(120)
    ]
    got = ask(
        kind="scheduler", name="reduce_on_plateau", options=toml(options), total=120, base_lr=1e-3, losses=losses
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    expected = []
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if loss is not None:
            schedule.step(loss)
    assert got == pytest.approx(expected, rel=1e-12)
    assert len(set(got)) > 2


@pytest.mark.parametrize("name", [row[0] for row in {row[0]: row for row in SCHEDULES}.values()] + ["rex"])
def test_one_step_and_all_warmup(name):
    for options in ({}, {"warmup_ratio": 1.0}, {"warmup_steps": 100}) if name != "one_cycle" else ({},):
        rates = ask(kind="scheduler", name=name, options=toml(options), total=1, base_lr=1e-3)
        assert len(rates) == 1 and 0 <= rates[0] <= 1e-3


def adaptive(parameters, clipping, eps):
    """Brock et al. 2021, equation 3: the gradient G_i of unit i (a row) is scaled to clipping · max(‖W_i‖, eps) where its norm
    is larger."""
    for parameter in parameters:
        for row, gradient in zip(parameter.detach(), parameter.grad, strict=True):
            most = clipping * max(row.norm().item(), eps)
            if gradient.norm().item() > most:
                gradient.mul_(most / gradient.norm())


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_clipping(scale):
    generator = torch.Generator().manual_seed(0)
    draw = lambda factor: [  # noqa: E731
        torch.randn(shape, generator=generator, dtype=torch.float64) * factor for shape in ((3, 4), (5, 2))
    ]
    gradients, weights = draw(scale), draw(0.5)
    weights[0][1] = 0  # a row of zeros counts as eps
    gradients[1][2] = 0

    def peer(clip):
        parameters = [weight.clone().requires_grad_() for weight in weights]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        clip(parameters)
        return [parameter.grad.flatten() for parameter in parameters]

    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    for name, options, clip in (
        ("none", {}, lambda p: None),
        ("norm", {"max_norm": 0.5}, lambda p: torch.nn.utils.clip_grad_norm_(p, 0.5)),
        ("value", {"clip_value": 0.2}, lambda p: torch.nn.utils.clip_grad_value_(p, 0.2)),
        ("norm", {"max_norm": 0.5, "per": "tensor"}, lambda p: [torch.nn.utils.clip_grad_norm_(q, 0.5) for q in p]),
        ("agc", {"clipping": 0.05, "eps": 1e-2}, lambda p: adaptive(p, 0.05, 1e-2)),
    ):
        got = ask(
            kind="clipping", name=name, options=toml(options), parameters=[w.tolist() for w in weights],
            steps=[[g.tolist() for g in gradients]],
        )[0]
        assert got["norm"] == pytest.approx(norm, rel=1e-12)
        for values, expected in zip(got["gradients"], peer(clip), strict=True):
            torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), expected, rtol=1e-12, atol=1e-15)


def test_clipping_per_group():
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(4)]
    groups = [[0, 3], [1, 2]]
    parameters = [torch.zeros_like(g).requires_grad_() for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    for group in groups:
        torch.nn.utils.clip_grad_norm_([parameters[i] for i in group], 1.5)
    (got,) = ask(
        kind="clipping", name="norm", options=toml({"max_norm": 1.5, "per": "group"}), groups=groups,
        parameters=[g.tolist() for g in gradients], steps=[[g.tolist() for g in gradients]],
    )
    for values, parameter in zip(got["gradients"], parameters, strict=True):
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), parameter.grad.flatten(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"warmup_steps": 5},
        {"warmup_steps": 5, "max_grad_norm": None, "alpha": 0.9, "z_thresh": 1.5, "clip_factor": 0.8},
        {"warmup_steps": 3, "max_grad_norm": None, "clip_option": "mean", "skip_update_on_spike": True},
        {"warmup_steps": 3, "max_grad_norm": 4.0, "mode": "percentile", "z_thresh": 1.0},
    ],
)
def test_zclip(options):
    """The authors' own, over steps of which some are ten times as long as the others."""
    generator = torch.Generator().manual_seed(0)
    steps = [
        [
            torch.randn(shape, generator=generator, dtype=torch.float64) * (10 if step in (11, 12, 25) else 1)
            for shape in ((3, 4), (5, 2))
        ]
        for step in range(40)
    ]
    ours = {"max_norm" if key == "max_grad_norm" else key: value or 0 for key, value in options.items()}
    got = ask(
        kind="clipping", name="zclip", options=toml(ours), parameters=[torch.zeros_like(g).tolist() for g in steps[0]],
        steps=[[g.tolist() for g in step] for step in steps],
    )
    model = torch.nn.ParameterList([torch.zeros_like(g) for g in steps[0]])
    reference = zclip.ZClip(**options)
    shortened = 0
    for step, answer in zip(steps, got, strict=True):
        for parameter, gradient in zip(model, step, strict=True):
            parameter.grad = gradient.clone()
        assert answer["norm"] == pytest.approx(reference.step(model), rel=1e-12)
        for values, parameter, gradient in zip(answer["gradients"], model, step, strict=True):
            torch.testing.assert_close(
                torch.tensor(values, dtype=torch.float64), parameter.grad.flatten(), rtol=1e-12, atol=1e-15
            )
            shortened += not torch.equal(parameter.grad, gradient)
    assert shortened >= 2


def test_loss_scale():
    options = {"init_scale": 1024.0, "growth_factor": 4.0, "backoff_factor": 0.25, "growth_interval": 3}
    fine, overflow = [1.5, -2.0, 1e-6], [1.0, math.inf, 2.0]
    steps = [fine, fine, overflow, fine, fine, fine, fine, overflow, overflow, fine, [math.nan, 0.0, 0.0], fine, fine, fine]
    # JSON knows no infinity: what overflows in fp32 does as well.
    sendable = [[1e39 if not math.isfinite(g) else g for g in step] for step in steps]
    got = ask(kind="precision", name="fp16", options=toml(options), gradients=sendable)
    scaler = torch.amp.GradScaler("cpu", **options)
    for step, answer in zip(steps, got, strict=True):
        parameter = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        scaler.scale((parameter * torch.tensor(step)).sum()).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        skipped = torch.equal(parameter.detach(), torch.ones(3))
        scaler.update()
        assert answer["ready"] == (not skipped)
        assert answer["scale"] == scaler.get_scale()
        if answer["ready"]:
            assert answer["gradient"] == parameter.grad.double().tolist()
