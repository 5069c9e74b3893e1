// What families are written with: a list of layers that grows, and the convolutions of vision models.
// Values and pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/layers/input.hpp"
#include "models/layers/layer.hpp"
#include "runtime/config/document.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::models {

/// Layers that are added one by one; each `add` returns the name, for the `from` of later ones.
class LayerList {
 public:
  std::string add(std::string name, OpSpec op, std::vector<std::string> from = {}) {
    layers_.push_back({name, std::move(op), 0, std::move(from)});
    return name;
  }
  /// Its weight is that of an earlier layer.
  std::string add_tied(const std::string& name, OpSpec op, const std::string& to) {
    add(name, std::move(op));
    layers_.back().tie = to;
    return name;
  }
  const std::string& last() const { return layers_.back().name; }
  std::vector<Layer> take() { return std::move(layers_); }

 private:
  std::vector<Layer> layers_;
};

/// A square convolution with half its window as padding and without bias, its weights as He et al. 2015 (fan out).
Conv square_conv(std::int64_t filters, std::int64_t kernel, std::int64_t stride = 1, std::int64_t groups = 1);

/// The standard deviation with which weights of transformers begin (Radford et al. 2018).
inline constexpr double transformer_deviation = 0.02;
/// A dense layer of a transformer, whose bias begins as zeros.
Dense transformer_dense(std::int64_t units, double deviation = transformer_deviation);
/// Throws ShapeError unless heads divide the width.
void expect_heads(std::string_view family, std::int64_t width, std::int64_t heads);

bool has_input(std::span<const ModelInput>, std::string_view name);
/// What an attention (or a mean over a document) reads: `layer`, and the input `documents` where there is one.
std::vector<std::string> with_documents(const std::string& layer, std::span<const ModelInput>);

/// How Hugging Face's configurations name classes that have no names.
void add_class_names(Document& config, std::int64_t classes);

/// The field `classes`.
TypePtr<std::int64_t> class_count();

}  // namespace dtrain::models
