// The table of fields of a whole configuration, made of the floors' own.
// It is built at the first use and never changes.
#pragma once

#include "launch/config.hpp"
#include "runtime/fields.hpp"

namespace dtrain::launch {

TypePtr<RunConfig> run_table();

}  // namespace dtrain::launch
