#pragma once

#include <memory>
#include <vector>

#include "options/table.h"
#include "peft/base/error.h"
#include "peft/options/document.h"

namespace peft {

struct Document::State {
  detail::Entry* find(std::string_view table);

  ErrorKind kind = ErrorKind::config;  ///< of the error that finish() throws
  std::shared_ptr<const detail::Source> source;
  detail::Entries entries;
  int assignments = 0;                                  ///< `--set`s so far
  std::vector<std::shared_ptr<Options::Table>> tables;  ///< in the order asked for
  std::shared_ptr<detail::Errors> errors = std::make_shared<detail::Errors>();
};

}  // namespace peft
