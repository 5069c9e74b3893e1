// Strict YAML and `key.sub=value` overrides -> RunConfig, with the origin of each value and one canonical form.
// Pure functions over text on the caller's thread; nothing of the YAML library is visible here.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "launch/config/config.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

/// A configuration as it will be used, and where its values came from.
struct LoadedConfig {
  RunConfig config;  // derived defaults filled in: log.directory, checkpoint.directory
  std::string file;  // as the user wrote it
  std::vector<std::string> overrides;

  /// YAML of every setting; parses back to the same configuration. For config.yaml and checkpoints.
  std::string canonical;
  /// XXH3-64 of `canonical`, 16 hex digits. Equal on all ranks of a run, checked at start.
  std::string hash;
  /// ("optimizer.adam.learning_rate", "0.001"), in the order of `canonical`.
  std::vector<std::pair<std::string, std::string>> fields;
  /// Places of what was given: field -> "recipe.yaml:12:3" or "command line: key=value". Absent: a default.
  std::map<std::string, ConfigProblem> places;
  /// What may not be what was meant, a line each.
  std::vector<std::string> remarks;

  /// A problem of this field, with the place of the field (or of the nearest one that holds it).
  ConfigProblem problem(std::string_view field, const std::string& text) const;
};

/// Reads the file (1 MiB at most). Throws ConfigError with all problems at once.
LoadedConfig load_config(const std::string& file, std::span<const std::string> overrides = {});
/// The same from text; `file` is its name in messages.
LoadedConfig parse_config(std::string_view text, const std::string& file, std::span<const std::string> overrides = {});
/// The fields of a canonical form that may be an earlier program's: in the names of now, and with the defaults of
/// settings that have come since. `recorded`, the fields as it listed them, where it is no configuration any more.
std::vector<std::pair<std::string, std::string>> fields_of(std::string_view canonical,
                                                           std::vector<std::pair<std::string, std::string>> recorded);

/// What one rank does of the global batch.
struct BatchSplit {
  std::int64_t micro = 0;         // samples of a micro batch
  std::int64_t accumulation = 1;  // micro batches a step on each rank: micro * accumulation * ranks = global; fewer
                                  // in a warm-up of the batch
};
/// Throws ConfigError that suggests numbers that work where batch.global, or a smaller batch of its warm-up, cannot be
/// divided among `ranks`.
BatchSplit check_batch(const LoadedConfig&, int ranks);
/// Steps of the whole run: train.steps, or until epochs * samples were taken.
std::int64_t total_steps(const RunConfig&, std::uint64_t samples);

/// What such a number of steps makes of the schedule and may not be meant; empty where there is nothing to say.
std::string schedule_warning(const RunConfig&, std::int64_t steps);

/// Settings that may differ between a checkpoint and the run that resumes from it, by their dotted paths. A section
/// among them stands for all that is below it, also for what only an older or newer program knows.
std::vector<std::string> may_change_on_resume();

/// `dtrain config show`: the canonical form with the origin of each value behind it.
std::string show_config(const LoadedConfig&);
/// As JSON, indented. Plain scalars are numbers, true or false.
std::string to_json_text(const Document&);
/// `dtrain config schema`: JSON Schema (2020-12) of the configuration file.
std::string config_schema();
/// The reference page, launch/CONFIG.md.
std::string config_reference();

}  // namespace dtrain::launch
