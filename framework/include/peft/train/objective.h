#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "peft/base/export.h"
#include "peft/data/sampler.h"
#include "peft/options/options.h"
#include "peft/plugin/stateful.h"
#include "peft/train/pass.h"

namespace peft {

/// What a loss is divided by, from the data alone (tokens, pairs, records): additive over batches. The first is 0 if
/// a batch has no targets.
using Totals = std::vector<double>;
/// Named sums of an evaluation, additive over batches.
using Sums = std::map<std::string, double>;
/// Named results of an evaluation, in the order in which they are reported. The first one is the loss.
using Figures = std::vector<std::pair<std::string, double>>;

/// What a run minimizes: the loss, the records it is made from, and the figures of an evaluation. A plugin overrides
/// the protected do_… methods, and the state methods if later steps depend on earlier ones.
class PEFT_API Objective : public Stateful {
 public:
  ~Objective() override;
  /// Names of the record formats that the objective reads (data/formats.h). [data] format = "auto" chooses among them.
  StringList formats() const;
  /// The totals of one batch. `has_virtual_tokens`: virtual tokens precede each example, so that its first token has a
  /// position that predicts it.
  Totals totals(const Batch& batch, bool has_virtual_tokens) const;
  /// The batch's share of the step's loss, a scalar with its gradient: its sums divided by `step`, the totals of all
  /// batches of the step. So the shares of micro-batches add up to the loss of one large batch.
  Tensor loss(const Pass& pass, const Totals& step);
  /// Adds what figures() needs of one batch to `sums`. Runs without gradients and dropout.
  void evaluate(const Pass& pass, Sums& sums) const;
  /// The figures of a data set, from the sums of all its batches.
  Figures figures(const Sums& sums) const;
  /// True: the loss is the negative log-likelihood of the labels, divided by totals. Optimizers that sample labels from
  /// the model (Sophia) work only then.
  bool is_likelihood() const;

 protected:
  virtual StringList do_formats() const = 0;
  virtual Totals do_totals(const Batch& batch, bool has_virtual_tokens) const = 0;
  virtual Tensor do_loss(const Pass& pass, const Totals& step) = 0;
  virtual void do_evaluate(const Pass& pass, Sums& sums) const = 0;
  virtual Figures do_figures(const Sums& sums) const = 0;
  virtual bool do_is_likelihood() const { return false; }
};

/// Adds the totals of another batch.
PEFT_API void add_totals(Totals& sum, const Totals& totals);

}  // namespace peft
