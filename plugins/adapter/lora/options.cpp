#include "options.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace lora {

namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; });
  return text;
}

bool all_positive(const peft::NumberMap& map) {
  return std::all_of(map.begin(), map.end(), [](const auto& item) { return item.second > 0; });
}

/// Returns false for an unknown name.
bool parse_init(const std::string& name, Options& o) {
  constexpr std::string_view niter = "pissa_niter_";
  if (name.starts_with(niter)) {
    const char *first = name.data() + niter.size(), *last = name.data() + name.size();
    const auto [end, error] = std::from_chars(first, last, o.niter);
    o.init = Init::pissa;
    return error == std::errc() && end == last && o.niter > 0 && o.niter <= 1000;
  }
  for (const auto& [known, init] :
       {std::pair("orthogonal", Init::orthogonal), std::pair("pissa", Init::pissa), std::pair("olora", Init::olora),
        std::pair("loftq", Init::loftq), std::pair("eva", Init::eva), std::pair("corda", Init::corda),
        std::pair("lora_ga", Init::lora_ga)})
    if (name == known) {
      o.init = init;
      return true;
    }
  o.init = Init::gaussian;
  return lower(name) == "gaussian";
}

void read_init(peft::Options& in, Options& o) {
  in.get("init_lora_weights", o.init_lora_weights,
         "true: A uniform, B zero; \"gaussian\": A normal, B zero; \"orthogonal\"; from the weight: \"pissa\", "
         "\"pissa_niter_N\", \"olora\", \"loftq\"; from data: \"eva\", \"corda\", \"lora_ga\"; false: both random, for "
         "tests");
  if (const bool* drawn = std::get_if<bool>(&o.init_lora_weights)) {
    o.init = *drawn ? Init::uniform : Init::random;
    return;
  }
  if (!parse_init(std::get<std::string>(o.init_lora_weights), o)) {
    in.error("init_lora_weights",
             "must be true, false, \"gaussian\", \"orthogonal\", \"pissa\", \"pissa_niter_N\", \"olora\", \"loftq\", "
             "\"eva\", \"corda\" or \"lora_ga\"");
    o.init = Init::gaussian;  // a finished adapter is read nevertheless
    o.niter = 0;
  }
  if (o.lora_bias) in.error("lora_bias", "needs init_lora_weights to be true or false");
  if (o.has_residual_init() && (o.lora_alpha <= 0 || !all_positive(o.alpha_pattern)))
    in.error("lora_alpha", "and alpha_pattern must be positive with this init_lora_weights");
}

