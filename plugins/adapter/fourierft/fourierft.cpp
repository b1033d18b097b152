// FourierFT: Parameter-Efficient Fine-Tuning with Discrete Fourier Transform (Gao et al. 2024, arXiv 2405.03003): ΔW is
// the real part of the inverse transform of a spectrum with n trainable entries, at fixed random positions.
#include <peft/adapters/delta_layer.h>
#include <peft/adapters/init.h>
#include <peft/plugin.h>

#include "../frequencies.h"

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's FourierFTConfig.
FrequencyOptions read(peft::Options& in) {
  FrequencyOptions o{.n_frequency = 1000, .scaling = 150, .init_weights = false};
  read_frequencies(in, o);
  in.get("init_weights", o.init_weights, "true: zeros; false: normal, HF PEFT's default");
  return o;
}

class FourierLayer final : public peft::DeltaLayer {
 public:
  FourierLayer(const peft::Linear& site, int64_t n, const FrequencyOptions& o, const at::TensorOptions& tensor_options)
      : scaling_(o.scaling), out_(site.out_features()), in_(site.in_features()) {
    positions_ = draw_positions(site, n, o.random_loc_seed).to(tensor_options.device());
    spectrum_ = register_parameter("fourierft_spectrum", o.init_weights ? peft::init::zeros({n}, tensor_options)
                                                                        : peft::init::normal({n}, 1, tensor_options));
  }

 protected:
  Tensor delta(torch::Dtype dtype) const override {
    // CPU transforms do not support 16-bit types.
    const Tensor values = spectrum_.to(peft::accumulation_dtype(spectrum_));
    const Tensor dense = torch::zeros({out_ * in_}, values.options()).index_put({positions_}, values);
    return (at::real(at::fft_ifft2(dense.view({out_, in_}))) * scaling_).to(dtype);
  }

 private:
  double scaling_;
  int64_t out_, in_;
  Tensor positions_, spectrum_;  // [n], offsets into ΔW; [n]
};

class FourierFt final : public peft::TargetedAdapter {
 public:
  explicit FourierFt(FrequencyOptions options)
      : TargetedAdapter("FOURIERFT", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    counts_ = frequency_counts(options_, sites);
  }
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<FourierLayer>(site, counts_[index], options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override { write_frequencies(options_, config); }

 private:
  FrequencyOptions options_;
  std::vector<int64_t> counts_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<FourierFt>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("fourierft", make); }

}  // namespace

PEFT_PLUGIN("fourierft", "1.0.0", add)
