// The table of fields of the communication section of a configuration.
// It is built at the first use and never changes.
#pragma once

#include "comm/config.hpp"
#include "runtime/fields.hpp"

namespace dtrain::comm {

TypePtr<CommConfig> communication_table();

}  // namespace dtrain::comm
