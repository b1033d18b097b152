"""Promises that optimizers and schedulers are those that people know: AdamW and SGD step for step torch.optim's, in fp64
within 1e-12; each schedule at each step transformers'; clipping torch.nn.utils'; adaptive clipping the paper's; fp16's loss
scale step for step torch.amp.GradScaler's."""

import json
import math

import pytest
import torch
import transformers

from model_support import run_tool


def ask(**request):
    return json.loads(run_tool("plugin_tool", request))


def toml(options):
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())


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
]


@pytest.mark.parametrize("name,options,peer", OPTIMIZERS)
def test_optimizer(name, options, peer):
    generator = torch.Generator().manual_seed(0)
    draw = lambda size: torch.randn(size, generator=generator, dtype=torch.float64)  # noqa: E731
    start = [draw(5), draw(33)]
    gradients = [[draw(5), draw(33)] for _ in range(50)]
    for step in (3, 4, 20):
        gradients[step][1] = None  # a parameter without a gradient stays where it is
    got = ask(
        kind="optimizer", name=name, options=toml(options), start=[tensor.tolist() for tensor in start],
        gradients=[[g if g is None else g.tolist() for g in step] for step in gradients],
    )
    parameters = [tensor.clone().requires_grad_() for tensor in start]
    optimizer = peer(parameters)
    for step, after in zip(gradients, got, strict=True):
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient
        optimizer.step()
        for parameter, values in zip(parameters, after, strict=True):
            torch.testing.assert_close(
                torch.tensor(values, dtype=torch.float64), parameter.detach(), rtol=1e-12, atol=1e-14
            )


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


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "polynomial", "inverse_sqrt", "wsd"])
def test_one_step_and_warmup_only(name):
    for options in ({}, {"warmup_ratio": 1.0}, {"warmup_steps": 100}):
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
        ("agc", {"clipping": 0.05, "eps": 1e-2}, lambda p: adaptive(p, 0.05, 1e-2)),
    ):
        got = ask(
            kind="clipping", name=name, options=toml(options), parameters=[w.tolist() for w in weights],
            gradients=[g.tolist() for g in gradients],
        )
        assert got["norm"] == pytest.approx(norm, rel=1e-12)
        for values, expected in zip(got["gradients"], peer(clip), strict=True):
            torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), expected, rtol=1e-12, atol=1e-15)


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
