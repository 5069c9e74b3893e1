// How users write augmentations; internal to io/.
// Made at the first use; for any thread.
#pragma once

#include <vector>

#include "io/augment/kinds.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::io {

/// Each kind at most once: its draws are keyed by its name.
const TypePtr<std::vector<Augmentation>>& augmentations();
TypePtr<Mix> mix_table();

}  // namespace dtrain::io
