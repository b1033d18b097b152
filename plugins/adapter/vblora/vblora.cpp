// VB-LoRA: Extreme Parameter Efficient Fine-Tuning with Vector Banks (Li et al. 2024, arXiv 2405.15179): each
// sub-vector of A's rows and B's columns is a mixture of a few vectors from one bank that all layers share.
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <torch/torch.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's VBLoRAConfig.
struct VbLoraOptions {
  int64_t r = 4;
  int64_t num_vectors = 256;
  int64_t vector_length = 256;
  int64_t topk = 2;
  bool save_only_topk_weights = false;
  double vblora_dropout = 0;
  double init_vector_bank_bound = 0.02;
  double init_logits_std = 0.1;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

VbLoraOptions read(peft::Options& in) {
  VbLoraOptions o;
  in.get("r", o.r, "rank of the update").in_size_limit(o.r);
  in.get("num_vectors", o.num_vectors, "vectors in the bank").in_size_limit(o.num_vectors);
  in.get("vector_length", o.vector_length, "their length; must divide the inputs and outputs of each target module")
      .in_size_limit(o.vector_length);
  in.get("topk", o.topk, "vectors that are mixed into each sub-vector")
      .require(o.topk > 0 && o.topk <= o.num_vectors, "must be positive and at most num_vectors");
  in.get("save_only_topk_weights", o.save_only_topk_weights,
         "save only the top-k vectors' indices and weights; such a file cannot be trained further");
  in.get("vblora_dropout", o.vblora_dropout, "dropout probability of the update's input in training")
      .require(o.vblora_dropout >= 0 && o.vblora_dropout < 1, "must be at least 0 and below 1");
  in.get("init_vector_bank_bound", o.init_vector_bank_bound, "initial bank: uniform between minus and plus this")
      .require(o.init_vector_bank_bound > 0, "must be positive");
  in.get("init_logits_std", o.init_logits_std, "standard deviation of the initial logits")
      .require(o.init_logits_std > 0, "must be positive");
  peft::read_targets(in, o.targets);
  return o;
}

class VbLoraLayer final : public peft::FactoredLayer {
 public:
  VbLoraLayer(const peft::Linear& site, const Tensor& bank, const VbLoraOptions& o,
              const at::TensorOptions& tensor_options)
      : FactoredLayer(o.vblora_dropout), topk_(o.topk), bank_(bank) {
    const int64_t in = site.in_features() / o.vector_length, out = site.out_features() / o.vector_length;
    A_ = register_parameter("vblora_logits_A",
                            peft::init::normal({o.r, in, o.num_vectors}, o.init_logits_std, tensor_options));
    B_ = register_parameter("vblora_logits_B",
                            peft::init::normal({out, o.r, o.num_vectors}, o.init_logits_std, tensor_options));
  }
  /// Makes the bank this layer's parameter; one layer has it, so that it trains once.
  void register_bank() { bank_ = register_parameter("vblora_vector_bank", bank_); }
  bool is_trainable() const { return at::isfinite(A_).all().item<bool>() && at::isfinite(B_).all().item<bool>(); }

 protected:
  peft::LowRank factors() const override {
    return {mixed(A_).flatten(1), mixed(B_).transpose(1, 2).reshape({-1, B_.size(1)}), 1};
  }

 private:
  /// Mixes the top-k vectors of each sub-vector by their softmax: logits [m, n, vectors] → [m, n, length].
  Tensor mixed(const Tensor& logits) const {
    const auto [top_logits, indices] = logits.topk(topk_, -1);
    return (top_logits.softmax(-1).unsqueeze(-1) * at::embedding(bank_, indices)).sum(-2);
  }
  int64_t topk_;
  Tensor bank_, A_, B_;  // [vectors, length]; [r, in / length, vectors], [out / length, r, vectors]
};

class VbLora final : public peft::TargetedAdapter {
 public:
  explicit VbLora(VbLoraOptions options)
      : TargetedAdapter("VBLORA", options.targets, false), options_(std::move(options)) {}

 protected:
  std::vector<peft::ParamGroup> do_groups(const peft::Model& model) const override;
  peft::StateDict do_to_hf(const peft::Model& model) const override;
  void do_from_hf(const peft::Model& model, const peft::StateDict& file) const override;
  void prepare(const peft::Model&, const std::vector<peft::Site*>&, const at::TensorOptions& tensor_options) override {
    bank_ = peft::init::uniform({options_.num_vectors, options_.vector_length}, options_.init_vector_bank_bound,
                                tensor_options);
  }
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override;
  void write_config(nlohmann::ordered_json& config) const override;

