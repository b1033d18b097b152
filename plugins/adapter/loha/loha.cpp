// LoHa: low-rank Hadamard product (Hyeon-Woo et al. 2021, FedPara, arXiv 2108.06098; Yeh et al. 2023, LyCORIS, arXiv
// 2309.14859): ΔW = alpha/r · (w1_a·w1_b) ⊙ (w2_a·w2_b).
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/plugin.h>

#include "../rank_and_alpha.h"

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's LoHaConfig.
RankAndAlpha read(peft::Options& in) {
  RankAndAlpha o;
  read_rank_and_alpha(in, o);
  in.get("init_weights", o.init_weights, "true: w2_b zero, the others uniform; false: all random, for tests");
  return o;
}

class LohaLayer final : public peft::FactoredLayer {
 public:
  LohaLayer(const peft::Linear& site, int64_t r, double scale, bool zero_init, const at::TensorOptions& tensor_options)
      : scale_(scale) {
    const int64_t in = site.in_features(), out = site.out_features();
    const auto drawn = [&](at::IntArrayRef shape) { return peft::init::kaiming_uniform(shape, tensor_options); };
    w1_a_ = register_parameter("hada_w1_a", drawn({out, r}));
    w1_b_ = register_parameter("hada_w1_b", drawn({r, in}));
    w2_a_ = register_parameter("hada_w2_a", drawn({out, r}));
    w2_b_ = register_parameter("hada_w2_b", zero_init ? peft::init::zeros({r, in}, tensor_options) : drawn({r, in}));
  }

 protected:
  /// The Hadamard product is exactly a product of rank r², of the pairwise products of rows and columns.
  peft::LowRank factors() const override {
    const Tensor A = (w1_b_.unsqueeze(1) * w2_b_.unsqueeze(0)).flatten(0, 1);
    const Tensor B = (w1_a_.unsqueeze(2) * w2_a_.unsqueeze(1)).flatten(1, 2);
    return {A, B, scale_};
  }

 private:
  double scale_;
  Tensor w1_a_, w1_b_, w2_a_, w2_b_;  // [out, r], [r, in], twice
};

class Loha final : public RankedAdapter {
 public:
  explicit Loha(const RankAndAlpha& options) : RankedAdapter("LOHA", options) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<LohaLayer>(site, rank(index), scale(index), is_identity_at_init(), tensor_options);
  }
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Loha>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("loha", make); }

}  // namespace

PEFT_PLUGIN("loha", "1.0.0", add)
