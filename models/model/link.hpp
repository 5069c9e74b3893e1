// Who reads whom: layers in order, with their names resolved to inputs and layers before them.
// Pure functions over layers that outlive the result.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "models/model/config.hpp"

namespace dtrain::models {

/// An input of the model or a layer, by its index.
struct Source {
  bool input = false;
  std::size_t index = 0;
};

/// A layer with its name and what it reads.
struct Linked {
  const Layer* layer;
  std::string name;
  std::vector<Source> from;
  int tie = -1;  // the layer whose weight it uses
};

struct LinkedModel {
  std::vector<Linked> layers;
  std::vector<std::size_t> outputs;  // the layer of each
};

/// Every layer and every input is read, or a layer is an output. `family`: that the layers are of. Throws LayerError.
LinkedModel link(std::span<const Layer>, std::span<const ModelInput>, std::span<const ModelOutput>,
                 const Family& family = {});

}  // namespace dtrain::models