/// Reads the options of single initializations, which are nested as in HF PEFT.
void read_nested(peft::Options& in, Options& o) {
  in.get("calibration_batches", o.calibration_batches, "\"eva\", \"corda\", \"lora_ga\": number of calibration batches")
      .require(o.calibration_batches > 0, "must be positive");
  peft::Options eva = in.table("eva_config");
  eva.get("rho", o.eva.rho, "maximum rank of a module, as a multiple of r")
      .require(o.eva.rho >= 1, "must be 1 or more");
  eva.get("tau", o.eva.tau, "cosine of a direction and its value one batch before, above which it has converged")
      .require(o.eva.tau >= 0 && o.eva.tau <= 1, "must be in [0, 1]");
  eva.get("use_label_mask", o.eva.use_label_mask, "use only tokens with a label");
  eva.get("label_mask_value", o.eva.label_mask_value, "label of the tokens that are not used");
  eva.get("whiten", o.eva.whiten, "divide each direction by the square root of its singular value");
  eva.get("adjust_scaling_factors", o.eva.adjust_scaling_factors, "change alpha in proportion to the rank");
  peft::Options corda = in.table("corda_config");
  corda
      .get("corda_method", o.corda.corda_method,
           "\"ipm\": adapt to the data; \"kpm\": preserve the base's knowledge of the data")
      .require(o.corda.corda_method == "ipm" || o.corda.corda_method == "kpm", "must be \"ipm\" or \"kpm\"");
  bool temporary = true;
  corda.get("prune_temporary_fields", temporary, "HF PEFT's; not used here");
  peft::Options ga = in.table("lora_ga_config");
  const std::string &direction = o.lora_ga.direction, &scale = o.lora_ga.scale;
  ga.get("direction", o.lora_ga.direction, "which of the gradient's directions A and B use")
      .require(direction == "ArBr" || direction == "A2rBr" || direction == "ArB2r" || direction == "random",
               "must be \"ArBr\", \"A2rBr\", \"ArB2r\" or \"random\"");
  ga.get("scale", o.lora_ga.scale, "how they are scaled")
      .require(scale == "stable" || scale == "weight_svd" || scale == "gd_scale" || scale == "unit",
               "must be \"stable\", \"weight_svd\", \"gd_scale\" or \"unit\"");
  ga.get("stable_gamma", o.lora_ga.stable_gamma, "with scale = \"stable\": a larger value means smaller factors")
      .require(o.lora_ga.stable_gamma > 0, "must be positive");
  peft::Options loftq = in.table("loftq_config");
  loftq.get("loftq_bits", o.loftq.loftq_bits, "bits of the quantization whose error A and B compensate")
      .require(o.loftq.loftq_bits == 4 || o.loftq.loftq_bits == 8, "must be 4 or 8");
  loftq.get("loftq_iter", o.loftq.loftq_iter, "iterations of quantization and SVD")
      .in_size_limit(o.loftq.loftq_iter, 1000);
}

}  // namespace

int64_t Options::saved_rank(int64_t rank) const { return has_residual_init() ? 2 * rank : rank; }

double Options::saved_alpha(double alpha) const {
  if (!has_residual_init()) return alpha;
  return (use_rslora ? std::sqrt(2.0) : 2.0) * alpha;
}

double Options::scale(int64_t rank, double alpha) const {
  const auto saved = static_cast<double>(saved_rank(rank));
  return saved_alpha(alpha) / (use_rslora ? std::sqrt(saved) : saved);
}

bool Options::has_residual_init() const {
  return init == Init::pissa || init == Init::olora || init == Init::loftq || init == Init::corda ||
         init == Init::lora_ga;
}

Options read(peft::Options& in) {
  Options o;
  in.get("r", o.r, "rank of the update").in_size_limit(o.r);
  in.get("lora_alpha", o.lora_alpha, "the update is scaled by lora_alpha / r");
  in.get("lora_dropout", o.lora_dropout, "dropout probability of the update's input in training")
      .require(o.lora_dropout >= 0 && o.lora_dropout < 1, "must be at least 0 and below 1");
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "rank by module: regex of a name's suffix = rank")
      .in_size_limit(o.rank_pattern);
  in.get("alpha_pattern", o.alpha_pattern, "lora_alpha by module: regex of a name's suffix = lora_alpha");
  in.get("use_rslora", o.use_rslora, "scale by lora_alpha / sqrt(r) (rank-stabilized LoRA)");
  in.get("bias", o.bias, "biases of the model to train: \"none\", \"all\", or \"lora_only\" (of target modules)")
      .require(o.bias == "none" || o.bias == "all" || o.bias == "lora_only",
               "must be \"none\", \"all\" or \"lora_only\"");
  in.get("lora_bias", o.lora_bias, "give B a trainable bias");
  in.get("use_dora", o.use_dora, "train the norm of each row of the weight separately from its direction (DoRA)")
      .require(!o.use_dora || !o.lora_bias, "and lora_bias exclude each other");
  in.get("use_lorafa", o.use_lorafa, "freeze A and correct B's gradient for it (LoRA-FA)")
      .require(!o.use_lorafa || (!o.use_dora && !o.lora_bias), "excludes use_dora and lora_bias");
  in.get("loraplus_lr_ratio", o.loraplus_lr_ratio, "LoRA+: learning rate of B as a multiple of that of A")
      .require(!o.loraplus_lr_ratio || *o.loraplus_lr_ratio > 0, "must be positive");
  in.get("loraplus_lr_embedding", o.loraplus_lr_embedding, "LoRA+: learning rate of adapted embeddings")
      .require(o.loraplus_lr_embedding > 0, "must be positive");
  in.get("trainable_token_indices", o.trainable_token_indices,
         "tokens whose embedding rows train too: ids, or ids by suffix of a module's name");
  in.get("ensure_weight_tying", o.ensure_weight_tying,
         "if the model ties its head to the embedding, adapt or train both as one weight where either is named");
  in.get("layer_replication", o.layer_replication,
         "ranges [first, last) of layers, concatenated into a deeper model; copies of a layer share frozen weights and "
         "have separate adapters")
      .require(o.layer_replication.empty() || o.bias == "none",
               "needs bias = \"none\": copies of a layer would share their trained biases");
  read_init(in, o);
  read_nested(in, o);
  return o;
}

