#include "eva.h"

#include <peft/base/error.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "incremental_pca.h"

namespace lora {

using torch::Tensor;

namespace {

/// Passes over the data within which all directions must converge.
constexpr std::size_t kMaxPasses = 100;

class Eva {
 public:
  Eva(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& ranks, const EvaOptions& options,
      std::size_t batches, const peft::Calibration& data)
      : sites_(sites), ranks_(ranks), options_(options), batches_(batches), data_(data) {}
  std::vector<Tensor> run();

 private:
  struct SitePca {
    IncrementalPca pca;
    Tensor converged;  // [components] bool, by direction
    bool done = false;
  };
  std::vector<std::size_t> find_equal_inputs() const;
  void make_pcas();
  void on_input(std::size_t site, const Tensor& x);
  bool all_converged();
  void distribute_ranks();
  Tensor selected_rows(const Tensor& x) const;

  const std::vector<peft::Site*>& sites_;
  const std::vector<int64_t>& ranks_;
  const EvaOptions& options_;
  const std::size_t batches_;
  const peft::Calibration& data_;
  std::vector<std::size_t> first_;       // for each site, the first one with the same input
  std::map<std::size_t, SitePca> pcas_;  // by that first site
  std::vector<int64_t> current_ranks_;   // by the variance explained so far
  Tensor selected_;                      // indices of the current batch's rows to use
};

Tensor Eva::selected_rows(const Tensor& x) const {
  return x.reshape({-1, x.size(-1)}).index_select(0, selected_).to(torch::kFloat);
}

/// Query, key and value projections share their input, as do gate and up projections.
std::vector<std::size_t> Eva::find_equal_inputs() const {
  std::vector<std::size_t> first(sites_.size());
  std::iota(first.begin(), first.end(), 0);
  std::size_t previous = sites_.size();
  Tensor previous_input;
  const peft::InputProbe probe(sites_, [&](std::size_t i, const Tensor& x) {
    const bool equal = previous_input.defined() && previous_input.sizes() == x.sizes() && at::equal(previous_input, x);
    if (equal) first[i] = first[previous];
    previous_input = x;
    previous = i;
  });
  data_.loss(data_.batch(0));
  return first;
}

void Eva::make_pcas() {
  std::map<std::size_t, int64_t> components;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const auto count = std::llrint(static_cast<double>(ranks_[i]) * options_.rho);
    components[first_[i]] = std::max<int64_t>(components[first_[i]], count);
  }
  for (const auto& [site, count] : components) {
    const int64_t inputs = dynamic_cast<const peft::Linear&>(*sites_[site]).in_features();
    if (count > inputs)
      throw peft::ConfigError("[adapter] eva_config.rho: '" + peft::printable(sites_[site]->path()) + "' has " +
                              std::to_string(inputs) + " inputs, but rho · r needs " + std::to_string(count) +
                              " directions");
    pcas_.emplace(site, SitePca{IncrementalPca(count), torch::zeros({count}, torch::kBool)});
  }
  for (const std::size_t first : first_) current_ranks_.push_back(components[first]);
}

void Eva::on_input(std::size_t site, const Tensor& x) {
  const auto found = pcas_.find(site);
  if (found == pcas_.end() || found->second.done) return;
  auto& [pca, converged, done] = found->second;
  const Tensor rows = selected_rows(x);
  if (rows.size(0) < pca.components()) return;
  const Tensor previous = pca.directions();
  pca.fit(rows);
  if (previous.defined()) converged = at::cosine_similarity(pca.directions(), previous, /*dim=*/1) >= options_.tau;
}

/// Whether all directions of the current ranks have converged. A site that is done continues if its rank grows.
bool Eva::all_converged() {
  bool all = true;
  for (auto& [site, pca] : pcas_) {
    pca.done = pca.converged.narrow(0, 0, current_ranks_[site]).all().item<bool>();
    all = all && pca.done;
  }
  return all;
}

/// Selects the `Σ ranks` directions that explain most of their site's variance.
void Eva::distribute_ranks() {
  std::vector<std::size_t> order;  // sites with a PCA, then those that share another's input
  for (const auto& [site, pca] : pcas_) order.push_back(site);
  for (std::size_t i = 0; i < sites_.size(); ++i)
    if (first_[i] != i) order.push_back(i);
  std::vector<Tensor> ratios;
  std::vector<std::size_t> owners;
  for (const std::size_t site : order) {
    ratios.push_back(pcas_.at(first_[site]).pca.explained_variance_ratios());
    owners.insert(owners.end(), static_cast<std::size_t>(ratios.back().size(0)), site);
  }
  const Tensor ranking = at::argsort(at::cat(ratios), /*dim=*/0, /*descending=*/true);
  const int64_t budget = std::accumulate(ranks_.begin(), ranks_.end(), int64_t{0});
  current_ranks_.assign(sites_.size(), 0);
  for (int64_t i = 0; i < budget; ++i) ++current_ranks_[owners[static_cast<std::size_t>(ranking[i].item<int64_t>())]];
  // Convergence is checked for the first of the sites with equal input, so it must have the highest rank of them.
  for (std::size_t i = 0; i < sites_.size(); ++i)
    if (current_ranks_[first_[i]] < current_ranks_[i]) std::swap(current_ranks_[first_[i]], current_ranks_[i]);
}

std::vector<Tensor> Eva::run() {
  const torch::NoGradGuard no_grad;
  first_ = find_equal_inputs();
  make_pcas();
  const auto ready = [](const auto& item) { return item.second.pca.directions().defined(); };
  {
    const peft::InputProbe probe(sites_, [this](std::size_t i, const Tensor& x) { on_input(i, x); });
    for (std::size_t step = 0; !all_converged(); ++step) {
      if (step == kMaxPasses * batches_)
        throw peft::ConfigError(
            "[adapter] eva_config: after " + std::to_string(kMaxPasses) +
            " passes over the data some directions have not converged, or no batch has r · rho tokens; "
            "use a lower tau, a larger batch_size or more calibration_batches");
      const peft::CalibrationBatch batch = data_.batch(step % batches_);
      const Tensor& labels = batch.row_labels;
      selected_ = options_.use_label_mask ? (labels != options_.label_mask_value).nonzero().squeeze(1)
                                          : at::arange(labels.size(0), labels.options());
      data_.loss(batch);
      if (std::all_of(pcas_.begin(), pcas_.end(), ready)) distribute_ranks();
    }
  }
  std::vector<Tensor> directions;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const IncrementalPca& pca = pcas_.at(first_[i]).pca;
    Tensor rows = pca.directions().narrow(0, 0, current_ranks_[i]);
    if (options_.whiten) rows = rows / pca.singular_values().narrow(0, 0, current_ranks_[i]).sqrt().unsqueeze(1);
    directions.push_back(rows.clone());
  }
  return directions;
}

}  // namespace

std::vector<Tensor> eva_directions(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& ranks,
                                   const EvaOptions& options, int64_t batches, const peft::Calibration& data) {
  return Eva(sites, ranks, options, std::min(static_cast<std::size_t>(batches), data.batches), data).run();
}

}  // namespace lora
