// An input of a model: what layers read beside each other.
// A plain value; launch/ fills it from YAML, families look at it, models/model makes an input of the Graph of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dtrain::models {

struct ModelInput {
  std::string name;
  std::vector<std::int64_t> shape;  // of a sample: see TensorDesc::sample(); of index values: their positions
  std::int64_t vocabulary = 0;      // > 0: index values (tokens, categories), which lie in [0, vocabulary)
  bool indices() const noexcept { return vocabulary > 0; }
};

}  // namespace dtrain::models
