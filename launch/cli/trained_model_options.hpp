// What commands with a trained model have in common: the configuration, and which parameters.
// A free function; what the options set belongs to the command, and outlives the tree of commands.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "launch/infer/trained_model.hpp"

namespace dtrain::launch {

void add_trained_model(CLI::App& app, std::string& file, std::vector<std::string>& overrides, CheckpointChoice&);

}  // namespace dtrain::launch
