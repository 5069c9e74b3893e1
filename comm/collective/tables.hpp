// The table of fields of the communication section of a configuration.
// It is built at the first use and never changes.
#pragma once

#include "comm/collective/config.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::comm {

TypePtr<CommConfig> communication_table();

}  // namespace dtrain::comm
