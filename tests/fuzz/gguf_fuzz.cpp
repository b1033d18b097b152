// Checks that an accepted GGUF file is a complete llama: the bytes of each tensor are in the file and can be read as
// fp32, its config.json describes a model, and its vocabulary gives a tokenizer.
#include <nlohmann/json.hpp>

#include "bytes.h"
#include "gguf_image.h"
#include "peft/architecture/config.h"
#include "peft/files/pretrained_model.h"
#include "peft/text/tokenizer/tokenizer.h"
#include "pretrained/gguf/gguf_model.h"
#include "pretrained/gguf/types.h"
#include "target.h"

namespace peft::fuzz {

namespace {

using Pair = GgufImage::Pair;
using Tensor = GgufImage::Tensor;

void check_tensor(const PretrainedModel& model, const StoredTensor& tensor, std::size_t file_size) {
  uint64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    expect(size > 0, "a size that is not positive");
    expect(!__builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements), "a shape that overflows");
  }
  expect(tensor.size == gguf_bytes(tensor.type, tensor.shape), "shape and bytes differ");
  expect(tensor.size <= file_size && elements <= 8 * file_size, "a tensor larger than the file");
  std::vector<float> values(elements);
  model.read(tensor, values.data());
}

void run(const std::string& bytes) {
  set_file(bytes);
  const auto model = open_gguf("INPUT");
  for (const StoredTensor& tensor : model->tensors()) check_tensor(*model, tensor, bytes.size());
  const DecoderConfig config = decoder_config(model->config(), "INPUT");
  expect(config.head_dim > 0 && config.vocab_size > 0, "a model without size");
  expect(model->tokenizer_bytes().size() <= bytes.size(), "a header larger than the file");
  const auto tokenizer = Tokenizer::from_json(model->tokenizer_json(), "INPUT");
  for (const char* text : {"", "ab a <e>", "naïve \xE4\xBD\xA0 12  "})
    for (const int64_t id : tokenizer->encode(text, true))
      expect(id >= 0 && id < tokenizer->size(), "an id out of range");
}

std::string any_number(Random& random) {
  const uint64_t number = nasty_number(random, 64);
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

std::string any_name(const GgufImage& donor, bool tensor, Random& random) {
  if (random.one_in(6)) return nasty_text(random);
  if (tensor && !donor.tensors.empty()) return random.pick(donor.tensors).name;
  return donor.pairs.empty() ? "llama.x" : random.pick(donor.pairs).key;
}

void change_value(Pair& pair, Random& random) {
  if (pair.values.empty()) return pair.values.push_back(any_number(random));
  std::string& value = random.pick(pair.values);
  const bool text = pair.type == GgufImage::string_type || pair.element_type == GgufImage::string_type;
  switch (random.below(5)) {
    case 0:
      pair.values.push_back(value);
      break;
    case 1:
      pair.values.erase(pair.values.begin() + static_cast<std::ptrdiff_t>(random.below(pair.values.size())));
      break;
    case 2:
      value = text ? mutate_bytes(value, value + "ab", random) : any_number(random);
      break;
    default:
      value = text ? nasty_text(random) : any_number(random);
  }
}

void change_pair(GgufImage& image, const GgufImage& donor, Random& random) {
  if (image.pairs.empty()) return;
  const std::size_t at = random.below(image.pairs.size());
  Pair& pair = image.pairs[at];
  switch (random.below(8)) {
    case 0:
      image.pairs.erase(image.pairs.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    case 1:
      image.pairs.push_back(Pair(random.pick(random.one_in(2) || donor.pairs.empty() ? image.pairs : donor.pairs)));
      break;
    case 2:
      pair.key = any_name(donor, false, random);
      break;
    case 3:
      (random.one_in(2) ? pair.type : pair.element_type) = static_cast<uint32_t>(random.below(14));
      break;
    default:
      change_value(pair, random);
  }
}

void change_tensor(GgufImage& image, const GgufImage& donor, Random& random) {
  if (image.tensors.empty()) return;
  const std::size_t at = random.below(image.tensors.size());
  Tensor& tensor = image.tensors[at];
  switch (random.below(7)) {
    case 0:
      image.tensors.erase(image.tensors.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    case 1:
      image.tensors.push_back(Tensor(tensor));
      break;
    case 2:
      tensor.name = any_name(donor, true, random);
      break;
    case 3:
      tensor.type = static_cast<uint32_t>(random.below(40));
      break;
    case 4:
      tensor.offset = random.one_in(2) ? nasty_number(random, image.data.size()) : 32 * random.below(40);
      break;
    case 5:
      tensor.sizes.push_back(random.one_in(2) ? 1 : nasty_number(random, 32));
      break;
    default:
      if (!tensor.sizes.empty())
        random.pick(tensor.sizes) = random.one_in(2) ? nasty_number(random, 32) : random.below(64);
  }
  if (random.one_in(2)) image.lay_out();
}

std::string mutate(const std::string& bytes, const std::string& other, Random& random) {
  auto image = random.one_in(5) ? std::nullopt : GgufImage::parse(bytes);
  if (!image) return mutate_bytes(bytes, other, random);
  const GgufImage donor = GgufImage::parse(other).value_or(*image);
  switch (random.below(6)) {
    case 0:
    case 1:
      change_tensor(*image, donor, random);
      break;
    case 2:
      image->data = mutate_bytes(image->data, donor.data, random);
      break;
    default:
      change_pair(*image, donor, random);
  }
  const bool wrong_counts = random.one_in(20);
  return image->write(wrong_counts ? nasty_number(random, 0) : 0, wrong_counts ? nasty_number(random, 0) : 0);
}

}  // namespace

const Target target = {"gguf", "INPUT", run, mutate};

}  // namespace peft::fuzz
