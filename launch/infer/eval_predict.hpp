// What `dtrain eval` and `dtrain predict` do with a trained model.
// Collective functions, called by every rank on its main thread; they own all they need, and borrow the World.
#pragma once

#include <string>
#include <vector>

#include "comm/world/world.hpp"
#include "launch/config/config_file.hpp"
#include "launch/infer/image_input.hpp"
#include "launch/infer/trained_model.hpp"

namespace dtrain::launch {

struct EvalPredictOptions : CheckpointChoice {
  bool logits = false;       // predictions of positions with their logits
  ImageInputOptions images;  // that are predicted
};

/// The exact loss and accuracy over `data`, or data.eval where that is empty. Rank 0's text: a line, or one JSON
/// object. Throws Error on all ranks alike, or RankFailure.
std::string evaluate_model(const LoadedConfig&, comm::World&, const EvalPredictOptions&,
                           const std::vector<std::string>& data, bool json);

/// Writes what the model makes of each row of `files`, or of each image there, to the HDF5 file `output`, in the same
/// order, with the names of files where they are known. Rank 0's text.
std::string predict(const LoadedConfig&, comm::World&, const EvalPredictOptions&, const std::vector<std::string>& files,
                    const std::string& output);

}  // namespace dtrain::launch
