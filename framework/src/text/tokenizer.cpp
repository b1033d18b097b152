#include "peft/text/tokenizer.h"

namespace peft {

Tokenizer::~Tokenizer() = default;

}  // namespace peft
