// Plain settings of data sets and of what is done to their samples, with their defaults.
// Values only; launch/ fills them from YAML, io/ reads them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "io/augment/kinds.hpp"
#include "io/dataset/description.hpp"
#include "io/samples/config.hpp"
#include "runtime/config/named.hpp"
#include "runtime/graph/graph.hpp"

namespace dtrain::io {

/// stored value -> (value * scale - mean) / standard_deviation; mean and standard_deviation have one entry, or one a
/// channel.
struct Normalize {
  double scale = 1.0;
  std::vector<double> mean;                // empty: 0
  std::vector<double> standard_deviation;  // empty: 1
  bool automatic = false;                  // those of the training set, which are not known yet
  bool operator==(const Normalize&) const = default;

  /// Back to the stored value.
  double restored(double value, std::size_t channel) const {
    const auto of = [channel](const std::vector<double>& values, double none) {
      return values.empty() ? none : values[values.size() == 1 ? 0 : channel];
    };
    return (value * of(standard_deviation, 1) + of(mean, 0)) / scale;
  }
};

/// Where an input, a target or a weight of the model comes from, and what is done to its values.
struct PortConfig {
  std::string key;      // HDF5 path; empty: the data set of the port's name; of `input` and `target` a usual name
  std::string offsets;  // HDF5 path of where each sample begins in `key`, and the last one ends; empty: a row a sample
  StoredLayout layout = StoredLayout::unknown;
  Normalize normalize;                // inputs and targets of numbers
  std::vector<Augmentation> augment;  // inputs, in training only; each kind at most once
  std::string follow;                 // the input whose geometric changes this one takes, too
};
/// The same of evaluation's files: what is not empty replaces what training reads.
struct EvalPortConfig {
  std::string key, offsets;
  StoredLayout layout = StoredLayout::unknown;
};
struct EvalConfig {
  std::vector<std::string> files;  // may be empty: no evaluation
  Named<EvalPortConfig> inputs, targets, weights;
};

struct DataConfig {
  std::vector<std::string> train;  // files or globs; several are shards, in this order
  EvalConfig eval;
  TextConfig text;  // with a length: all files are files of tokens, and what follows says nothing of them
  // The short form for a model of one input and one target; empty keys: detect.
  std::string sample_key, target_key;
  Normalize normalize;
  std::vector<Augmentation> augment;
  Mix mix;  // in training, of a model of one input of numbers and one label a sample
  // By the model's names, in place of the short form.
  Named<PortConfig> inputs, targets, weights;
  bool shuffle = true;
  int prefetch_threads = 1;
  int prefetch_batches = 4;        // ring of micro batches
  std::int64_t open_files = 0;     // of a set that a rank has open at a time; 0: a quarter of what the system allows
  double cache_mib = 1024;         // a rank keeps the whole set in memory if it is not larger than this; 0: never
  double device_cache_mib = 4096;  // the same of a GPU's memory, for sets of bytes
};

/// What the configuration says of this input, target or weight of the model, for training or for evaluation. Where it
/// says nothing, a port reads the data set of its name.
PortConfig port_config(const DataConfig&, PortUse, const std::string& name, bool evaluation);

/// Where the configuration says how this input or target is normalized, which it does.
Normalize& normalize_of(DataConfig&, PortUse, const std::string& name);

/// What is wrong with the names of a data section for a model with these inputs, targets and weights (whose graph may
/// have more of them): unknown names, with the nearest, short forms where several could be meant, and settings that
/// would do nothing.
struct PortNames {
  std::vector<std::string> inputs, targets, weights;
  std::vector<std::string> index_inputs{}, label_targets{};  // those of integers
};
struct PortProblem {
  std::string field, text;  // "data.inputs.wrods", the message
};
std::vector<PortProblem> port_problems(const DataConfig&, const PortNames&);

}  // namespace dtrain::io
