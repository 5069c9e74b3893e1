// Weights that a model starts from: parameters and running statistics by name, out of a run, a checkpoint, an exported
// file, or a safetensors file of another program. Free functions without state, on the thread that calls them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/checkpoint/checkpoint.hpp"

namespace dtrain::io {

/// What was taken from where. Names are those of PyTorch's dictionaries: "conv2d_1.weight", "norm.running_var".
struct StartWeights {
  std::string source;                    // the step directory or the file that was read
  std::vector<std::string> taken;        // tensors of the model
  std::vector<std::string> absent;       // of the model, not of the source: they stay as they are
  std::vector<std::string> other_shape;  // "dense_2.weight is [10, 64] there and [3, 64] here": these stay, too
  std::vector<std::string> unused;       // of the source alone
};

/// "param/conv2d_1.weight", "state/norm.running_variance": "conv2d_1.weight", "norm.running_var".
std::string pytorch_name(const std::string& name);

/// Fills those of `tensors` (float32) that are in `from` under the same name, with the same shape, and for whose
/// PyTorch name `wanted` is true. `from`: a run's directory, a checkpoint, a directory of them or the label of one
/// (with the moving average where there is one), an HDF5 file of `checkpoint export`, or a safetensors file. Throws
/// DataError or CheckpointError where nothing could be taken, a number is not finite, or `from` cannot be read.
StartWeights load_weights(const std::string& from, std::span<const StateTensor> tensors,
                          const std::function<bool(const std::string&)>& wanted);

}  // namespace dtrain::io
