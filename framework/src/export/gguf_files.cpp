#include "export/gguf_files.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/files/json.h"
#include "pretrained/gguf/types.h"
#include "text/tokenizer/tokenizer_config.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

struct ExportType {
  const char* name;
  StoredType type;
  uint32_t file_type;  ///< llama.cpp's LLAMA_FTYPE
};
constexpr ExportType kTypes[] = {{"f32", StoredType::f32, 0},
                                 {"f16", StoredType::f16, 1},
                                 {"q8_0", StoredType::q8_0, 7},
                                 {"bf16", StoredType::bf16, 32}};

}  // namespace

StoredType gguf_export_type(const std::string& name) {
  for (const ExportType& known : kTypes)
    if (name == known.name) return known.type;
  const bool quantized = name.starts_with('q') || name.starts_with("iq");
  throw ConfigError("unsupported export type '" + printable(name) + "'; use f32, f16, bf16 or q8_0" +
                    (quantized ? "; for other quantizations export f16, then run llama.cpp's 'llama-quantize "
                                 "model.gguf quantized.gguf " +
                                     printable(name) + "'"
                               : ""));
}

StoredType gguf_type_for(StoredType wanted, const std::vector<int64_t>& shape) {
  if (shape.size() < 2) return StoredType::f32;
  return shape.back() % gguf_type(wanted).block_elements == 0 ? wanted : StoredType::f16;
}

GgufPairs gguf_general(const std::string& kind, const std::string& name) {
  return {{"general.architecture", std::string("llama")},
          {"general.type", kind},
          {"general.name", name},
          {"general.quantization_version", uint32_t{2}}};
}

uint32_t gguf_file_type(StoredType type) {
  for (const ExportType& known : kTypes)
    if (known.type == type) return known.file_type;
  throw std::logic_error("no file type for this export type");
}

std::string model_name(const std::string& path) {
  const fs::path absolute = fs::absolute(path).lexically_normal();
  const fs::path last = absolute.has_filename() ? absolute.filename() : absolute.parent_path().filename();
  return last.extension() == ".gguf" ? last.stem().string() : last.string();
}

void write_modelfile(const AtomicDirectory& draft, const PretrainedModel& checkpoint, const std::string& from,
                     const std::string& adapter) {
  std::string lines = "# ollama create NAME -f Modelfile\nFROM " + from + "\n";
  if (!adapter.empty()) lines += "ADAPTER " + adapter + "\n";
  const std::string stop = text::special_token(checkpoint.tokenizer_config(), "eos_token", checkpoint.path());
  if (!stop.empty()) lines += "PARAMETER stop " + nlohmann::json(stop).dump() + "\n";
  write_file(draft.file("Modelfile"), lines);
}

}  // namespace peft
