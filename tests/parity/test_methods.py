"""Promises of every method that HF PEFT has, too, for each row of the table below: an adapter made there computes the same here
and has the same gradients; one made here has PEFT's keys, shapes and config, and PEFT takes it; training goes the way it goes
there; merged into weights it is the same model; the method keeps what `peft-run selfcheck` asks of every method; and what is
exactly a LoRA can be exported as one."""

import warnings

import peft
import pytest
import torch
import transformers
from tiny_llama import save_llama

from method_support import base_model, check_saved_form, check_training, toml
from model_support import apart, model_answer, peer_answer, random_examples, within

ALL = {"target_modules": "all-linear"}
# method, PEFT's config class, options of both, whether it is exactly a LoRA
CASES = [
    ("lora", peft.LoraConfig, {"use_dora": True}, False),
    ("lora", peft.LoraConfig, {"use_dora": True, "r": 3, "lora_alpha": 5, "use_rslora": True, "bias": "all"} | ALL, False),
    ("lora", peft.LoraConfig, {"use_dora": True, "init_lora_weights": False}, False),
    ("hira", peft.HiraConfig, {}, False),
    ("hira", peft.HiraConfig, {"r": 4} | ALL, False),
    ("ia3", peft.IA3Config, {}, False),
    ("ia3", peft.IA3Config, {"target_modules": ["q_proj", "up_proj"], "feedforward_modules": ["up_proj"]}, False),
    ("loha", peft.LoHaConfig, {}, True),
    ("loha", peft.LoHaConfig, {"r": 3, "alpha": 6, "alpha_pattern": {"q_proj": 2}, "rank_pattern": {"v_proj": 2}} | ALL, True),
    ("lokr", peft.LoKrConfig, {}, False),
    ("lokr", peft.LoKrConfig, {"r": 1, "decompose_both": True} | ALL, False),
    ("lokr", peft.LoKrConfig, {"r": 2, "alpha": 3, "decompose_factor": 4} | ALL, False),
    ("miss", peft.MissConfig, {"r": 8}, True),
    ("miss", peft.MissConfig, {"r": 5} | ALL, True),
    ("miss", peft.MissConfig, {"r": 8, "init_weights": "mini", "mini_r": 4}, True),
    ("miss", peft.MissConfig, {"r": 8, "init_weights": "bat"} | ALL, False),
    ("vera", peft.VeraConfig, {"r": 8}, True),
    ("vera", peft.VeraConfig, {"r": 6, "save_projection": False, "projection_prng_key": 5, "d_initial": 0.3} | ALL, True),
    ("ln_tuning", peft.LNTuningConfig, {}, False),
    ("ln_tuning", peft.LNTuningConfig, {"target_modules": ["norm"], "modules_to_save": ["lm_head"]}, False),
    ("delora", peft.DeloraConfig, {"r": 4}, True),
    ("delora", peft.DeloraConfig, {"delora_lambda": 3, "lambda_pattern": {"q_proj": 2}, "rank_pattern": {"v_proj": 2}} | ALL, True),
    ("hra", peft.HRAConfig, {"r": 4}, False),
    ("hra", peft.HRAConfig, {"r": 5, "init_weights": False} | ALL, False),
    ("fourierft", peft.FourierFTConfig, {"n_frequency": 50, "scaling": 20.0}, False),
    ("fourierft", peft.FourierFTConfig,
     {"n_frequency": 40, "init_weights": True, "scaling": 20.0, "n_frequency_pattern": {"q_proj": 30}} | ALL, False),
    ("c3a", peft.C3AConfig, {"block_size": 8}, False),
    ("c3a", peft.C3AConfig, {"block_size": 8, "init_weights": "kaiming_uniform", "block_size_pattern": {"q_proj": 4}} | ALL, False),
    ("gralora", peft.GraloraConfig, {"r": 4}, True),
    ("gralora", peft.GraloraConfig, {"r": 8, "gralora_k": 4, "hybrid_r": 2, "alpha": 10} | ALL, True),
    ("road", peft.RoadConfig, {"group_size": 8}, False),
    ("road", peft.RoadConfig, {"group_size": 8, "variant": "road_2"} | ALL, False),
    ("road", peft.RoadConfig, {"group_size": 4, "variant": "road_4"}, False),
    ("oft", peft.OFTConfig, {"oft_block_size": 8}, False),
    ("oft", peft.OFTConfig, {"r": 4, "oft_block_size": 0, "use_cayley_neumann": False} | ALL, False),
    ("oft", peft.OFTConfig, {"oft_block_size": 12, "block_share": True, "num_cayley_neumann_terms": 4}, False),
    ("shira", peft.ShiraConfig, {"r": 2, "random_seed": 1}, False),
    ("lora", peft.LoraConfig, {"trainable_token_indices": list(range(90, 4, -1)), "r": 4}, False),
    ("lora", peft.LoraConfig, {"trainable_token_indices": {"lm_head": [9, 70, 71], "embed_tokens": list(range(120, 4, -1))}}, False),
    ("trainable_tokens", peft.TrainableTokensConfig, {"token_indices": list(range(4, 90))}, False),
    ("trainable_tokens", peft.TrainableTokensConfig,
     {"token_indices": list(range(120, 4, -1)), "target_modules": ["lm_head", "embed_tokens"], "init_weights": False}, False),
]
NUMBERED = [f"{case[0]}-{sum(other[0] == case[0] for other in CASES[:i])}" for i, case in enumerate(CASES)]
every = pytest.mark.parametrize("method,config,options,is_lora", CASES, ids=NUMBERED)


