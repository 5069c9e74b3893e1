// The tables of fields of optimizers and schedules.
// Each is built at the first use and never changes.
#pragma once

#include "runtime/config/fields.hpp"
#include "runtime/optim/optimizer.hpp"

namespace dtrain {

TypePtr<UpdateRule> optimizer_table();
TypePtr<Schedule> schedule_table();

}  // namespace dtrain
