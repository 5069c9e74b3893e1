// The table of fields of the data section of a configuration.
// It is built at the first use and never changes.
#pragma once

#include "io/dataset/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::io {

TypePtr<DataConfig> data_table();

}  // namespace dtrain::io
