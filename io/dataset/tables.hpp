// The tables of fields of the data and checkpoint sections of a configuration.
// Each is built at the first use and never changes.
#pragma once

#include "io/dataset/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::io {

TypePtr<DataConfig> data_table();
TypePtr<CheckpointConfig> checkpoint_table();

}  // namespace dtrain::io
