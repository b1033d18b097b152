#include "peft/train/objective.h"

#include <torch/types.h>

#include <cmath>
#include <stdexcept>

#include "plugin/plugin_call.h"
#include "runtime/describe.h"

namespace peft {

using detail::call_plugin;

Objective::~Objective() = default;

StringList Objective::formats() const {
  return call_plugin(*this, "formats", [&] { return do_formats(); });
}

Totals Objective::totals(const Batch& batch, bool has_virtual_tokens) const {
  return call_plugin(*this, "totals", [&] {
    Totals totals = do_totals(batch, has_virtual_tokens);
    if (totals.empty()) throw std::logic_error("there must be at least one total");
    for (const double total : totals)
      if (!std::isfinite(total)) throw std::logic_error("a total is not finite");
    return totals;
  });
}

namespace {

/// While it lives, a pass attributes its exceptions to the core.
class PassThrough {
 public:
  PassThrough(detail::CoreCallback*& slot, detail::CoreCallback& core) : slot_(slot) { slot_ = &core; }
  ~PassThrough() { slot_ = nullptr; }
  PassThrough(const PassThrough&) = delete;
  PassThrough& operator=(const PassThrough&) = delete;

 private:
  detail::CoreCallback*& slot_;
};

}  // namespace

Tensor Objective::loss(const Pass& pass, const Totals& step) {
  return detail::call_plugin_with_callback(*this, "loss", [&](detail::CoreCallback& core) {
    const PassThrough guard(pass.core_, core);
    const Tensor loss = do_loss(pass, step);
    if (!loss.defined() || loss.numel() != 1 || !loss.is_floating_point())
      throw std::logic_error("it must return the loss, one floating-point number, not " + describe(loss));
    return loss;
  });
}

void Objective::evaluate(const Pass& pass, Sums& sums) const {
  detail::call_plugin_with_callback(*this, "evaluate", [&](detail::CoreCallback& core) {
    const PassThrough guard(pass.core_, core);
    do_evaluate(pass, sums);
  });
}

Figures Objective::figures(const Sums& sums) const {
  return call_plugin(*this, "figures", [&] {
    Figures figures = do_figures(sums);
    if (figures.empty()) throw std::logic_error("there must be at least one figure, the loss");
    return figures;
  });
}

bool Objective::is_likelihood() const {
  return call_plugin(*this, "is_likelihood", [&] { return do_is_likelihood(); });
}

void add_totals(Totals& sum, const Totals& totals) {
  sum.resize(totals.size());
  for (std::size_t i = 0; i < totals.size(); ++i) sum[i] += totals[i];
}

}  // namespace peft
