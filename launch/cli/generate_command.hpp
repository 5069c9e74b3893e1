// The command generate, which continues texts on all ranks.
// A GenerateCommand owns what its options set, and lives as long as the tree of commands; everything is on one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "launch/cli/data_commands.hpp"
#include "launch/infer/generate.hpp"

namespace dtrain::launch {

class GenerateCommand {
 public:
  /// `on_all_ranks`: the command runs this on every rank of the launch, and prints rank 0's text.
  using Work = std::function<std::string(comm::World&)>;
  GenerateCommand(CLI::App& app, const CommandTree& tree, const std::function<void(CLI::App*, Work)>& on_all_ranks);

 private:
  std::string file_;
  std::vector<std::string> overrides_;
  GenerateOptions options_;
  std::optional<std::uint64_t> seed_;
};

}  // namespace dtrain::launch
