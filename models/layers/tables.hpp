// The table of fields of the model section of a configuration.
// The table is built at the first use and never changes.
#pragma once

#include "models/layers/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

TypePtr<ModelConfig> model_table();

}  // namespace dtrain::models
