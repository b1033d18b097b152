#include "runtime/stored_types.h"

#include <stdexcept>

namespace peft {

namespace {

constexpr std::pair<StoredType, torch::Dtype> kTypes[] = {
    {StoredType::f64, torch::kDouble},    {StoredType::f32, torch::kFloat}, {StoredType::f16, torch::kHalf},
    {StoredType::bf16, torch::kBFloat16}, {StoredType::i64, torch::kLong},  {StoredType::i32, torch::kInt},
    {StoredType::i16, torch::kShort},     {StoredType::i8, torch::kChar},   {StoredType::u8, torch::kByte},
    {StoredType::boolean, torch::kBool}};

}  // namespace

std::optional<torch::Dtype> torch_type(StoredType type) {
  for (const auto& [stored, dtype] : kTypes)
    if (stored == type) return dtype;
  return std::nullopt;
}

std::optional<torch::Dtype> named_type(const std::string& name) {
  if (name == "float32") return torch::kFloat;
  if (name == "bfloat16") return torch::kBFloat16;
  if (name == "float16") return torch::kHalf;
  return std::nullopt;
}

StoredType stored_type(torch::Dtype dtype) {
  for (const auto& [stored, torch_dtype] : kTypes)
    if (torch_dtype == dtype) return stored;
  throw std::logic_error(std::string("no safetensors type for ") + c10::toString(dtype));
}

}  // namespace peft
