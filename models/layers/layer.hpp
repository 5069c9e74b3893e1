// A layer of a model as users write it: an op with a name, and what it reads.
// Plain values; launch/ fills them from YAML, families make them, models/model turns them into a Graph.
#pragma once

#include <string>
#include <vector>

#include "runtime/ops/op.hpp"

namespace dtrain::models {

/// An `activation` of the op may be any: where no kernel applies it inside, it becomes a node of its own.
struct Layer {
  std::string name;  // empty: the kind with a number, "conv2d_1"
  OpSpec op;
  int line = 0;                     // where it stands in the file, for messages; 0: nowhere
  std::vector<std::string> from{};  // names of earlier layers or inputs; empty: the layer before
  std::string tie{};                // the earlier layer whose weight is its own, too; empty: none
};

}  // namespace dtrain::models