def tiny(folder):
    save_llama(folder / "model", attention_bias=True, mlp_bias=True)


def made_there(folder, config, options):
    """PEFT's model with all that it trains moved from its start by random numbers, and saved to folder / "theirs"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base_model(folder), config(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        model.eval()
        model.save_pretrained(folder / "theirs")
    return model


def saved_name(name):
    """The key under which PEFT saves a parameter."""
    return name.replace(".default", "").replace(".modules_to_save", "").replace("_vector.weight", "_vector")


@pytest.fixture(autouse=True)
def true_c3a_gradients(monkeypatch):
    """PEFT 0.21's BlockCircularConvolution has a backward of its own whose gradient of x is that of x reversed within each
    block (test_peft_c3a_gradient); here autograd differentiates its forward."""
    from peft.tuners.c3a import layer

    class Differentiated:
        @staticmethod
        def apply(x, w):
            return convolution(x, w)

    monkeypatch.setattr(layer, "BlockCircularConvolution", Differentiated)


def convolution(x, w):
    """The forward of PEFT's BlockCircularConvolution."""
    _, n, b = w.shape
    product = torch.einsum("...nb,mnb->...mb", torch.fft.ifft(x.unflatten(-1, (n, b))), torch.fft.fft(w))
    return torch.fft.fft(product).real.flatten(-2)


def test_peft_c3a_gradient():
    """Why true_c3a_gradients is there: PEFT's forward is the one above, its gradient of x is not. If this fails, PEFT has
    mended it, and the fixture can go."""
    from peft.tuners.c3a.utils import BlockCircularConvolution

    torch.manual_seed(0)
    x, w = torch.randn(3, 8, dtype=torch.float64, requires_grad=True), torch.randn(2, 2, 4, dtype=torch.float64)
    assert torch.allclose(BlockCircularConvolution.apply(x, w), convolution(x, w))
    assert torch.autograd.gradcheck(lambda x: convolution(x, w), x)
    assert not torch.autograd.gradcheck(lambda x: BlockCircularConvolution.apply(x, w), x, raise_exception=False)


@every
def test_made_there(tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    model, examples = made_there(tmp_path, config, options), random_examples(258)
    logits, loss = peer_answer(model, examples)
    loss.backward()
    gradients = {saved_name(name): p.grad
                 for name, p in model.named_parameters() if p.requires_grad}
    for fused in (True, False):
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "theirs", fused=fused)
        within("logits", apart(ours["logits"], logits.detach()), 2e-5)
        assert {name for name in ours if name.startswith("grad.")} == {"grad." + name for name in gradients}
        for name, gradient in gradients.items():
            within("gradients", apart(ours["grad." + name], gradient), 1e-4)


