// The keys of config.json that are ignored. To support another family, read its own keys in config.cpp; a key that
// its computation ignores belongs here.
#include "architecture/config_keys.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

namespace peft {

namespace {

using nlohmann::json;

/// Ignored with any value: neither the forward pass of transformers' decoders nor their loss depends on them.
const std::set<std::string> kIgnored = {
    // Where the files come from, and with what they were made.
    "_name_or_path", "name_or_path", "_commit_hash", "architectures", "auto_map", "transformers_version",
    "transformers.js_config", "unsloth_version", "unsloth_fixed", "_from_model_config", "is_llama_config", "license",
    "model_name", "finetuning_task", "task_specific_params", "problem_type", "id2label", "label2id", "num_labels",
    "classifier_dropout", "classifier_dropout_prob",
    // dtypes: weights say themselves what they are stored in.
    "dtype", "torch_dtype", "use_bfloat16",
    // How the same result is computed.
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "_attn_implementation_autoset",
    "_experts_implementation", "_experts_implementation_internal", "_flash_attn_2_enabled", "use_flash_attention",
    "use_flash_attn", "use_flash_attention_2", "use_sdpa", "flash_attention", "use_cache", "torchscript",
    "gradient_checkpointing", "use_gradient_checkpointing", "chunk_size_feed_forward", "pretraining_tp",
    "base_model_tp_plan", "base_model_pp_plan", "tf_legacy_loss", "rope_interleaved",
    // What is returned.
    "return_dict", "output_attentions", "_output_attentions", "output_hidden_states", "keys_to_ignore_at_inference",
    "is_decoder", "is_encoder_decoder",
    // Initial values and noise of the pretraining.
    "initializer_range", "initializer_factor", "init_std", "init_method_std", "neftune_noise_alpha",
    "attention_dropout",  // noted by config.cpp
    // The tokenizer, which has its own files, and lengths, which max_position_embeddings has.
    "bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "bos_token_id", "eos_token_id", "pad_token_id",
    "unk_token_id", "sep_token_id", "mask_token_id", "cls_token_id", "decoder_start_token_id", "tokenizer_class",
    "tokenizer_name", "prefix", "padding_side", "max_sequence_length", "max_seq_len", "max_seq_length", "seq_length",
    "model_max_length", "max_window_layers",  // without a window
    // Generation: transformers moves these to generation_config.json.
    "max_length", "max_new_tokens", "min_length", "min_new_tokens", "do_sample", "early_stopping", "max_time",
    "assistant_confidence_threshold", "assistant_lookbehind", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "target_lookbehind", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "min_p",
    "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff", "penalty_alpha", "repetition_penalty",
    "encoder_repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids", "force_words_ids", "renormalize_logits", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens",
    "num_return_sequences", "output_scores", "output_logits", "return_dict_in_generate", "stop_strings",
    "cache_implementation", "cache_config", "guidance_scale", "user_agent"};

/// Ignored with this value, with which the feature of another family or of custom code does nothing.
const std::map<std::string, json> kNeutral = {{"resid_pdrop", 0},
                                              {"embd_pdrop", 0},
                                              {"attn_pdrop", 0},
                                              {"hidden_dropout", 0},
                                              {"hidden_dropout_prob", 0},
                                              {"embedding_dropout", 0},
                                              {"residual_dropout", 0},
                                              {"attention_probs_dropout_prob", 0},
                                              {"mlp_dropout", 0},
                                              {"ffn_dropout", 0},
                                              {"dropout", 0},
                                              {"num_experts", 0},
                                              {"num_local_experts", 0},
                                              {"n_routed_experts", 0},
                                              {"embedding_multiplier", 1},
                                              {"residual_multiplier", 1},
                                              {"logits_scaling", 1},
                                              {"logit_scale", 1},
                                              {"rotary_pct", 1},
                                              {"rope_ratio", 1},
                                              {"embed_scale", 1},
                                              {"position_embedding_type", "rope"},
                                              {"hidden_activation", "silu"}};

bool is_off(const json& value) {
  return value.is_null() || value == json(false) || (value.is_structured() && value.empty());
}

}  // namespace

bool is_harmless(const std::string& key, const json& value) {
  if (is_off(value) || kIgnored.contains(key)) return true;
  const auto neutral = kNeutral.find(key);
  return neutral != kNeutral.end() && value == neutral->second;
}

}  // namespace peft
