// The tables of fields of the layers, one a kind, for the table of the model.
// Built anew by each call; immutable.
#pragma once

#include "models/layers/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// A layer of any kind, which remembers the line where it stands.
TypePtr<Layer> layer_type();
TypePtr<Activation> activation_type();
/// An extent or count of at least `least`.
TypePtr<std::int64_t> at_least(std::int64_t least);

}  // namespace dtrain::models
