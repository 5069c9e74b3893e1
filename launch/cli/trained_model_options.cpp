#include "launch/cli/trained_model_options.hpp"

#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "launch/cli/command_tree.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

LoadedConfig load_trained(const std::string& given, const std::vector<std::string>& overrides) {
  namespace fs = std::filesystem;
  std::error_code failed;
  if (!fs::is_directory(given, failed)) return load_config(given, overrides);
  const fs::path folder = given, file = folder / "config.yaml", checkpoints = folder / "checkpoints";
  if (!fs::exists(file, failed))
    throw ConfigError(
        fmt::format("{}: no run has written a config.yaml there; name a configuration file or the folder "
                    "of a run",
                    given));
  LoadedConfig loaded = load_config(file.string(), overrides);
  const auto said = loaded.places.find("checkpoint.directory");
  const bool now = said != loaded.places.end() && said->second.file.starts_with("command line");
  if (!now && fs::is_directory(checkpoints, failed)) loaded.config.checkpoint.directory = checkpoints.string();
  return loaded;
}

void add_trained_model(CLI::App& app, std::string& file, std::vector<std::string>& overrides,
                       CheckpointChoice& choice) {
  app.add_option("config", file, "Configuration file (YAML), or the folder of a run")->required();
  app.add_option(settings_argument, overrides, "Settings that replace the file's; the value is YAML");
  app.add_option("--checkpoint", choice.checkpoint,
                 "best, a step (500), a step directory, or a directory of them (the newest valid one); by default the "
                 "newest of the run");
  app.add_flag("--raw", choice.raw, "Use the parameters as trained, not their moving average");
}

}  // namespace dtrain::launch
