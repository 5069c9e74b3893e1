// The commands that use a trained model over all ranks: eval and predict.
// A UseCommands owns what their options set, and lives as long as the tree of commands; everything is on one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "launch/cli/data_commands.hpp"
#include "launch/infer/eval_predict.hpp"

namespace dtrain::launch {

class UseCommands {
 public:
  /// `on_all_ranks`: the command runs this on every rank of the launch, and prints rank 0's text.
  using Work = std::function<std::string(comm::World&)>;
  UseCommands(CLI::App& app, CommandTree tree, std::function<void(CLI::App*, Work)> on_all_ranks);

 private:
  using Use = std::function<std::string(const LoadedConfig&, comm::World&)>;
  CLI::App* add(CLI::App& app, const char* name, const char* what, const char* examples, Use use);

  CommandTree tree_;
  std::function<void(CLI::App*, Work)> on_all_ranks_;
  std::string file_, output_;
  std::vector<std::string> overrides_, files_;
  UseOptions options_;
  bool json_ = false;
};

}  // namespace dtrain::launch