namespace {

/// Writes the nested config of the initialization with all its fields, as HF PEFT does.
void write_nested(const Options& o, nlohmann::ordered_json& config) {
  for (const char* off : {"corda_config", "eva_config", "lora_ga_config"}) config[off] = nullptr;
  config["loftq_config"] = nlohmann::ordered_json::object();
  if (o.init == Init::eva)
    config["eva_config"] = {{"rho", o.eva.rho},
                            {"tau", o.eva.tau},
                            {"use_label_mask", o.eva.use_label_mask},
                            {"label_mask_value", o.eva.label_mask_value},
                            {"whiten", o.eva.whiten},
                            {"adjust_scaling_factors", o.eva.adjust_scaling_factors}};
  if (o.init == Init::corda)
    config["corda_config"] = {
        {"cache_file", nullptr}, {"covariance_file", nullptr},          {"corda_method", o.corda.corda_method},
        {"verbose", false},      {"use_float16_for_covariance", false}, {"prune_temporary_fields", true}};
  if (o.init == Init::lora_ga)
    config["lora_ga_config"] = {
        {"direction", o.lora_ga.direction}, {"scale", o.lora_ga.scale}, {"stable_gamma", o.lora_ga.stable_gamma}};
}

}  // namespace

void write_config(const Options& o, nlohmann::ordered_json& config) {
  using json = nlohmann::ordered_json;
  for (const char* off : {"alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication",
                          "megatron_config", "monteclora_config", "target_parameters", "use_bdlora", "velora_config"})
    config[off] = nullptr;
  if (!o.layer_replication.empty()) config["layer_replication"] = o.layer_replication;
  for (const char* off : {"fan_in_fan_out", "use_qalora"}) config[off] = false;
  config["ensure_weight_tying"] = o.ensure_weight_tying;
  write_nested(o, config);
  config["megatron_core"] = "megatron.core";
  config["qalora_group_size"] = 16;
  config["alpha_pattern"] = json::object();
  for (const auto& [key, alpha] : o.alpha_pattern)
    config["alpha_pattern"][key] = peft::config_number(o.saved_alpha(alpha));
  config["rank_pattern"] = json::object();
  for (const auto& [key, rank] : o.rank_pattern) config["rank_pattern"][key] = o.saved_rank(rank);
  config["bias"] = o.bias;
  config["init_lora_weights"] = o.has_residual_init() ? json(true) : peft::config_value(o.init_lora_weights);
  config["lora_alpha"] = peft::config_number(o.saved_alpha(o.lora_alpha));
  config["lora_bias"] = o.lora_bias;
  config["lora_dropout"] = o.lora_dropout;
  config["r"] = o.saved_rank(o.r);
  config["trainable_token_indices"] = nullptr;
  if (o.trainable_token_indices)
    std::visit([&](const auto& tokens) { config["trainable_token_indices"] = tokens; }, *o.trainable_token_indices);
  config["use_dora"] = o.use_dora;
  config["use_rslora"] = o.use_rslora;
}

}  // namespace lora
