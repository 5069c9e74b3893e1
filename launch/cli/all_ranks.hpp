// Commands that all ranks of a launch run together, and the output that is what a command is for.
// Free functions for the main thread.
#pragma once

#include <functional>
#include <string>

#include "comm/world/world.hpp"

namespace dtrain::launch {

/// To standard output: who reads it must not take half of it for all. Throws DataError where it cannot be written.
void print(const std::string& text);

/// Runs `work`, of this command, on all ranks of this launch, and prints rank 0's text. An error of one rank alone ends
/// them all. Returns the exit code.
int on_all_ranks(const std::string& command, const std::function<std::string(comm::World&)>& work);

}  // namespace dtrain::launch
