// The command line: commands, their help, and one way for every error to reach the user.
// Runs on the main thread of each rank; only rank 0 prints.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "launch/cli/command_tree.hpp"

namespace dtrain::launch {

/// Adds the commands of a room that the command line knows nothing of.
using AddCommands = std::function<void(CLI::App& root, const CommandTree&)>;

/// Runs `dtrain ARGS...`, with `more` behind its own commands; returns the exit code of the process.
int run_command_line(const std::vector<std::string>& args, std::span<const AddCommands> more = {});

/// Every name of a command, an option (without dashes) and a positional, as the parser knows it.
std::vector<std::string> command_line_names(std::span<const AddCommands> more = {});

}  // namespace dtrain::launch
