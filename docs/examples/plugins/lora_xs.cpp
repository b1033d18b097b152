// A FactoredLayer: LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604), ΔW = B·R·A. A and B come from the frozen weight and
// stay as they are; only the small R is trained.
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

struct XsOptions {
  int64_t r = 8;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

class XsLayer final : public peft::FactoredLayer {
 public:
  /// `values`: false if A and B will be loaded.
  XsLayer(const peft::Linear& site, int64_t r, bool values, const at::TensorOptions& tensor_options) {
    torch::Tensor A = peft::init::zeros({r, site.in_features()}, tensor_options);
    torch::Tensor B = peft::init::zeros({site.out_features(), r}, tensor_options);
    if (values) {
      const torch::NoGradGuard no_grad;
      // The weight may be bf16, for which there is no decomposition.
      const auto [U, S, Vh] = at::linalg_svd(site.dense(torch::kFloat32), /*full_matrices=*/false);
      A.copy_(Vh.narrow(0, 0, r));
      B.copy_(U.narrow(1, 0, r) * S.narrow(0, 0, r));
    }
    A_ = register_buffer("A", A);  // buffers are saved with the adapter, but not trained
    B_ = register_buffer("B", B);
    R_ = register_parameter("R", peft::init::zeros({r, r}, tensor_options));
  }

 protected:
  peft::LowRank factors() const override { return {.A = A_, .B = at::mm(B_, R_), .scale = 1}; }

 private:
  torch::Tensor A_, B_, R_;  // [r, in], [out, r], [r, r]
};

class LoraXs final : public peft::TargetedAdapter {
 public:
  explicit LoraXs(XsOptions options) : TargetedAdapter("LORA_XS", options.targets), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    const int64_t full = std::min(site.in_features(), site.out_features());
    if (options_.r > full)
      throw peft::ConfigError("[adapter] r: '" + site.path() + "' has a rank of at most " + std::to_string(full) +
                              "; lower r to that");
    return std::make_shared<XsLayer>(site, options_.r, !will_be_loaded(), tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override { config["r"] = options_.r; }

 private:
  XsOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  XsOptions o;
  in.get("r", o.r, "rows and columns of the trained matrix").in_size_limit(o.r);
  peft::read_targets(in, o.targets);
  return std::make_unique<LoraXs>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("lora_xs", make); }

}  // namespace

PEFT_PLUGIN("lora_xs", "0.1.0", add)