@every
def test_made_here(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    check_saved_form(run, tmp_path, method, config, options)


@every
def test_training_goes_as_in_python(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    check_training(run, tmp_path, method, options, steps=4)


@every
def test_merged_it_is_the_same_model(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(made_there(tmp_path, config, options), examples)
        run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--output", tmp_path / "out")
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        within("logits", apart(peer_answer(merged, examples)[0], expected), 2e-5)


@every
def test_selfcheck(run, method, config, options, is_lora):
    if "use_dora" in options:
        pytest.skip("DoRA's gradient is not that of its forward, by its definition: lengths count as constants")
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={toml(value)}")]
    told = run("peft-run", "selfcheck", f"adapter/{method}", *sets).stdout
    assert "BROKEN" not in told
    assert "gradients are those of finite differences" in told and "folded into weights it computes the same" in told


@pytest.mark.parametrize("method,config,options,is_lora", [case for case in CASES if case[3]],
                         ids=[name for name, case in zip(NUMBERED, CASES) if case[3]])
def test_exported_as_lora_it_is_the_same(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(made_there(tmp_path, config, options), examples)
        run("peft-run", "export", "--as", "lora", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs",
            "--output", tmp_path / "out")
        lora = peft.PeftModel.from_pretrained(base_model(tmp_path), tmp_path / "out")
        within("logits", apart(peer_answer(lora, examples)[0], expected), 2e-5)


def test_lora_plus_learns_as_in_peft(run, tmp_path):
    """PEFT's optimizer for LoRA+ and ours: the same weights after four steps."""
    from peft.optimizers import create_loraplus_optimizer

    tiny(tmp_path)
    options = {"target_modules": ["q_proj", "down_proj"], "loraplus_lr_ratio": 8.0}

    def optimizer(model):
        return create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=8.0,
                                         loraplus_weight_decay=0.0)

    check_training(run, tmp_path, "lora", options, steps=4, optimizer=optimizer)


@pytest.mark.parametrize(
    "method,options,told",
    [
        ("c3a", {"block_size": 7}, "block_size: 7 does not divide"),
        ("gralora", {"r": 3}, "'r' must be a multiple of gralora_k"),
        ("road", {"group_size": 24}, "group_size: 24 does not divide"),
        ("miss", {"r": 33}, "r is more than the inputs"),
        ("shira", {"r": 40}, "makes more entries"),
        ("oft", {"r": 2}, "one of them must be 0"),
        ("ia3", {"target_modules": ["q_proj"], "feedforward_modules": ["k_proj"]}, "must be among target_modules"),
        ("loha", {"target_modules": ["embed_tokens"]}, "loha adapts linear layers only"),
        ("fourierft", {"n_frequency": 10**6}, "has only"),
        ("ln_tuning", {"target_modules": ["q_proj"]}, "'q_proj' matches nothing"),
        ("loha", {"module_dropout": 0.5}, "'module_dropout' is not supported here"),
        ("lora", {"use_dora": True, "lora_bias": True}, "'use_dora' and lora_bias exclude each other"),
        ("lora", {"trainable_token_indices": [258]}, "258 is no token: 'model.embed_tokens' has rows 0 to 257"),
        ("lora", {"trainable_token_indices": {"embed": [1]}}, "'embed' matches nothing"),
        ("lora", {"trainable_token_indices": [1], "target_modules": ["embed_tokens"]}, "is adapted or trained already"),
        ("trainable_tokens", {"token_indices": [3, 5, 3]}, "token_indices: 3 is named twice"),
    ],
)
def test_options_that_do_not_fit(run, tmp_path, method, options, told):
    tiny(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n')
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in options.items())
    (tmp_path / "experiment.toml").write_text(
        f'[model]\npath = "model"\n[data]\ntrain = "train.jsonl"\n[adapter]\nname = "{method}"\n{lines}'
        '[training]\noutput_dir = "out"\nmax_steps = 1\n'
    )
    assert told in run("peft-run", tmp_path / "experiment.toml", code=2).stderr
    assert not (tmp_path / "out").exists()
