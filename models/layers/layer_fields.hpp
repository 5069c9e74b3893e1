// The fields of layers: those of the ops (runtime/ops), with a name and inputs.
// The type is made anew at each call and is immutable.
#pragma once

#include "models/layers/layer.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// A layer of any kind, which remembers the line where it stands.
TypePtr<Layer> layer_type();

}  // namespace dtrain::models
