// FourierFT: Parameter-Efficient Fine-Tuning with Discrete Fourier Transform (Gao et al. 2024, arXiv 2405.03003): ΔW is
// the real part of the inverse transform of a spectrum with n trained entries, at places drawn once.
#include <ATen/CPUGeneratorImpl.h>
#include <peft/delta_layer.h>
#include <peft/error.h>
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's FourierFTConfig: its names, its defaults.
struct FourierOptions {
  int64_t n_frequency = 1000;
  double scaling = 150;
  int64_t random_loc_seed = 777;
  bool init_weights = false;
  peft::IntMap n_frequency_pattern;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

FourierOptions read(peft::Options& in) {
  FourierOptions o;
  in.get("n_frequency", o.n_frequency, "trained entries of the spectrum")
      .require(o.n_frequency > 0, "must be positive");
  in.get("scaling", o.scaling, "the update is scaled by this");
  in.get("random_loc_seed", o.random_loc_seed, "seed of the entries' places")
      .require(o.random_loc_seed >= 0, "must not be negative");
  peft::read_targets(in, o.targets);
  in.get("n_frequency_pattern", o.n_frequency_pattern, "other numbers: regex of a module name's end = n_frequency")
      .require(std::all_of(o.n_frequency_pattern.begin(), o.n_frequency_pattern.end(),
                           [](const auto& p) { return p.second > 0; }),
               "must give positive numbers");
  in.get("init_weights", o.init_weights, "true: start with zeros; false: normal, as PEFT does unless told otherwise");
  return o;
}

/// The places as PEFT draws them: the first n of a permutation of all.
Tensor places(int64_t count, int64_t n, int64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  return at::randperm(count, generator, torch::kLong).slice(0, 0, n).clone();
}

class FourierLayer final : public peft::DeltaLayer {
 public:
  FourierLayer(const peft::Linear& site, int64_t n, const FourierOptions& o, const at::TensorOptions& form)
      : scaling_(o.scaling), out_(site.out_features()), in_(site.in_features()) {
    places_ = places(out_ * in_, n, o.random_loc_seed).to(form.device());
    spectrum_ = register_parameter("fourierft_spectrum",
                                   o.init_weights ? peft::init::zeros({n}, form) : peft::init::normal({n}, 1, form));
  }

 protected:
  Tensor delta(torch::Dtype dtype) const override {
    // There is no transform of 16-bit numbers on a CPU.
    const auto wide = spectrum_.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
    const Tensor values = spectrum_.to(wide);
    const Tensor dense = torch::zeros({out_ * in_}, values.options()).index_put({places_}, values);
    return (at::real(at::fft_ifft2(dense.view({out_, in_}))) * scaling_).to(dtype);
  }

 private:
  double scaling_;
  int64_t out_, in_;
  Tensor places_, spectrum_;  // [n], offsets into ΔW; [n]
};

class FourierFt final : public peft::TargetedAdapter {
 public:
  explicit FourierFt(FourierOptions options)
      : TargetedAdapter("FOURIERFT", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights; }

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    counts_ = peft::pattern_values(options_.n_frequency_pattern, sites, options_.n_frequency, "n_frequency_pattern");
  }
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t index,
                                          const at::TensorOptions& form) override {
    if (const int64_t most = site.in_features() * site.out_features(); counts_[index] > most)
      throw peft::ConfigError("[adapter] n_frequency: '" + peft::printable(site.path()) + "' has only " +
                              std::to_string(most) + " entries, not " + std::to_string(counts_[index]));
    return std::make_shared<FourierLayer>(site, counts_[index], options_, form);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["fan_in_fan_out"] = false;
    config["init_weights"] = options_.init_weights;
    config["n_frequency"] = options_.n_frequency;
    config["n_frequency_pattern"] = nlohmann::ordered_json(options_.n_frequency_pattern);
    config["random_loc_seed"] = options_.random_loc_seed;
    config["scaling"] = options_.scaling;
  }

 private:
  FourierOptions options_;
  std::vector<int64_t> counts_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<FourierFt>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("fourierft", make); }

}  // namespace

PEFT_PLUGIN("fourierft", "1.0.0", add)
