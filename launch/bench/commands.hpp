// The command line of `dtrain bench`: its commands, their options and examples.
// Adds to a tree of commands that another room owns, which lends what it takes.
#pragma once

#include "launch/cli/command_tree.hpp"

namespace dtrain::launch {

void add_bench_commands(CLI::App& root, const CommandTree&);

}  // namespace dtrain::launch
