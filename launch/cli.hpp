// The command line: commands, their help, and one way for every error to reach the user.
// Runs on the main thread of each rank; only rank 0 prints.
#pragma once

#include <exception>
#include <string>
#include <vector>

#include "runtime/error.hpp"

namespace dtrain::launch {

/// Runs `dtrain ARGS...`; returns the exit code of the process.
int run_command_line(const std::vector<std::string>& args);

/// Every name of a command, an option (without dashes) and a positional, as the parser knows it.
std::vector<std::string> command_line_names();

/// The lines of an error, "error: ..." each problem, further text indented; `code` gets its exit code.
std::string error_text(const std::exception&, ExitCode& code);

}  // namespace dtrain::launch
