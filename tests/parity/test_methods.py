"""Every method that HF PEFT has too, for each row of the table below: an adapter made there has the same outputs and gradients here; one
made here has HF PEFT's keys, shapes and config, and HF PEFT loads it; training takes the same steps; merged into the weights it is
the same model; `peft-run selfcheck` passes; and a method that is exactly a LoRA can be exported as one."""

import json
import re

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_llama import save_llama

from method_support import base_model, check_refusal, check_saved_form, check_training, form, made_there, toml, train
from model_support import apart, model_answer, peer_answer, random_examples, within

ALL = {"target_modules": "all-linear"}
# method, PEFT's config class, options of both, whether it is exactly a LoRA
CASES = [
    ("lora", peft.LoraConfig, {"use_dora": True}, False),
    ("lora", peft.LoraConfig, {"use_dora": True, "r": 3, "lora_alpha": 5, "use_rslora": True, "bias": "all"} | ALL, False),
    ("lora", peft.LoraConfig, {"use_dora": True, "init_lora_weights": False}, False),
    ("lora", peft.LoraConfig, {"layer_replication": [[0, 2], [1, 2]], "r": 4} | ALL, False),
    ("lora", peft.LoraConfig,
     {"layer_replication": [[1, 2], [0, 2], [0, 1]], "layers_to_transform": [0, 3], "modules_to_save": ["norm"]}, False),
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
    ("adalora", peft.AdaLoraConfig, {"total_step": 20, "tinit": 10}, True),
    ("adalora", peft.AdaLoraConfig,
     {"init_r": 5, "target_r": 2, "total_step": 20, "tinit": 10, "orth_reg_weight": 0.1, "lora_alpha": 16} | ALL, True),
    ("vblora", peft.VBLoRAConfig, {"num_vectors": 10, "vector_length": 8}, True),
    ("vblora", peft.VBLoRAConfig, {"r": 3, "num_vectors": 12, "vector_length": 4, "topk": 3, "init_logits_std": 0.5} | ALL, True),
    ("randlora", peft.RandLoraConfig, {"r": 6, "randlora_alpha": 6}, True),
    ("randlora", peft.RandLoraConfig, {"r": 8, "save_projection": False, "projection_prng_key": 3, "randlora_alpha": 4} | ALL, True),
    ("randlora", peft.RandLoraConfig, {"r": 5, "randlora_alpha": 5, "sparse": True, "save_projection": False} | ALL, True),
    ("randlora", peft.RandLoraConfig, {"r": 5, "randlora_alpha": 5, "very_sparse": True, "target_modules": ["down_proj", "k_proj"]}, True),
    ("boft", peft.BOFTConfig, {}, False),
    ("boft", peft.BOFTConfig, {"boft_block_size": 0, "boft_block_num": 2, "init_weights": False} | ALL, False),
    ("boft", peft.BOFTConfig, {"boft_block_size": 2, "boft_n_butterfly_factor": 3} | ALL, False),
    ("waveft", peft.WaveFTConfig, {"n_frequency": 50}, False),
    ("waveft", peft.WaveFTConfig,
     {"n_frequency": 40, "wavelet_family": "db3", "proportional_parameters": True, "scaling": 10.0} | ALL, False),
    ("waveft", peft.WaveFTConfig,
     {"n_frequency": 60, "wavelet_family": "db4", "n_frequency_pattern": {"q_proj": 30}, "init_weights": False}, False),
    ("waveft", peft.WaveFTConfig, {"n_frequency": 50, "use_idwt": False}, False),
    ("beft", peft.BeftConfig, {}, False),
    ("beft", peft.BeftConfig, {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head"]}, False),
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


def saved_name(name):
    """The key under which HF PEFT saves a parameter."""
    name = name.replace(".default", "").replace(".modules_to_save", "").replace("_vector.weight", "_vector")
    return re.sub(r"^base_model\.model\..*\.(vblora_vector_bank)$", r"base_model.\1", name)


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


@pytest.fixture(autouse=True)
def true_butterfly(monkeypatch):
    """Without its CUDA extension PEFT's BOFT has one butterfly factor, whatever its config says. Here the extension's one
    function, which lays blocks along a diagonal, is torch's, and the factors are those of the config."""
    from peft.tuners.boft import layer

    class BlockDiagonal:
        @staticmethod
        def apply(blocks):
            return torch.stack([torch.block_diag(*factor) for factor in blocks])

    monkeypatch.setattr(layer, "get_fbd_cuda", lambda: True)
    monkeypatch.setattr(layer, "FastBlockDiag", BlockDiagonal)


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
def test_loads_adapter_from_hf_peft(tmp_path, method, config, options, is_lora):
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
def test_saved_file_equals_hf_peft(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    check_saved_form(run, tmp_path, method, config, options)


@every
def test_training_equals_hf_peft(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    check_training(run, tmp_path, method, options, steps=4)


@every
def test_merge_preserves_outputs(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(made_there(tmp_path, config, options), examples)
        run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs", "--output", tmp_path / "out")
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        within("logits", apart(peer_answer(merged, examples)[0], expected), 2e-5)


def within_vocabulary(indices):
    """The token ids that exist in selfcheck's model, which has 40 rows."""
    if isinstance(indices, dict):
        return {name: within_vocabulary(rows) for name, rows in indices.items()}
    return [row for row in indices if row < 40]


@every
def test_selfcheck(run, method, config, options, is_lora):
    if "use_dora" in options:
        pytest.skip("DoRA's gradient is not that of its forward, by its definition: lengths count as constants")
    options = {key: within_vocabulary(value) if "token_indices" in key else value for key, value in options.items()}
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={toml(value)}")]
    printed = run("peft-run", "selfcheck", f"adapter/{method}", *sets).stdout
    assert "BROKEN" not in printed
    assert "gradients match finite differences" in printed and "merged weights give the same outputs" in printed


@pytest.mark.parametrize("method,config,options,is_lora", [case for case in CASES if case[3]],
                         ids=[name for name, case in zip(NUMBERED, CASES) if case[3]])
def test_export_as_lora_preserves_outputs(run, tmp_path, method, config, options, is_lora):
    tiny(tmp_path)
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(made_there(tmp_path, config, options), examples)
        run("peft-run", "export", "--as", "lora", "--model", tmp_path / "model", "--adapter", tmp_path / "theirs",
            "--output", tmp_path / "out")
        lora = peft.PeftModel.from_pretrained(base_model(tmp_path), tmp_path / "out")
        within("logits", apart(peer_answer(lora, examples)[0], expected), 2e-5)


def test_lora_plus_steps_equal_hf_peft(run, tmp_path):
    """HF PEFT's optimizer for LoRA+ and ours give the same weights after four steps."""
    from peft.optimizers import create_loraplus_optimizer

    tiny(tmp_path)
    options = {"target_modules": ["q_proj", "down_proj"], "loraplus_lr_ratio": 8.0}

    def optimizer(model):
        return create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=8.0,
                                         loraplus_weight_decay=0.0)

    check_training(run, tmp_path, "lora", options, steps=4, optimizer=optimizer)


def test_adalora_allocates_ranks_like_hf_peft(run, tmp_path):
    """PEFT's budget driven by hand, as its documentation says, and ours by the loop: the same losses, masks and weights; without
    total_step it is the run's own; and what is saved, with fewer ranks, is the same model there."""
    tiny(tmp_path)
    options = {"init_r": 6, "target_r": 3, "tinit": 2, "tfinal": 2, "deltaT": 2} | ALL

    patterns = []

    def allocate(model, step):
        model.base_model.update_and_allocate(step)
        patterns.append(model.peft_config["default"].rank_pattern)

    check_training(run, tmp_path, "adalora", options | {"total_step": 10}, steps=10, after_step=allocate)
    config = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    masks = {name.replace(".default", ""): mask for name, mask in patterns[-1].items()}
    assert config["rank_pattern"] == masks
    assert sum(map(sum, masks.values())) == 3 * len(masks) and len({sum(mask) for mask in masks.values()}) > 1

    _, tensors, own = train(run, tmp_path, "adalora", options, name="own", steps=10)
    assert own == config
    trained = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert tensors.keys() == trained.keys() and all(torch.equal(tensors[name], trained[name]) for name in trained)

    examples = random_examples(258)
    with torch.no_grad():
        loaded = peft.PeftModel.from_pretrained(base_model(tmp_path), tmp_path / "run")
        expected, _ = peer_answer(loaded, examples)
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "run")
        within("logits", apart(ours["logits"], expected), 2e-5)
        run("peft-run", "export", "--as", "lora", "--model", tmp_path / "model", "--adapter", tmp_path / "run",
            "--output", tmp_path / "lora")
        lora = peft.PeftModel.from_pretrained(base_model(tmp_path), tmp_path / "lora")
        within("logits", apart(peer_answer(lora, examples)[0], expected), 2e-5)


@pytest.mark.parametrize("vectors,index", [(10, torch.uint8), (300, torch.int16)])
def test_vblora_saves_topk_mixtures(run, tmp_path, vectors, index):
    """save_only_topk_weights: HF PEFT's file gives the same model here, and ours the same there, in HF PEFT's format; nobody
    trains on from it."""
    tiny(tmp_path)
    options = {"num_vectors": vectors, "vector_length": 8, "topk": 3, "save_only_topk_weights": True} | ALL
    train(run, tmp_path, "vblora", options)
    examples = random_examples(258)
    with torch.no_grad():
        expected, _ = peer_answer(made_there(tmp_path, peft.VBLoRAConfig, options), examples)
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "theirs")
        within("logits", apart(ours["logits"], expected), 2e-5)
        loaded = peft.PeftModel.from_pretrained(base_model(tmp_path), tmp_path / "run")
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "run")
        within("logits", apart(ours["logits"], peer_answer(loaded, examples)[0]), 2e-5)
    tensors = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert {t.dtype for name, t in tensors.items() if name.endswith("_topk_indices")} == {index}
    assert form(tensors) == form(load_file(tmp_path / "theirs" / "adapter_model.safetensors"))
    experiment = (tmp_path / "run.toml").read_text().replace('output_dir = "run"', 'output_dir = "again"')
    head, rest = experiment.split("[adapter]\n")
    (tmp_path / "again.toml").write_text(head + '[adapter]\ninit_from = "run"\n' + rest[rest.index("[optimizer]"):])
    assert "it cannot be trained further" in run("peft-run", tmp_path / "again.toml", code=2).stderr


@pytest.mark.parametrize(
    "method,options,printed",
    [
        ("c3a", {"block_size": 7}, "block_size: 7 does not divide"),
        ("gralora", {"r": 3}, "'r' must be a multiple of gralora_k"),
        ("road", {"group_size": 24}, "group_size: 24 does not divide"),
        ("miss", {"r": 33}, "r is more than the inputs"),
        ("shira", {"r": 40}, "makes more entries"),
        ("oft", {"r": 2}, "exclude each other; add oft_block_size = 0"),
        ("ia3", {"target_modules": ["q_proj"], "feedforward_modules": ["k_proj"]}, "must be among target_modules"),
        ("loha", {"target_modules": ["embed_tokens"]}, "loha adapts linear layers only"),
        ("fourierft", {"n_frequency": 10**6}, "has only"),
        ("ln_tuning", {"target_modules": ["q_proj"]}, "'q_proj' matches nothing"),
        ("loha", {"module_dropout": 0.5}, "'module_dropout' is not supported here"),
        ("lora", {"use_dora": True, "lora_bias": True}, "'use_dora' and lora_bias exclude each other"),
        ("vblora", {"vector_length": 12}, "vector_length: 12 does not divide the 32 inputs"),
        ("vblora", {"num_vectors": 4, "topk": 5}, "'topk' must be positive and at most num_vectors"),
        ("boft", {"boft_block_num": 4}, "add boft_block_size = 0"),
        ("boft", {"boft_block_size": 5}, "boft_block_size: 5 does not divide the 32 inputs"),
        ("boft", {"boft_block_size": 16, "boft_n_butterfly_factor": 3}, "needs blocks of even size, in a multiple of 2^2"),
        ("adalora", {"total_step": 5, "tinit": 3, "tfinal": 2}, "'total_step' is too small"),
        ("adalora", {"target_r": 13}, "'target_r' must be positive and at most init_r"),
        ("lora", {"layer_replication": [[0, 2], [1, 3]]}, "layer_replication: [1, 3] is not a range of the model's 2 layers"),
        ("lora", {"layer_replication": [[1, 1]]}, "[1, 1] is not a range"),
        ("lora", {"layer_replication": [[0, 2]], "bias": "all"}, "'layer_replication' needs bias"),
        ("lora", {"trainable_token_indices": [258]}, "token 258 does not exist: 'model.embed_tokens' has rows 0 to 257"),
        ("lora", {"trainable_token_indices": {"embed": [1]}}, "'embed' matches nothing"),
        ("lora", {"trainable_token_indices": [1], "target_modules": ["embed_tokens"]}, "is already adapted or trained"),
        ("trainable_tokens", {"token_indices": [3, 5, 3]}, "token_indices: token 3 is listed twice"),
    ],
)
def test_invalid_options(run, tmp_path, method, options, printed):
    check_refusal(run, tmp_path, method, options, printed)
