#include "peft/options.h"
