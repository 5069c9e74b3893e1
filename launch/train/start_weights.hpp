// The weights of model.initialize_from, at the start of a new run.
// A free function without state; collective, on the training thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/weights/weights.hpp"
#include "launch/train/model_state.hpp"
#include "models/model/config.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

/// Into the model of rank 0, after its initialization, whose broadcast is to follow; the average begins as they are.
/// What is in none of the lists stays initialized. Throws, on all ranks alike, ConfigError for a pattern that matches
/// nothing and, beside adapters, for a parameter that stays initialized and is not trained; and as io::load_weights()
/// does.
io::StartWeights take_start_weights(Group&, const models::ModelConfig&, ModelState&);
/// The same on this rank alone, of tensors "param/..." and "state/..."; others of them, and adapters, stay as they are.
io::StartWeights read_start_weights(const models::ModelConfig&, std::vector<io::StateTensor>);

/// What the adapters of a LoRA run adapt, as that run began: fills `flat`, which holds the whole layout, on this rank
/// alone. Returns the hash of the frozen parameters, for check_base(). Throws as take_start_weights() does.
std::string read_base(const models::ModelConfig&, const FlatLayout&, const Graph&, std::uint64_t seed, float* flat);
/// The parameters that a LoRA run's checkpoint does not hold are here those that it was trained on. `hash`: of those
/// here. Throws CheckpointError where they are others, with what to do.
void check_base(const std::string& checkpoint, const io::RunState&, const models::ModelConfig&, const std::string& hash,
                const std::string& advice = "set model.initialize_from to the weights that the run began with");

/// What a user is to know: one line of what was taken, and of each kind of what was not.
std::vector<std::string> lines_of(const io::StartWeights&);

}  // namespace dtrain::launch
