#include "launch/cli/trained_model_options.hpp"

#include "launch/cli/command_tree.hpp"

namespace dtrain::launch {

void add_trained_model(CLI::App& app, std::string& file, std::vector<std::string>& overrides,
                       CheckpointChoice& choice) {
  app.add_option("config", file, "Configuration file (YAML)")->required();
  app.add_option(settings_argument, overrides, "Settings that replace the file's; the value is YAML");
  app.add_option("--checkpoint", choice.checkpoint,
                 "A step directory, a directory of them (the newest valid one), or best; by default the "
                 "configuration's");
  app.add_flag("--raw", choice.raw, "Use the parameters as trained, not their moving average");
}

}  // namespace dtrain::launch
