#pragma once

#include <peft/plugin.h>

#include <cmath>

// Options that all optimizers share.

inline void read_lr(peft::Options& in, double& lr) {
  in.get("lr", lr, "learning rate").require(std::isfinite(lr) && lr >= 0, "must be 0 or more");
}

/// Decoupled, as in AdamW.
inline void read_weight_decay(peft::Options& in, double& weight_decay) {
  in.get("weight_decay", weight_decay, "decoupled weight decay: each step subtracts lr · weight_decay · parameter")
      .require(std::isfinite(weight_decay) && weight_decay >= 0, "must be 0 or more");
}

inline void read_beta(peft::Options& in, const char* key, double& beta, const char* help) {
  in.get(key, beta, help).require(beta >= 0 && beta < 1, "must be in [0, 1)");
}

inline void read_positive(peft::Options& in, const char* key, double& value, const char* help) {
  in.get(key, value, help).require(std::isfinite(value) && value > 0, "must be positive");
}

/// Adam's beta1, beta2 and eps.
inline void read_adam(peft::Options& in, double& beta1, double& beta2, double& eps) {
  read_beta(in, "beta1", beta1, "decay of the running mean of the gradients");
  read_beta(in, "beta2", beta2, "decay of the running mean of the squared gradients");
  read_positive(in, "eps", eps, "added to the square root of that mean, for stability");
}
