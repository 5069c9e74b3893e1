// The ports of a model: which data it reads for its inputs, the targets of its losses and their weights.
// Plain values and pure functions; build() makes them inputs of the Graph in the same order, and launch/ opens data
// sets for them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/model/config.hpp"
#include "runtime/graph/graph.hpp"

namespace dtrain::models {

/// What data sets say of the ports, where they are known.
struct StoredPorts {
  using Name = std::pair<PortUse, std::string>;
  std::map<Name, DType> index_types;  // of index values; where nothing is said: i32
  std::set<Name> by_position;         // weights of data with one a position, and targets of ragged rows
  bool mixed = false;                 // samples are mixed in pairs: each has two labels, with a weight each
};

struct Port {
  std::string name;  // of the graph's input
  PortUse use = PortUse::input;
  std::string data;      // its name in data.inputs, targets or weights; empty: a weight of 1 for each sample
  bool indices = false;  // labels, tokens: integers, as they are stored
  std::optional<std::int64_t> ignore{};  // of labels
  // Of weights: to which target they belong, as index of the port, and what it makes of them. -1: to no one.
  int target = -1;
  std::vector<double> class_weights{};
  bool by_position = false;  // one a position of the target; else one a sample
};

/// A loss with its ports, as indices.
struct PortLoss {
  ModelLoss loss;
  int target = -1, weight = -1;
  bool counted = false;  // the sum of its weights differs from step to step
};

struct Ports {
  std::vector<Port> all;  // inputs, then targets, then weights
  std::vector<PortLoss> losses;
};

/// Throws ShapeError where two losses read one target in different ways.
Ports ports_of(const ModelConfig&, const StoredPorts& = {});

}  // namespace dtrain::models
