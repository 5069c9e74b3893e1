#include "models/families/mlp.hpp"

#include <cstddef>
#include <utility>

#include <fmt/format.h>

#include "models/families/layer_list.hpp"
#include "runtime/ops/kinds.hpp"

namespace dtrain::models {

TypePtr<Mlp> Mlp::table() {
  Table<Mlp> mlp("Dense layers, one behind the other; an image is flattened first.");
  mlp.add("widths", &Mlp::widths, list_of(at_least(1), "units of the hidden layers", 1), "units of each hidden layer")
      .required();
  mlp.add("activation", &Mlp::activation, activation_type(), "of the hidden layers");
  mlp.add("dropout", &Mlp::dropout, fraction(), "behind each hidden layer");
  mlp.add("classes", &Mlp::classes, class_count(), "outputs");
  return shared(std::move(mlp));
}

std::vector<Layer> Mlp::layers(std::span<const ModelInput> inputs) const {
  LayerList out;
  if (inputs[0].shape.size() > 1) out.add("flatten", Flatten{});
  for (std::size_t i = 0; i < widths.size(); ++i) {
    out.add(fmt::format("hidden{}", i + 1), Dense{.units = widths[i], .activation = activation});
    if (dropout > 0) out.add(fmt::format("dropout{}", i + 1), Dropout{dropout});
  }
  out.add("classifier", Dense{.units = classes});
  return out.take();
}

}  // namespace dtrain::models
