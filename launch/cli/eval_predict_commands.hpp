// The commands eval and predict, which run a trained model on all ranks.
// An EvalPredictCommands owns what their options set, and lives as long as the tree of commands; everything is on one
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "launch/cli/data_commands.hpp"
#include "launch/infer/eval_predict.hpp"

namespace dtrain::launch {

class EvalPredictCommands {
 public:
  /// `on_all_ranks`: the command runs this on every rank of the launch, and prints rank 0's text.
  using Work = std::function<std::string(comm::World&)>;
  EvalPredictCommands(CLI::App& app, CommandTree tree, std::function<void(CLI::App*, Work)> on_all_ranks);

 private:
  using Run = std::function<std::string(const LoadedConfig&, comm::World&)>;
  CLI::App* add(CLI::App& app, const char* name, const char* what, const char* examples, Run run);

  CommandTree tree_;
  std::function<void(CLI::App*, Work)> on_all_ranks_;
  std::string file_, output_;
  std::vector<std::string> overrides_, files_;
  EvalPredictOptions options_;
  CLI::Option* resize_option_ = nullptr;
  std::int64_t resize_ = 0;
  bool json_ = false;
};

}  // namespace dtrain::launch
