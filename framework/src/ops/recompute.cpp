#include "ops/recompute.h"

#include <ATen/autocast_mode.h>
#include <torch/autograd.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "runtime/rng_state.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// State that the second run needs to repeat the first one.
struct Again : torch::CustomClassHolder {
  std::function<Tensor(const Tensor&)> body;
  Tensor random;
  bool autocast = false;
  at::ScalarType autocast_dtype = at::kFloat;
};

/// Sets the random numbers and the autocast of the first run during its lifetime.
class AsBefore {
 public:
  AsBefore(const Again& again, torch::Device device)
      : device_(device),
        random_(random_state(device)),
        autocast_(at::autocast::is_autocast_enabled(device.type())),
        dtype_(at::autocast::get_autocast_dtype(device.type())) {
    set(again.random, again.autocast, again.autocast_dtype);
  }
  ~AsBefore() { set(random_, autocast_, dtype_); }
  AsBefore(const AsBefore&) = delete;
  AsBefore& operator=(const AsBefore&) = delete;

 private:
  void set(const Tensor& random, bool autocast, at::ScalarType dtype) {
    set_random_state(device_, random);
    at::autocast::set_autocast_enabled(device_.type(), autocast);
    at::autocast::set_autocast_dtype(device_.type(), dtype);
  }
  torch::Device device_;
  Tensor random_;
  bool autocast_;
  at::ScalarType dtype_;
};

struct Recompute : Function<Recompute> {
  /// `anchor` requires a gradient, so that there is a backward pass even if x requires none.
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable&,
                          const c10::intrusive_ptr<Again>& again) {
    ctx->save_for_backward({x});
    ctx->saved_data["again"] = c10::IValue::make_capsule(again);
    return again->body(x);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor saved = ctx->get_saved_variables().front();
    const auto again = c10::static_intrusive_pointer_cast<Again>(ctx->saved_data["again"].toCapsule());
    const Tensor x = saved.detach().requires_grad_(saved.requires_grad());
    Tensor y;
    {
      const torch::AutoGradMode on(true);
      const AsBefore as_before(*again, x.device());
      y = again->body(x);
    }
    if (y.requires_grad()) torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), Variable(), Variable()};
  }
};

}  // namespace

Tensor recomputed(const Tensor& x, const std::function<Tensor(const Tensor&)>& body) {
  if (!torch::GradMode::is_enabled()) return body(x);
  const auto device = x.device();
  auto again = c10::make_intrusive<Again>();
  again->body = body;
  again->random = random_state(device);
  again->autocast = at::autocast::is_autocast_enabled(device.type());
  again->autocast_dtype = at::autocast::get_autocast_dtype(device.type());
  const Tensor anchor = torch::empty({0}, torch::TensorOptions().device(device)).requires_grad_();
  return Recompute::apply(x, anchor, again);
}

}  // namespace peft
