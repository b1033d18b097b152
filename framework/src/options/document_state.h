#pragma once

#include <functional>
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
  int sources = 0;                                      ///< number of overlays and `--set` options so far
  std::size_t rejected_plugins = 0;                     ///< number of errors that are missing plugins
  std::function<NameHints()> load_hints;                ///< empty: there are none
  std::vector<std::shared_ptr<Options::Table>> tables;  ///< in the order in which they were read
  std::shared_ptr<detail::Errors> errors = std::make_shared<detail::Errors>();
  std::shared_ptr<detail::SavedConfig> saved;  ///< of a finished adapter; null for an experiment
  std::string peft_version;                    ///< of HF PEFT that wrote it, or ""
  bool ignore_unknown = false;
  void report_saved();
};

}  // namespace peft
