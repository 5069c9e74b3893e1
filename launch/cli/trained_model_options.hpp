// What commands with a trained model have in common: the configuration, and which parameters.
// Free functions; what the options set belongs to the command, and outlives the tree of commands.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "launch/config/config_file.hpp"
#include "launch/infer/trained_model.hpp"

namespace dtrain::launch {

/// The configuration of the file, or of the folder of a run, whose checkpoints are meant then, wherever it lies now.
/// Throws ConfigError.
LoadedConfig load_trained(const std::string& given, const std::vector<std::string>& overrides);

void add_trained_model(CLI::App& app, std::string& file, std::vector<std::string>& overrides, CheckpointChoice&);

}  // namespace dtrain::launch
