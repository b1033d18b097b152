"""Writes corpus/NAME/*: small valid files of each format, most of them with the library that defines it. make_corpus.py"""

import hashlib
import json
import pathlib

import gguf
import numpy as np
import safetensors.numpy
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

CORPUS = pathlib.Path(__file__).parent / "corpus"


def put(kind, name, content):
    path = CORPUS / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def safetensors_files():
    many = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([[1.5, -2]], dtype=np.float16),
        "c": np.array([1, -1], dtype=np.int64),
        "d": np.array([True, False, True]),
    }
    put("safetensors", "many", safetensors.numpy.save(many, metadata={"format": "pt", "base_fingerprint": "00ff"}))
    put("safetensors", "odd", safetensors.numpy.save({"none": np.zeros((0, 4), np.float32), "one": np.array(3.0)}))


def index_files():
    shards = {f"model.layers.{i}.weight": f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)}
    put("index", "two", json.dumps({"metadata": {"total_size": 96}, "weight_map": shards | {"norm": "one.safetensors"}}))


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "eos_token_id": [1, 2],
    "dtype": "bfloat16",
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 5e5, "beta_fast": 32, "attention_factor": 0.5, "truncate": False}


def config_files():
    put("config", "llama3", json.dumps(LLAMA | {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 8192}}))
    put("config", "yarn", json.dumps(LLAMA | {"rope_parameters": YARN, "head_dim": 16}))
    mistral = {"model_type": "mistral", "sliding_window": None, "rope_theta": 1e4, "torch_dtype": "float16"}
    put("config", "mistral", json.dumps(LLAMA | mistral))


def byte_level():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet[:120], "Ġ", "ab", "abc", "Ġa"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b"), ("ab", "c"), ("Ġ", "a")]))
    tokenizer.normalizer = normalizers.NFC()
    pattern = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = pre_tokenizers.Split(pattern=Regex(pattern), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", AddedToken("</s>", lstrip=True, rstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("<s>", "</s>")]
    )
    return tokenizer


def sentencepiece():
    tokens = ["<unk>", "<s>", "▁", "a", "b", "ab", "▁a", "H", "e", "l", "o"] + [f"<0x{i:02X}>" for i in range(0, 256, 5)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [("a", "b"), ("▁", "a")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>"])
    tokenizer.add_tokens([AddedToken("now", single_word=True, normalized=True)])
    return tokenizer


def simple():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "▁": 2}, merges=[]))
    steps = [normalizers.NFKD(), normalizers.Lowercase(), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Digits(True), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def tokenizer_files():
    for name, tokenizer in (("byte_level", byte_level()), ("sentencepiece", sentencepiece()), ("simple", simple())):
        put("tokenizer", name, tokenizer.to_str())


def gguf_file(path, sentencepiece, kind, rope=False):
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (("block_count", 1), ("context_length", 64), ("embedding_length", 32), ("feed_forward_length", 32)):
        getattr(writer, f"add_{key}")(value)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    tokens = ["<unk>", "a", "b", "ab", "▁" if sentencepiece else "Ġ", "<e>"]
    writer.add_tokenizer_model("llama" if sentencepiece else "gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([2, 1, 1, 1, 1, 3])
    if sentencepiece:
        writer.add_token_scores([0.0, -3.0, -4.0, -1.0, -2.0, 0.0])
        writer.add_bos_token_id(5)
    else:
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(5)
    writer.add_eos_token_id(5)
    writer.add_chat_template("{{ messages[0].content }}<e>")
    source = np.random.default_rng(1)
    for name, rows, columns in (("token_embd", 6, 32), ("blk.0.attn_q", 32, 32), ("blk.0.attn_k", 16, 32)):
        values = source.normal(size=(rows, columns)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    if rope:
        writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_files():
    (CORPUS / "gguf").mkdir(parents=True, exist_ok=True)
    types = gguf.GGMLQuantizationType
    gguf_file(CORPUS / "gguf" / "byte_level", False, types.Q8_0)
    gguf_file(CORPUS / "gguf" / "sentencepiece", True, types.Q4_0, rope=True)


ADAPTER = {
    "task_type": "CAUSAL_LM",
    "peft_type": "LORA",
    "auto_mapping": None,
    "base_model_name_or_path": "some/model",
    "inference_mode": True,
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
    "exclude_modules": None,
    "bias": "none",
    "use_rslora": True,
    "layers_to_transform": [0, 2],
    "rank_pattern": {"model.layers.0": 8},
    "alpha_pattern": {"q_proj": 16.5},
    "init_lora_weights": "eva",
    "eva_config": {"rho": 2.0},
    "megatron_core": "megatron.core",
    "use_dora": False,
}


def adapter_files():
    put("adapter_config", "lora", json.dumps(ADAPTER))
    put("adapter_config", "all_linear", json.dumps(ADAPTER | {"target_modules": "all-linear", "init_lora_weights": True}))


def manifest_files():
    """A manifest of the two files that manifest_fuzz.cpp creates."""
    contents = {"a.bin": b"0123456789", "part/b.bin": b""}
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in contents.items()}
    put("manifest", "valid", json.dumps({"version": 1, "files": sums}))


MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "é"}, {"role": "assistant", "content": "\n", "weight": 1}]
PARTS = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
RECORDS = {
    "text": [{"text": "one"}, {"text": "two\u0000"}],
    "alpaca": [{"instruction": "i", "input": "", "output": "o", "history": [["q", "a"]], "system": "s"}],
    "messages": [{"messages": MESSAGES}, {"messages": PARTS, "tools": None}],
    "sharegpt": [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}],
    "prompt": [{"prompt": "p", "completion": "c"}, {"prompt": MESSAGES[:2], "completion": MESSAGES[2:]}],
}


def jsonl_files():
    for name, records in RECORDS.items():
        put("jsonl", name, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records * 2))
    put("jsonl", "array", json.dumps(RECORDS["alpaca"] * 3, indent=1))


EXPERIMENT = """# a remark
[t]
flag = true
count = 1_000
rate = 1e-4
text = "a\\tb \\u00e9"
names = ["x", 'y']
layers = 3
targets = "all"
ranks = {a = 1, "b c" = 2}
masks.m = [true, false]
path = "../somewhere"
#set t.names=["INPUT"]
[t.inner]
count = 2
[[u]]
text = '''
INPUT'''
[[u]]
ratio = 0.5
alphas = {a = 1.5}
"""


def toml_files():
    put("toml", "experiment", EXPERIMENT)
    put("toml", "small", "[t]\ncount = 2\n")


if __name__ == "__main__":
    for make in (
        safetensors_files,
        index_files,
        config_files,
        tokenizer_files,
        gguf_files,
        adapter_files,
        manifest_files,
        jsonl_files,
        toml_files,
    ):
        make()
