// The label of the best checkpoint: a file `best` beside the step directories that names one of them.
// Free functions without state; whoever changes the label holds the directory's lock. Inside io/ only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/files/file.hpp"

namespace dtrain::io {

inline constexpr const char* best_name = "best";

/// The step that the label names, there or not; nothing without a label, or where it is not one.
std::optional<std::uint64_t> read_best(FileSystem&, const std::string& directory);

/// Makes the label name `best`, if that step is there. Without `best` (or its directory) the label stays, unless the
/// step that it names is gone. It changes atomically and durably: `unique` is for the name in between.
void point_best(FileSystem&, const std::string& directory, std::optional<std::uint64_t> best,
                const std::string& unique);

/// The directory of checkpoints that a run's folder has; any other path is itself.
std::string checkpoints_of(FileSystem&, const std::string& given);

/// What a user means: of a run's folder, its directory of checkpoints; behind either, "/best" is the step directory
/// that the label names, "/500" and "/step-500" the one of that step; else `path` itself. Throws CheckpointError where
/// a label or a step names nothing that is there.
std::string follow_label(FileSystem&, const std::string& path);

}  // namespace dtrain::io
