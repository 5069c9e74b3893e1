// `dtrain doctor`: what this machine, or each host of a launch, offers to a run, and what to do about what it lacks.
// Collective where there are several ranks; the report is rank 0's, and owns its text.
#pragma once

#include <string>

#include "comm/world/world.hpp"

namespace dtrain::launch {

struct DoctorReport {
  std::string text, json;
};

/// `directory`: where runs will write. Every rank calls it.
DoctorReport doctor(comm::World&, const std::string& directory);

}  // namespace dtrain::launch
