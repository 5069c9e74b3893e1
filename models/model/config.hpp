// A model as users describe it: its inputs, layers or a family, its outputs and its losses.
// Plain values; launch/ fills them from YAML, build.hpp turns them into a Graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/families/families.hpp"
#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "models/model/lora.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

enum class Loss : std::uint8_t { cross_entropy, mean_squared_error };

struct ModelOutput {
  std::string name;
  std::string layer;
};

/// What training makes small, and what `data` gives it.
struct ModelLoss {
  std::string name = "loss";
  Loss kind = Loss::cross_entropy;
  std::string of;                      // an output; empty: the only one
  std::string target = "target";       // of data.targets
  std::string weight;                  // of data.weights; empty: every position weighs 1
  std::optional<std::int64_t> ignore;  // cross_entropy: positions with this label take part in nothing
  std::vector<double> class_weights;   // cross_entropy: of a position, by its label; empty: 1
  double label_smoothing = 0;          // cross_entropy
  double z_loss = 0;                   // cross_entropy
  double factor = 1;
};

/// Where a new run's parameters come from, in place of their initialization: see io::load_weights().
struct InitializeFrom {
  std::string path;               // empty: nowhere
  std::vector<std::string> skip;  // patterns of names of what is initialized all the same
};

/// The short forms, `input` and `loss`, are a model with one of each: see inputs_of() and losses_of().
struct ModelConfig {
  std::vector<std::int64_t> input;
  std::vector<ModelInput> inputs;  // in place of input
  std::vector<Layer> layers;
  std::vector<ModelOutput> outputs;  // empty: the last layer
  ModelLoss loss;
  std::vector<ModelLoss> losses;  // in place of loss
  Family family{};                // in place of layers
  /// SyncBatchNorm: in training, batch norm takes means over the micro batches of all ranks at one place of the step;
  /// else over the micro batch of each rank, which depends on batch.micro, but not on the number of ranks.
  bool sync_batch_norm = false;
  InitializeFrom initialize_from;
  Lora lora;
};

/// The inputs, at least one: `input` is one of that name.
std::vector<ModelInput> inputs_of(const ModelConfig&);
/// What the first layer reads, where it does not say: the first input but for `documents`, which attentions read.
std::size_t first_input(std::span<const ModelInput>);
/// The outputs, at least one: by default the last layer, as "output".
std::vector<ModelOutput> outputs_of(const ModelConfig&);
/// The losses, at least one: `loss` is one of that name, with the target "target".
std::vector<ModelLoss> losses_of(const ModelConfig&);
/// Whether one of the losses is over classes.
bool has_accuracy(const ModelConfig&);

/// The fields of `model`; made at the first use.
TypePtr<ModelConfig> model_table();

}  // namespace dtrain::models
