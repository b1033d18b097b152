#pragma once

#include <memory>
#include <vector>

#include "peft/adapter.h"
#include "peft/plugin.h"

/// Loads the folders' adapters, one over the other, and says where one does not tell its base.
std::vector<std::unique_ptr<peft::Adapter>> attach_adapters(const peft::StringList& folders, peft::Plugins& plugins,
                                                            peft::Model& model, const peft::Precision& precision,
                                                            bool any_base);
