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

/// Whole passes over the data after which what still moves is an error.
constexpr std::size_t kMostPasses = 100;

class Eva {
 public:
  Eva(const std::vector<peft::Site*>& sites, const std::vector<int64_t>& ranks, const EvaOptions& options,
      std::size_t batches, const peft::Calibration& data)
      : sites_(sites), ranks_(ranks), options_(options), batches_(batches), data_(data) {}
  std::vector<Tensor> run();

 private:
  struct Followed {
    IncrementalPca pca;
    Tensor stays;  // [components], whether each direction stayed where it was
    bool done = false;
  };
  std::vector<std::size_t> equal_inputs() const;
  void follow();
  void see(std::size_t site, const Tensor& x);
  bool settled();
  void distribute();
  Tensor rows_of(const Tensor& x) const;

  const std::vector<peft::Site*>& sites_;
  const std::vector<int64_t>& ranks_;
  const EvaOptions& options_;
  const std::size_t batches_;
  const peft::Calibration& data_;
  std::vector<std::size_t> first_;            // of each site, the first with the same input
  std::map<std::size_t, Followed> followed_;  // by that first one
  std::vector<int64_t> given_;                // ranks, as the variance seen so far would have them
  Tensor counted_;                            // of the present batch, the rows that count
};

Tensor Eva::rows_of(const Tensor& x) const {
  return x.reshape({-1, x.size(-1)}).index_select(0, counted_).to(torch::kFloat);
}

/// Query, key and value have one input, and so have gate and up.
std::vector<std::size_t> Eva::equal_inputs() const {
  std::vector<std::size_t> first(sites_.size());
  std::iota(first.begin(), first.end(), 0);
  std::size_t before = sites_.size();
  Tensor last;
  const peft::InputProbe probe(sites_, [&](std::size_t i, const Tensor& x) {
    if (last.defined() && last.sizes() == x.sizes() && at::equal(last, x)) first[i] = first[before];
    last = x, before = i;
  });
  data_.loss(data_.batch(0));
  return first;
}

void Eva::follow() {
  std::map<std::size_t, int64_t> components;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const auto most = std::llrint(static_cast<double>(ranks_[i]) * options_.rho);
    components[first_[i]] = std::max<int64_t>(components[first_[i]], most);
  }
  for (const auto& [site, count] : components) {
    const int64_t inputs = dynamic_cast<const peft::Linear&>(*sites_[site]).in_features();
    if (count > inputs)
      throw peft::ConfigError("[adapter] eva_config.rho: '" + peft::printable(sites_[site]->path()) + "' has " +
                              std::to_string(inputs) + " inputs, and rho · r asks for " + std::to_string(count) +
                              " directions among them");
    followed_.emplace(site, Followed{IncrementalPca(count), torch::zeros({count}, torch::kBool)});
  }
  for (const std::size_t first : first_) given_.push_back(components[first]);
}

void Eva::see(std::size_t site, const Tensor& x) {
  const auto found = followed_.find(site);
  if (found == followed_.end() || found->second.done) return;
  auto& [pca, stays, done] = found->second;
  const Tensor rows = rows_of(x);
  if (rows.size(0) < pca.components()) return;
  const Tensor before = pca.directions();
  pca.fit(rows);
  if (before.defined()) stays = at::cosine_similarity(pca.directions(), before, /*dim=*/1) >= options_.tau;
}

/// Whether all directions stay that the present distribution asks for. A site that is done is followed again as soon as
/// it is given more.
bool Eva::settled() {
  bool all = true;
  for (auto& [site, followed] : followed_) {
    followed.done = followed.stays.narrow(0, 0, given_[site]).all().item<bool>();
    all = all && followed.done;
  }
  return all;
}

/// The `Σ ranks` directions that explain most of their site's variance.
void Eva::distribute() {
  std::vector<std::size_t> order;  // those followed, then those whose input is another's
  for (const auto& [site, followed] : followed_) order.push_back(site);
  for (std::size_t i = 0; i < sites_.size(); ++i)
    if (first_[i] != i) order.push_back(i);
  std::vector<Tensor> shares;
  std::vector<std::size_t> owners;
  for (const std::size_t site : order) {
    shares.push_back(followed_.at(first_[site]).pca.explained());
    owners.insert(owners.end(), static_cast<std::size_t>(shares.back().size(0)), site);
  }
  const Tensor ranking = at::argsort(at::cat(shares), /*dim=*/0, /*descending=*/true);
  const int64_t budget = std::accumulate(ranks_.begin(), ranks_.end(), int64_t{0});
  given_.assign(sites_.size(), 0);
  for (int64_t i = 0; i < budget; ++i) ++given_[owners[static_cast<std::size_t>(ranking[i].item<int64_t>())]];
  // Only those followed are asked whether they stay, so they must have the most of their equals.
  for (std::size_t i = 0; i < sites_.size(); ++i)
    if (given_[first_[i]] < given_[i]) std::swap(given_[first_[i]], given_[i]);
}

std::vector<Tensor> Eva::run() {
  const torch::NoGradGuard no_grad;
  first_ = equal_inputs();
  follow();
  const auto ready = [](const auto& item) { return item.second.pca.directions().defined(); };
  {
    const peft::InputProbe probe(sites_, [this](std::size_t i, const Tensor& x) { see(i, x); });
    for (std::size_t step = 0; !settled(); ++step) {
      if (step == kMostPasses * batches_)
        throw peft::ConfigError(
            "[adapter] eva_config: after " + std::to_string(kMostPasses) +
            " passes over the data directions still move, or no batch had as many tokens as r · rho; "
            "try a lower tau, a larger batch_size or more calibration_batches");
      const peft::CalibrationBatch batch = data_.batch(step % batches_);
      const Tensor& labels = batch.row_labels;
      counted_ = options_.use_label_mask ? (labels != options_.label_mask_value).nonzero().squeeze(1)
                                         : at::arange(labels.size(0), labels.options());
      data_.loss(batch);
      if (std::all_of(followed_.begin(), followed_.end(), ready)) distribute();
    }
  }
  std::vector<Tensor> directions;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const IncrementalPca& pca = followed_.at(first_[i]).pca;
    Tensor rows = pca.directions().narrow(0, 0, given_[i]);
    if (options_.whiten) rows = rows / pca.singular_values().narrow(0, 0, given_[i]).sqrt().unsqueeze(1);
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
