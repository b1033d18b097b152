"""A GGUF file is read as Hugging Face reads it: every tensor bit for bit as the gguf package dequantizes it (q and k with llama.cpp's
permutation undone, as in transformers), the configuration as transformers builds it, for each supported tensor type."""

import json
import os
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
from text_support import ROOT, absent

TOOL = Path(os.environ.get("PEFT_BUILD", ROOT / "build")) / "tests" / "framework" / "gguf_tool"
QuantType = gguf.GGMLQuantizationType
HF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HIDDEN, FEED, HEADS, KV_HEADS, LAYERS, VOCAB = 256, 512, 4, 2, 2, 40


def read(path):
    """What the Checkpoint says of the file, and its tensors by name."""
    if not TOOL.exists():
        absent(f"SKIPPED: {TOOL} is not built (set PEFT_BUILD to the build folder)")
    process = subprocess.Popen([TOOL, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = process.stdout.readline()
    if not first:
        raise ValueError(process.stderr.read().decode())
    said, tensors = json.loads(first), {}
    for tensor in said["tensors"]:
        size = int(np.prod(tensor["shape"]))
        bits = np.frombuffer(process.stdout.read(size * 4), dtype=np.uint32)
        tensors[tensor["name"]] = bits.reshape(tensor["shape"])
    assert process.stdout.read() == b""
    assert process.wait() == 0
    return said, tensors


def hf_name(name):
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{HF_NAMES[parts[2]]}.{parts[3]}"
    return f"{HF_NAMES[parts[0]]}.{parts[1]}"


def unpermute(weights, name, heads, kv_heads):
    """With transformers' own code."""
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    config = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return LlamaTensorProcessor(config).process(weights, name).weights


def compare_tensors(path):
    said, ours = read(path)
    config = said["config"]
    theirs = gguf.GGUFReader(path).tensors
    assert len(ours) == len(theirs)
    for tensor in theirs:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        expected = unpermute(expected, tensor.name, config["num_attention_heads"], config["num_key_value_heads"])
        expected = np.ascontiguousarray(expected, dtype=np.float32).view(np.uint32)
        ours_here = ours[hf_name(tensor.name)]
        assert ours_here.shape == expected.shape, tensor.name
        assert np.array_equal(ours_here, expected), f"{tensor.name} ({tensor.tensor_type.name})"
    return said


def compare_config(path, ours):
    """Every field of ours is transformers' too, whose rope_parameters hold what ours says in v4's words."""
    from transformers import AutoConfig

    theirs = AutoConfig.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path)).to_dict()
    theirs["rope_theta"] = theirs["rope_parameters"]["rope_theta"]
    numbers = {key: value for key, value in ours.items() if isinstance(value, (int, float))}
    assert len(numbers) >= 12
    for key, value in numbers.items():
        if key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            continue  # transformers leaves the defaults of LlamaConfig and puts the ids in the tokenizer
        assert theirs[key] == value, key
    assert ours["model_type"] == theirs["model_type"]
    assert ours["hidden_act"] == theirs["hidden_act"]


def test_real_model_tensors(model_gguf):
    said = compare_tensors(str(model_gguf))
    direct = [tensor["name"] for tensor in said["tensors"] if tensor["direct"]]
    assert len(said["tensors"]) == 272 and len(direct) == 61
    assert all("norm" in name for name in direct)


def test_real_model_config(model_gguf):
    said, _ = read(str(model_gguf))
    compare_config(str(model_gguf), said["config"])
    assert said["config"]["torch_dtype"] == "float32"
    assert "rope_scaling" not in said["config"]


def test_real_model_text(model_gguf):
    """The chat template and its special tokens, end to end."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(model_gguf.parent), gguf_file=model_gguf.name)
    said, _ = read(str(model_gguf))
    assert said["eos_ids"] == [theirs.convert_tokens_to_ids("<|im_end|>")] == [2]
    assert said["tokenizer_config"]["bos_token"] == theirs.bos_token == "<|im_start|>"
    # transformers 5.17 gives <|im_start|> as eos_token, against the file's eos_token_id of 2
    assert said["tokenizer_config"]["eos_token"] == theirs.convert_ids_to_tokens(2) == "<|im_end|>"
    assert said["tokenizer_config"]["chat_template"] == theirs.chat_template
    messages = [{"role": "user", "content": "Hello, 1 2!"}]
    assert said["rendered"] == theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert said["ids"].count(1) == 3 and said["ids"].count(2) == 2


def random_blocks(kind, rows, columns, source):
    """Random bytes as blocks of a type, their fp16 scales finite, some of them subnormal or zero."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = source.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    places = {"Q6_K": [208], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q4_1": [0, 2], "Q5_1": [0, 2]}.get(kind.name, [0])
    for place in places:
        scale = source.normal(size=len(blocks)).astype(np.float16)
        scale[::5] = (source.normal(size=len(scale[::5])) * 1e-6).astype(np.float16)
        scale[::17] = 0
        blocks[:, place : place + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, columns // elements * size)


def stored(kind, rows, columns, source, quantized):
    values = (source.normal(size=(rows, columns)) * source.choice([1e-7, 1, 1e3], (rows, 1))).astype(np.float32)
    if kind == QuantType.F32:
        return values
    if kind == QuantType.F16:
        return values.astype(np.float16)
    if kind == QuantType.BF16 or quantized:
        return gguf.quants.quantize(values, kind)
    return random_blocks(kind, rows, columns, source)


def write_model(path, kind, source, quantized=False, biases=False, rope_freqs=None, tied=False, **more):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(more.pop("context", 131072))
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCAB)
    for key, value in more.items():
        getattr(writer, f"add_{key}")(value)
    kv = HIDDEN // HEADS * KV_HEADS
    sizes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN), "attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN)}
    sizes |= {"ffn_gate": (FEED, HIDDEN), "ffn_up": (FEED, HIDDEN), "ffn_down": (HIDDEN, FEED)}
    embeddings = ["token_embd"] if tied else ["token_embd", "output"]
    matrices = {name: (VOCAB, HIDDEN) for name in embeddings}
    matrices |= {f"blk.{i}.{name}": size for i in range(LAYERS) for name, size in sizes.items()}
    norms = ["output_norm"] + [f"blk.{i}.{name}_norm" for i in range(LAYERS) for name in ("attn", "ffn")]
    for name, (rows, columns) in matrices.items():
        writer.add_tensor(f"{name}.weight", stored(kind, rows, columns, source, quantized), raw_dtype=kind)
        if biases and name.startswith("blk"):
            writer.add_tensor(f"{name}.bias", source.normal(size=rows).astype(np.float32))
    for name in norms:
        writer.add_tensor(f"{name}.weight", source.normal(size=HIDDEN).astype(np.float32))
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", rope_freqs)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


