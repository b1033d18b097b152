#pragma once
// Everything that the source of a plugin includes.

#include "peft/adapters/adapter.h"
#include "peft/options/options.h"
#include "peft/plugin/plugin_info.h"
#include "peft/plugin/registry.h"
#include "peft/train/clipping.h"
#include "peft/train/objective.h"
#include "peft/train/optimizer.h"
#include "peft/train/precision.h"
#include "peft/train/scheduler.h"
