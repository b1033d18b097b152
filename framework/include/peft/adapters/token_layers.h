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

/// Which rows of which modules train: token ids of the input embedding, or of each module named by its end.
using TokenIndices = IntListOrMap;

/// How the layers of make_token_layers() are made.
struct TokenLayerOptions {
  std::string option;      ///< that named the tokens, for messages
  std::string holder;      ///< child module that holds the rows, part of the saved key; "": the layer itself
  bool random = false;     ///< start as random numbers, not as the base's rows
  at::TensorOptions rows;  ///< dtype and device of what trains
};

/// A layer for each site: in place of the rows of its weight that belong to `tokens` it uses trained ones,
/// `trainable_tokens_delta` [tokens, hidden] — the rows themselves, in spite of PEFT's name. A head tied to the
/// embedding uses the embedding's rows: it gets a layer without parameters where it is not named, or named with the
/// same tokens. Throws ConfigError for a token that is not in the vocabulary or named twice, for a site that is neither
/// an embedding nor a linear layer without bias, and for one that is trained or adapted already.
PEFT_API std::vector<std::pair<Site*, std::shared_ptr<AdapterLayer>>> make_token_layers(
    const Model& model, const std::vector<std::pair<Site*, IntList>>& tokens, const TokenLayerOptions& tensor_options);

/// The sites that `indices` means, with their tokens. Throws ConfigError for a name that is the end of no module's.
PEFT_API std::vector<std::pair<Site*, IntList>> token_sites(const Model& model, const TokenIndices& indices,
                                                            const std::string& option);

/// The head's key in an adapter's file for each key that has trained rows of the embedding to which it is tied: PEFT
/// saves them under both, where the whole embedding is saved or TrainableTokens is the method. Empty where the head
/// has no layer that is tied.
PEFT_API std::vector<std::pair<std::string, std::string>> tied_keys(const Model& model, const StateDict& file);
/// Takes what tied_keys() names as the head's out of a file. Throws InputError where it differs from the embedding's.
PEFT_API StateDict without_tied_keys(const Model& model, StateDict file);

}  // namespace peft
