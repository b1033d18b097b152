// WaveFT: Wavelet Fine-Tuning (Bilican et al. 2025, arXiv 2505.12532): ΔW is the inverse wavelet transform of a matrix
// with n trainable entries, at fixed random positions.
#include <peft/adapters/delta_layer.h>
#include <peft/adapters/init.h>
#include <peft/plugin.h>
#include <torch/torch.h>

#include <cmath>
#include <map>

#include "../frequencies.h"

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's WaveFTConfig.
struct WaveOptions : FrequencyOptions {
  WaveOptions() : FrequencyOptions{.n_frequency = 2592, .scaling = 25, .init_weights = true} {}
  std::string wavelet_family = "db1";
  bool use_idwt = true;
  bool proportional_parameters = false;
};

/// Reconstruction low-pass filters (Daubechies 1992); symlets of this length are identical to them.
const std::map<std::string, std::vector<double>> filters = [] {
  std::map<std::string, std::vector<double>> all = {
      {"db1", {0.70710678118654752, 0.70710678118654752}},
      {"db2", {0.48296291314453414, 0.83651630373780791, 0.22414386804201338, -0.12940952255126038}},
      {"db3",
       {0.33267055295008262, 0.80689150931109258, 0.45987750211849157, -0.13501102001025458, -0.085441273882026662,
        0.035226291885709533}},
      {"db4",
       {0.23037781330889650, 0.71484657055291565, 0.63088076792985890, -0.027983769416859854, -0.18703481171909309,
        0.030841381835560764, 0.032883011666885200, -0.010597401785069032}}};
  all["sym2"] = all["db2"];
  all["sym3"] = all["db3"];
  return all;
}();

WaveOptions read(peft::Options& in) {
  WaveOptions o;
  read_frequencies(in, o);
  in.get("wavelet_family", o.wavelet_family, "\"db1\" (Haar), \"db2\", \"db3\", \"db4\", \"sym2\" or \"sym3\"")
      .require(filters.contains(o.wavelet_family), "must be \"db1\", \"db2\", \"db3\", \"db4\", \"sym2\" or \"sym3\"");
  in.get("use_idwt", o.use_idwt, "false: the entries are those of the update, without a transform");
  in.get("proportional_parameters", o.proportional_parameters,
         "distribute the entries in proportion to layer sizes, ignoring n_frequency_pattern");
  in.get("init_weights", o.init_weights, "true: zeros; false: small random values, for tests");
  return o;
}

/// The inverse of one level of a wavelet transform in two dimensions, for a result of `out` × `in`.
class Synthesis {
 public:
  Synthesis(const std::vector<double>& low, int64_t out, int64_t in)
      : length_(std::ssize(low)), out_(out), in_(in), rows_(padded(out)), columns_(padded(in)) {
    const Tensor lo = torch::tensor(low, torch::kDouble);
    const Tensor hi = lo.flip(0) * torch::tensor({1.0, -1.0}, torch::kDouble).repeat({length_ / 2});
    filter_ = at::stack({at::outer(lo, lo), at::outer(hi, lo), at::outer(lo, hi), at::outer(hi, hi)}).unsqueeze(1);
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  /// Offsets [n] into a matrix of the result's shape → offsets [n] into the padded coefficients.
  Tensor padded_positions(const Tensor& positions) const {
    const Tensor row = at::floor_divide(positions, in_) + (rows_ - out_) / 2;
    const Tensor column = positions.remainder(in_) + (columns_ - in_) / 2;
    return row * columns_ + column;
  }
  /// coefficients [rows, columns], in four quarters → [out, in].
  Tensor operator()(const Tensor& coefficients) const {
    const int64_t h = rows_ / 2, w = columns_ / 2;
    const Tensor upper = coefficients.slice(0, 0, h), lower = coefficients.slice(0, h);
    const Tensor bands = at::stack({upper.slice(1, 0, w), upper.slice(1, w), lower.slice(1, 0, w), lower.slice(1, w)});
    const Tensor full = at::conv_transpose2d(bands.unsqueeze(0), filter_.to(coefficients.options()), {}, /*stride=*/2);
    const int64_t edge = (2 * length_ - 3) / 2;
    const Tensor inner = full[0][0].slice(0, edge, full.size(2) - edge).slice(1, edge, full.size(3) - edge);
    return inner.narrow(0, (inner.size(0) - out_) / 2, out_).narrow(1, (inner.size(1) - in_) / 2, in_);
  }

 private:
  int64_t padded(int64_t features) const { return (features + length_ - 2 + 1) / 2 * 2; }
  int64_t length_, out_, in_, rows_, columns_;
  Tensor filter_;  // [4, 1, length, length]
};

class WaveLayer final : public peft::DeltaLayer {
 public:
  WaveLayer(const peft::Linear& site, int64_t n, const WaveOptions& o, const at::TensorOptions& tensor_options)
      : scaling_(o.scaling), out_(site.out_features()), in_(site.in_features()) {
    positions_ = draw_positions(site, n, o.random_loc_seed);
    if (o.use_idwt) {
      synthesis_.emplace(filters.at(o.wavelet_family), out_, in_);
      positions_ = synthesis_->padded_positions(positions_);
    }
    positions_ = positions_.to(tensor_options.device());
    spectrum_ = register_parameter("waveft_spectrum", o.init_weights ? peft::init::zeros({n}, tensor_options)
                                                                     : peft::init::normal({n}, 0.01, tensor_options));
  }

 protected:
  Tensor delta(torch::Dtype dtype) const override {
    const int64_t rows = synthesis_ ? synthesis_->rows() : out_, columns = synthesis_ ? synthesis_->columns() : in_;
    // CPU transforms do not support 16-bit types.
    const Tensor values = spectrum_.to(peft::accumulation_dtype(spectrum_));
    const Tensor dense = torch::zeros({rows * columns}, values.options()).index_put({positions_}, values);
    const Tensor placed = dense.view({rows, columns});
    return ((synthesis_ ? (*synthesis_)(placed) : placed) * scaling_).to(dtype);
  }

 private:
  double scaling_;
  int64_t out_, in_;
  std::optional<Synthesis> synthesis_;
  Tensor positions_, spectrum_;  // [n], offsets into the coefficients; [n]
};

class WaveFt final : public peft::TargetedAdapter {
 public:
  explicit WaveFt(WaveOptions options)
      : TargetedAdapter("WAVEFT", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<WaveLayer>(site, counts_[index], options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    write_frequencies(options_, config);
    config["proportional_parameters"] = options_.proportional_parameters;
    config["use_idwt"] = options_.use_idwt;
    config["wavelet_family"] = options_.wavelet_family;
  }

 private:
  WaveOptions options_;
  std::vector<int64_t> counts_;
};

void WaveFt::prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) {
  counts_ = frequency_counts(options_, sites);
  if (!options_.proportional_parameters) return;
  std::vector<double> sizes;
  double sum = 0;
  for (const peft::Site* site : sites) sum += sizes.emplace_back(static_cast<double>(site->dense().numel()));
  const double budget = static_cast<double>(options_.n_frequency) * static_cast<double>(sites.size());
  for (std::size_t i = 0; i < sites.size(); ++i)
    counts_[i] = std::max<int64_t>(1, static_cast<int64_t>(std::nearbyint(sizes[i] / sum * budget)));
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<WaveFt>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("waveft", make); }

}  // namespace

PEFT_PLUGIN("waveft", "1.0.0", add)