 private:
  peft::StateDict trained_tensors(const peft::Model& model) const;
  VbLoraOptions options_;
  std::string bank_path_;  // path of the site whose layer has the bank
  std::vector<std::shared_ptr<VbLoraLayer>> layers_;
  Tensor bank_;  // [vectors, length]
};

std::shared_ptr<peft::AdapterLayer> VbLora::make_layer(const peft::Linear& site, std::size_t,
                                                       const at::TensorOptions& tensor_options) {
  for (const auto& [what, features] :
       {std::pair("inputs", site.in_features()), std::pair("outputs", site.out_features())})
    if (features % options_.vector_length != 0)
      throw peft::ConfigError("[adapter] vector_length: " + std::to_string(options_.vector_length) +
                              " does not divide the " + std::to_string(features) + " " + what + " of '" +
                              peft::printable(site.path()) + "'");
  const auto layer = layers_.emplace_back(std::make_shared<VbLoraLayer>(site, bank_, options_, tensor_options));
  if (layers_.size() == 1) {
    layer->register_bank();
    bank_path_ = site.path();
  }
  return layer;
}

std::vector<peft::ParamGroup> VbLora::do_groups(const peft::Model& model) const {
  for (const auto& layer : layers_)
    if (!layer->is_trainable())
      throw peft::ConfigError(
          "[adapter] init_from: the adapter was saved with save_only_topk_weights, so it cannot be trained further");
  return TargetedAdapter::do_groups(model);
}

const std::string kBank = "base_model.vblora_vector_bank";
const std::string kIndices = "_topk_indices", kWeights = "_topk_weights";

bool are_logits(const std::string& key) {
  return key.ends_with(".vblora_logits_A") || key.ends_with(".vblora_logits_B");
}

/// All trained tensors, with HF PEFT's key of the bank.
peft::StateDict VbLora::trained_tensors(const peft::Model& model) const {
  peft::StateDict state = TargetedAdapter::do_to_hf(model);
  auto bank = state.extract(peft::hf_key(bank_path_, "vblora_vector_bank"));
  bank.key() = kBank;
  state.insert(std::move(bank));
  return state;
}

/// With save_only_topk_weights: the vectors' indices in the smallest dtype, and all weights but the last, which is 1
/// minus the others.
peft::StateDict VbLora::do_to_hf(const peft::Model& model) const {
  const peft::StateDict trained = trained_tensors(model);
  if (!options_.save_only_topk_weights) return trained;
  const int64_t n = options_.num_vectors;
  const auto index_dtype = n < (1 << 8) ? torch::kByte : n < (1 << 15) ? torch::kShort : torch::kInt;
  const torch::NoGradGuard no_grad;
  peft::StateDict state;
  for (const auto& [key, tensor] : trained) {
    if (!are_logits(key)) {
      state.emplace(key, tensor);
      continue;
    }
    const auto [top_logits, indices] = tensor.topk(options_.topk, -1);
    state.emplace(key + kIndices, indices.to(index_dtype));
    state.emplace(key + kWeights, top_logits.softmax(-1).slice(-1, 0, options_.topk - 1).contiguous());
  }
  return state;
}

/// Sets logits whose softmax are the saved weights; those of all other vectors are -infinity.
void VbLora::do_from_hf(const peft::Model& model, const peft::StateDict& file) const {
  const torch::NoGradGuard no_grad;
  for (auto& [key, tensor] : trained_tensors(model)) {
    if (!options_.save_only_topk_weights || !are_logits(key)) {
      tensor.copy_(file.at(key));
      continue;
    }
    const Tensor indices = file.at(key + kIndices).to(torch::kLong), weights = file.at(key + kWeights);
    if ((indices < 0).logical_or(indices >= options_.num_vectors).any().item<bool>())
      throw peft::InputError(peft::printable(key + kIndices, 4096) + ": must be indices of the " +
                             std::to_string(options_.num_vectors) + " vectors");
    if ((weights < 0).any().item<bool>())
      throw peft::InputError(peft::printable(key + kWeights, 4096) + ": must not be negative");
    const Tensor last = (1 - weights.sum(-1, /*keepdim=*/true)).clamp_min(0);
    const Tensor logits = at::cat({weights, last}, -1).log().to(tensor.options());
    tensor.fill_(-std::numeric_limits<double>::infinity()).scatter_(-1, indices.to(tensor.device()), logits);
  }
}

void VbLora::write_config(nlohmann::ordered_json& config) const {
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["init_logits_std"] = options_.init_logits_std;
  config["init_vector_bank_bound"] = options_.init_vector_bank_bound;
  config["num_vectors"] = options_.num_vectors;
  config["r"] = options_.r;
  config["save_only_topk_weights"] = options_.save_only_topk_weights;
  config["topk"] = options_.topk;
  config["vblora_dropout"] = options_.vblora_dropout;
  config["vector_length"] = options_.vector_length;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<VbLora>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("vblora", make); }

}  // namespace

PEFT_PLUGIN("vblora", "1.0.0", add)
