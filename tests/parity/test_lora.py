"""A LoRA trained by peft-run is a LoRA of HF PEFT: for every set of options the same tensors with the same names, shapes and dtypes,
and the same adapter_config.json; HF PEFT finds all keys that it expects and no other; and training takes the same steps as in
Python: the same losses and weights after several steps of AdamW."""

import peft
import pytest
from tiny_llama import save_llama

from method_support import check_saved_form, check_training

# name, options of LoraConfig (and so of [adapter]), options of the model
CASES = [
    ("default", {}, {}),
    ("rank", {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj"]}, {}),
    ("all_linear", {"target_modules": "all-linear"}, {"num_hidden_layers": 4}),
    ("all_linear_small", {"target_modules": "all-linear"}, {"num_hidden_layers": 1}),
    ("all_linear_excluded", {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}, {}),
    ("all_linear_tied", {"target_modules": "all-linear"}, {"tie_word_embeddings": True}),
    ("regex", {"target_modules": r".*\.1\.(self_attn|mlp)\.(q|up)_proj"}, {}),
    ("regex_excluded", {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.0\.mlp.*"}, {}),
    ("layers", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, {}),
    ("full_name", {"target_modules": ["model.layers.1.mlp.up_proj", "k_proj"], "layers_to_transform": [0]}, {}),
    ("rank_pattern", {"rank_pattern": {"q_proj": 2, r"1\.self_attn\.v_proj": 3}}, {}),
    ("alpha_pattern", {"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 5}, "use_rslora": True}, {}),
    ("gaussian", {"init_lora_weights": "gaussian", "lora_dropout": 0.25}, {}),
    ("random", {"init_lora_weights": False}, {}),
    ("lora_bias", {"lora_bias": True}, {}),
    ("bias_all", {"target_modules": ["q_proj"], "bias": "all"}, {"attention_bias": True}),
    ("bias_lora_only", {"target_modules": ["q_proj"], "bias": "lora_only"}, {"attention_bias": True}),
    ("bias_absent", {"bias": "lora_only"}, {}),
    ("embedding", {"target_modules": ["embed_tokens", "q_proj"]}, {}),
    ("embedding_regex", {"target_modules": r".*embed_tokens"}, {}),
    ("embedding_full_name", {"target_modules": ["model.embed_tokens"]}, {}),
    ("head", {"target_modules": ["lm_head", "q_proj"]}, {}),
    ("head_tied", {"target_modules": ["lm_head", "q_proj"]}, {"tie_word_embeddings": True}),
    ("save_head", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]}, {}),
    ("save_head_tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, {"tie_word_embeddings": True}),
    ("save_norms", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}, {}),
    ("save_mlp", {"target_modules": ["q_proj", "up_proj"], "modules_to_save": ["mlp"]}, {}),
]


@pytest.mark.parametrize("adapter,model", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_saved_file_equals_hf_peft(run, tmp_path, adapter, model):
    save_llama(tmp_path / "model", **model)
    check_saved_form(run, tmp_path, "lora", peft.LoraConfig, adapter)


@pytest.mark.parametrize(
    "adapter",
    [
        {"target_modules": "all-linear", "r": 4, "lora_alpha": 8},
        {"target_modules": ["q_proj", "down_proj"], "use_rslora": True, "lora_bias": True, "bias": "all"},
        {"target_modules": ["embed_tokens", "v_proj"], "modules_to_save": ["lm_head", "norm"]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "init_lora_weights": False},
    ],
    ids=["all_linear", "biases", "embedding", "patterns"],
)
def test_training_equals_hf_peft(run, tmp_path, adapter):
    save_llama(tmp_path / "model", attention_bias="bias" in adapter)
    losses = check_training(run, tmp_path, "lora", adapter)
    assert losses[-1] < losses[0]