SIMPLE = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


@pytest.mark.parametrize("name", SIMPLE)
def test_quantized_values(tmp_path, name):
    source = np.random.default_rng(1)
    said = compare_tensors(write_model(tmp_path / "a.gguf", QuantType[name], source, quantized=True))
    assert said["config"]["torch_dtype"] == {"F16": "float16", "BF16": "bfloat16"}.get(name, "float32")


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"])
def test_random_blocks(tmp_path, name):
    compare_tensors(write_model(tmp_path / "a.gguf", QuantType[name], np.random.default_rng(2)))


def test_config_of_untied_biased_model(tmp_path):
    path = write_model(tmp_path / "a.gguf", QuantType.F16, np.random.default_rng(3), biases=True)
    said = compare_tensors(path)
    config = said["config"]
    assert config["attention_bias"] and config["mlp_bias"] and not config["tie_word_embeddings"]
    compare_config(path, config | {"attention_bias": False, "mlp_bias": False})  # transformers overlooks biases


def test_config_of_tied_model(tmp_path):
    path = write_model(tmp_path / "a.gguf", QuantType.F32, np.random.default_rng(4), tied=True, key_length=64)
    said, _ = read(path)
    assert said["config"]["tie_word_embeddings"]
    compare_config(path, said["config"])


def llama3_divisors(scaling):
    """transformers' scaled frequencies as the divisors that llama.cpp stores."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_theta": 500000.0, **scaling}
    config = LlamaConfig(hidden_size=HIDDEN, num_attention_heads=HEADS, max_position_embeddings=131072, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1.0 / (500000.0 ** (np.arange(0, HIDDEN // HEADS, 2, dtype=np.float32) / np.float32(HIDDEN // HEADS)))
    return (plain / scaled.numpy()).astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_rope_scaling_is_read_from_tensor(tmp_path, factor):
    scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    divisors = llama3_divisors(scaling)
    path = write_model(tmp_path / "a.gguf", QuantType.F32, np.random.default_rng(5), rope_freqs=divisors)
    said, tensors = read(path)
    found = said["config"]["rope_scaling"]
    assert found.pop("factor") == pytest.approx(factor, rel=1e-6)  # the tensor is fp32
    assert found == {key: value for key, value in scaling.items() if key != "factor"}
    assert "rope_freqs.weight" not in tensors


def test_other_frequency_factors_are_refused(tmp_path):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    divisors = llama3_divisors(scaling | {"original_max_position_embeddings": 4096})
    path = write_model(tmp_path / "a.gguf", QuantType.F32, np.random.default_rng(6), rope_freqs=divisors)
    with pytest.raises(ValueError, match="the tensor rope_freqs.weight is not Llama 3's scaling"):
        read(path)


def test_linear_and_yarn_scaling(tmp_path):
    linear = {"rope_scaling_type": gguf.RopeScalingType.LINEAR, "rope_scaling_factor": 4.0}
    said, _ = read(write_model(tmp_path / "a.gguf", QuantType.F32, np.random.default_rng(7), **linear))
    assert said["config"]["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    yarn = {"rope_scaling_type": gguf.RopeScalingType.YARN, "rope_scaling_factor": 2.0, "rope_scaling_orig_ctx_len": 4096}
    said, _ = read(write_model(tmp_path / "b.gguf", QuantType.F32, np.random.default_rng(7), **yarn))
    expected = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096}
    assert said["config"]["rope_scaling"] == expected


def test_unsupported_tensor_type_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 84), dtype=np.uint8), raw_dtype=QuantType.Q2_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"'token_embd.weight' has the type Q2_K \(10\), which is not implemented"):
        read(str(tmp_path / "a.gguf"))
