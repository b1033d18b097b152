#include "peft/runtime/state_dict_file.h"

#include <torch/types.h>

#include <cstring>

#include "peft/files/safetensors.h"
#include "runtime/stored_types.h"

namespace peft {

void write_state(const std::string& path, const StateDict& state, const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, tensor] : state)
    infos.push_back({name, stored_type(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, std::move(infos), metadata);
  for (const TensorInfo& info : writer.tensors()) {
    const Tensor host = state.at(info.name).detach().cpu().contiguous();
    writer.write(host.data_ptr());
  }
  writer.commit();
}

StateDict read_state(const std::string& path) { return read_state(*SafetensorsFile::open(path)); }

StateDict read_state(const SafetensorsFile& file) {
  StateDict state;
  for (const StoredTensor& stored : file.tensors()) {
    Tensor tensor = torch::empty(stored.shape, torch_type(stored.type).value());
    if (stored.size > 0) std::memcpy(tensor.data_ptr(), stored.data, stored.size);
    state.emplace(stored.name, tensor);
  }
  return state;
}

}  // namespace peft
