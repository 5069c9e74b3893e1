// The command line: commands, their help, and one way for every error to reach the user.
// Runs on the main thread of each rank; only rank 0 prints.
#pragma once

#include <string>
#include <vector>

namespace dtrain::launch {

/// Runs `dtrain ARGS...`; returns the exit code of the process.
int run_command_line(const std::vector<std::string>& args);

}  // namespace dtrain::launch
