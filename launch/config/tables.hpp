// The table of fields of a whole configuration, made of the floors' own.
// It is built at the first use and never changes.
#pragma once

#include "launch/config/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::launch {

TypePtr<RunConfig> run_table();

}  // namespace dtrain::launch
