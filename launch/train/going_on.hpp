// With which other settings a run goes on from a checkpoint, in words, and what becomes of the optimizer's state.
// Free functions without state, on the thread that calls them.
#pragma once

#include <string>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"
#include "launch/config/config_file.hpp"

namespace dtrain::launch {

/// "goes on with another learning rate: 0.001 -> 0.0003 (optimizer.adam.learning_rate)", of a setting and both values.
std::string going_on_text(const std::string& setting, const std::string& before, const std::string& now);

/// How a run goes on. Collectively equal: made of what all ranks know.
struct GoingOn {
  std::vector<std::string> remarks;  // for the log
  bool optimizer_anew = false;       // its state begins at zero, and its updates are counted from 0
};

/// Throws CheckpointError (incompatible) naming every setting that may not change, unless checkpoint.force. `saved` has
/// its fields in the names of now; `current` is the state of the run that goes on.
GoingOn go_on(const io::FoundCheckpoint& saved, const io::RunState& current, const RunConfig&);

/// Do the models of both have the same parameters, in name and shape? Then checkpoint.force can help where they differ.
/// True where the checkpoint's configuration cannot be read: nobody knows then.
bool same_parameters(const io::FoundCheckpoint& saved, const RunConfig&);

}  // namespace dtrain::launch
