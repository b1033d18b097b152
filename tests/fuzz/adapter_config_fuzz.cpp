// Checks that the options of an accepted adapter_config.json are equal after they are written as TOML and read back.
#include <nlohmann/json.hpp>

#include "json_tree.h"
#include "peft/files/json.h"
#include "peft/options/document.h"
#include "peft/options/options.h"
#include "target.h"

namespace peft::fuzz {

namespace {

/// Reads an option of each type, under names of LoRA.
void read(Options in) {
  int64_t r = 8;
  double alpha = 8;
  bool rslora = false;
  std::string bias = "none";
  StringOrList targets = StringList{};
  std::optional<StringOrList> exclude;
  std::optional<IntList> layers;
  BoolOrString init = true;
  IntMap ranks;
  NumberMap alphas;
  std::optional<StringList> modules;
  in.get("r", r, "h").require(r > 0, "must be positive");
  in.get("lora_alpha", alpha, "h");
  in.get("use_rslora", rslora, "h");
  in.get("bias", bias, "h");
  in.get("target_modules", targets, "h");
  in.get("exclude_modules", exclude, "h");
  in.get("layers_to_transform", layers, "h");
  in.get("init_lora_weights", init, "h");
  in.get("rank_pattern", ranks, "h");
  in.get("alpha_pattern", alphas, "h");
  in.get("modules_to_save", modules, "h");
  Options eva = in.table("eva_config");
  double rho = 2;
  eva.get("rho", rho, "h").require(rho >= 1, "must be 1 or more");
}

void run(const std::string& bytes) {
  Document document = Document::from_adapter_config("adapter", parse_json(bytes, "INPUT"), "INPUT");
  read(document.table("adapter"));
  document.finish();
  const std::string written = document.resolved();
  Document again = Document::from_text(written, "INPUT");
  read(again.table("adapter"));
  again.finish();
  expect(again.resolved() == written, "options that read back differently");
}

}  // namespace

const Target target = {"adapter_config", "INPUT", run, mutate_json};

}  // namespace peft::fuzz
