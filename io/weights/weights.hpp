// Weights that a model starts from: parameters and running statistics by name, out of a run, a checkpoint, an exported
// file, or a safetensors file of another program. Free functions without state, on the thread that calls them.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
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
  std::vector<std::string> settings;     // "n_head is 2 there and 4 here": what no shape tells
};

/// "param/conv2d_1.weight", "state/norm.running_variance": "conv2d_1.weight", "norm.running_var".
std::string pytorch_name(const std::string& name);

/// "a, b and 3 more"
std::string some_of(std::span<const std::string> names, std::size_t most);

/// Fills those of `tensors` (float32) that are in `from` under the same name, with the same shape, and for whose
/// PyTorch name `wanted` is true. `from`: a run's directory, a checkpoint, a directory of them or the label of one
/// (with the moving average where there is one), an HDF5 file of `checkpoint export`, a safetensors file, or a folder
/// with model.safetensors or its shards. A safetensors file may have the names of Hugging Face's models, where `family`
/// is one that they have. Throws DataError or CheckpointError where nothing could be taken, a number is not finite, or
/// `from` cannot be read.
StartWeights load_weights(const std::string& from, std::string_view family, std::span<const StateTensor> tensors,
                          const std::function<bool(const std::string&)>& wanted);

}  // namespace dtrain::io
