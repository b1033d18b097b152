"""The decoder computes what transformers computes: logits and masked loss of the Llama family with every shape of attention, biases,
tied or untied head and each RoPE scaling, from one safetensors file or shards, in fp64, fp32 and bf16; the gradients of every
adapter tensor, fused or not; and SmolLM2-135M-Instruct from its GGUF within 1e-4."""

import warnings

import peft
import pytest
import torch
import transformers

from model_support import apart, model_answer, peer_answer, peer_of_gguf, random_examples, within
from tiny_llama import save_llama

ROPE = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_theta": 500000.0,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0},
    "yarn_mscale": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0,
        "mscale": 0.7, "mscale_all_dim": 0.9, "beta_fast": 24.0, "beta_slow": 2.0,
    },
}
EXACT = 1e-10  # what fp64 leaves of the same mathematics in another order
CASES = {
    "grouped": {},
    "every_head_its_own": {"num_key_value_heads": 4},
    "one_for_all": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "biased": {"attention_bias": True, "mlp_bias": True},
    "wide_heads": {"head_dim": 16},
    **{f"rope_{name}": {"rope_parameters": rope} for name, rope in ROPE.items()},
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("precision,dtype,bound", [("fp64", torch.float64, 1e-6), ("fp32", torch.float32, 1e-5)])
def test_logits_and_loss(tmp_path, options, precision, dtype, bound):
    # RoPE's angles are fp32 in transformers whatever the model's dtype, and here too.
    model = save_llama(tmp_path / "model", **options).to(dtype)
    examples = random_examples(258)
    ours = model_answer(tmp_path, tmp_path / "model", examples, precision)
    with torch.no_grad():
        logits, loss = peer_answer(model, examples)
    within("logits", apart(ours["logits"], logits), bound)
    within("loss", apart(ours["loss"], loss), bound)


def test_shards_and_half_precision_files(tmp_path):
    save_llama(tmp_path / "model", dtype=torch.float16, shard="40KB")
    # Read back: to(float16) would have rounded the peer's RoPE frequencies too.
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert len(list((tmp_path / "model").glob("model-*.safetensors"))) > 1
    examples = random_examples(258)
    ours = model_answer(tmp_path, tmp_path / "model", examples)
    with torch.no_grad():
        logits, _ = peer_answer(model, examples)
    torch.testing.assert_close(ours["logits"], logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
def test_gradients_of_an_adapter(tmp_path, exact_peer, options, fused):
    base = save_llama(tmp_path / "model", **options).double()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, use_rslora=True,
                             task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(base, config)
        theirs.save_pretrained(tmp_path / "adapter")
    examples = random_examples(258)
    ours = model_answer(tmp_path, tmp_path / "model", examples, "fp64", tmp_path / "adapter", fused)
    logits, loss = peer_answer(theirs, examples)
    loss.backward()
    within("logits", apart(ours["logits"], logits.detach()), EXACT)
    within("loss", apart(ours["loss"], loss.detach()), EXACT)
    compared = 0
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            got = ours["grad." + name.replace(".default", "")]
            difference = (got - parameter.grad).norm() / parameter.grad.norm()
            within("gradients", difference, EXACT)
            compared += 1
    assert compared == 2 * 7 * 2


TEXT = "Gravity is what pulls an apple to the ground.\n\ndef f(x):\n    return x ** 2  # 平方 🍎\n1234567890"


def test_smollm2(tmp_path, model_gguf):
    """transformers' model of the same GGUF, which it dequantizes with the gguf package. The largest logit is about 43, and both
    are about 1e-4 from the exact ones, depending on the library that multiplies: bounded as in test_real_model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(model_gguf.parent, gguf_file=model_gguf.name)
    peer = peer_of_gguf(model_gguf)
    ids = tokenizer(TEXT)["input_ids"]
    examples = [(ids, ids), (ids[:7], ids[:7])]
    ours = model_answer(tmp_path, model_gguf, examples)
    with torch.no_grad():
        logits, loss = peer_answer(peer, examples)
    within("logits", (ours["logits"] - logits).abs().max() / logits.abs().max(), 4e-6)
    within("loss", abs(ours["loss"] - loss), 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bf16_is_as_accurate_as_peer(tmp_path, case):
    """Where kernels are fused fewer values are rounded, so the two differ by more than the peer's own from another split of the
    batch; from the exact logits ours are no farther than a quarter more than the peer's."""
    save_llama(tmp_path / "model", **CASES[case])
    examples = random_examples(258)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        exact, loss = peer_answer(model, examples)
        theirs, their_loss = peer_answer(model.bfloat16(), examples)
    ours = model_answer(tmp_path, tmp_path / "model", examples, precision="bf16")
    within("bf16 by the peer's", (ours["logits"] - exact).norm() / (theirs.float() - exact).norm(), 1.25)
    assert ours["loss"].item() == pytest.approx(loss.item(), rel=2e-3)
