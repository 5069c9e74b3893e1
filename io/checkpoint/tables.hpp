// The table of fields of the checkpoint section of a configuration.
// It is built at the first use and never changes.
#pragma once

#include "io/checkpoint/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::io {

TypePtr<CheckpointConfig> checkpoint_table();

}  // namespace dtrain::io
