#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "peft/base/export.h"
#include "peft/nn/site.h"
#include "peft/options/options.h"

namespace peft {

class Model;

/// Which embedding rows train: token ids of the input embedding, or by suffix of a module's name.
using TokenIndices = IntListOrMap;

/// Options of make_token_layers().
struct TokenLayerOptions {
  std::string option;                ///< name of the option that lists the tokens, for messages
  std::string holder;                ///< child module that has the rows, part of the saved key; "": the layer itself
  bool random = false;               ///< initialize with random numbers instead of the base's rows
  at::TensorOptions tensor_options;  ///< dtype and device of the trainable rows
};

/// Makes a layer for each site that replaces the rows of `tokens` by trainable ones, `trainable_tokens_delta`
/// [tokens, hidden]; despite HF PEFT's name these are the rows, not differences. A head tied to the embedding uses the
/// embedding's rows: it gets a layer without parameters if it is not listed, or is listed with the same tokens. Throws
/// ConfigError for a token that is not in the vocabulary or is listed twice, for a site that is neither an embedding
/// nor a linear layer without bias, and for one that already trains or has an adapter.
PEFT_API std::vector<std::pair<Site*, std::shared_ptr<AdapterLayer>>> make_token_layers(
    const Model& model, const std::vector<std::pair<Site*, IntList>>& tokens, const TokenLayerOptions& options);

/// The sites that `indices` lists, with their tokens. Throws ConfigError for a suffix that matches no module.
PEFT_API std::vector<std::pair<Site*, IntList>> token_sites(const Model& model, const TokenIndices& indices,
                                                            const std::string& option);

/// Pairs of keys in `file`: of the embedding's trained rows, and of the tied head, under which HF PEFT saves the same
/// rows again. Empty if the head has no tied layer.
PEFT_API std::vector<std::pair<std::string, std::string>> tied_keys(const Model& model, const StateDict& file);
/// `file` without the head's keys of tied_keys(). Throws InputError if their rows differ from the embedding's.
PEFT_API StateDict without_tied_keys(const Model& model, StateDict file);

}  // namespace peft
