// The weights of model.initialize_from, at the start of a new run.
// A free function without state; collective, on the training thread.
#pragma once

#include "io/weights/weights.hpp"
#include "launch/train/model_state.hpp"
#include "models/model/config.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

/// Into the model of rank 0, after its initialization, whose broadcast is to follow; the average begins as they are.
/// What is in none of the lists stays initialized. Throws, on all ranks alike, ConfigError for a pattern that matches
/// nothing, and as io::load_weights() does.
io::StartWeights take_start_weights(Group&, const models::ModelConfig&, ModelState&);

/// What a user is to know: one line of what was taken, and of each kind of what was not.
std::vector<std::string> lines_of(const io::StartWeights&);

}  // namespace dtrain::launch
