#include "runtime/optim/matrices.hpp"

#include <algorithm>
#include <variant>
#include <vector>

#include "runtime/graph/graph.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

namespace {

std::size_t index(std::int32_t id) {
  return static_cast<std::size_t>(id);
}

bool has_matrix(const Graph& graph, const GraphNode& node) {
  return std::any_of(node.params.begin(), node.params.end(),
                     [&](ParamId p) { return graph.params()[index(p)].shape.rank() >= 2; });
}

/// Is the weight of such a layer a matrix?
bool is_product(const GraphNode& node) {
  if (std::holds_alternative<Dense>(node.op)) return true;
  if (const auto* conv = std::get_if<Conv>(&node.op)) return conv->groups == 1;
  if (const auto* conv = std::get_if<ConvTranspose>(&node.op)) return conv->groups == 1;
  return false;
}

/// Rows of what the only reader of a layer's output takes apart.
std::vector<std::int64_t> parts_of(const Graph& graph, const GraphNode& node, std::int64_t rows) {
  const GraphNode* reader = nullptr;
  for (const GraphNode& other : graph.nodes()) {
    if (std::find(other.in.begin(), other.in.end(), node.out[0]) == other.in.end()) continue;
    if (reader != nullptr) return {rows};
    reader = &other;
  }
  if (reader == nullptr) return {rows};
  if (std::holds_alternative<Gated>(reader->op)) return {rows / 2, rows - rows / 2};
  const auto* attention = std::get_if<Attention>(&reader->op);
  if (attention == nullptr) return {rows};
  std::vector<TensorDesc> in;
  for (const ValueId v : reader->in) in.push_back(graph.desc(v));
  const AttentionLayout layout(*attention, in);
  if (layout.parts[2].input != layout.parts[0].input) return {rows};
  const std::int64_t keys = layout.kv_heads * layout.size;
  return {layout.heads * layout.size, keys, keys};
}

/// By node: does a layer with weights of two or more extents read what comes of its output?
std::vector<bool> followed(const Graph& graph) {
  std::vector<bool> leads(graph.values().size(), false), of(graph.nodes().size(), false);
  for (std::size_t n = graph.nodes().size(); n-- > 0;) {
    const GraphNode& node = graph.nodes()[n];
    of[n] = std::any_of(node.out.begin(), node.out.end(), [&](ValueId v) { return leads[index(v)]; });
    if (of[n] || has_matrix(graph, node))
      for (const ValueId v : node.in) leads[index(v)] = true;
  }
  return of;
}

bool wanted(const UpdateRule& rule, const GraphParam& param) {
  const auto last = std::find_if(rule.groups.rbegin(), rule.groups.rend(),
                                 [&](const ParameterGroup& group) { return matches(group, param.name); });
  return last == rule.groups.rend() || last->orthogonalize;
}

}  // namespace

void mark_matrices(Graph& graph, const UpdateRule& rule) {
  if (!std::holds_alternative<Muon>(rule.kind)) return;
  const std::vector<bool> hidden = followed(graph);
  bool any = false;
  for (std::size_t p = 0; p < graph.params().size(); ++p) {
    const GraphParam& param = graph.params()[p];
    const auto id = static_cast<ParamId>(p);
    if (param.shape.rank() < 2) continue;
    std::vector<std::int64_t> rows;
    bool matrix = true;
    for (std::size_t n = 0; n < graph.nodes().size(); ++n) {
      const GraphNode& node = graph.nodes()[n];
      if (std::find(node.params.begin(), node.params.end(), id) == node.params.end()) continue;
      matrix = matrix && is_product(node) && hidden[n];
      if (rows.empty()) rows = parts_of(graph, node, param.shape[0]);
    }
    if (!matrix || rows.empty()) continue;
    any = true;
    if (!param.update.frozen && wanted(rule, param)) graph.set_matrices(id, std::move(rows));
  }
  if (!any)
    throw ConfigError(
        "optimizer.muon: the model has no hidden matrix (a weight of a dense layer or a convolution, without groups, "
        "that "
        "another layer with weights follows); expected one; use adamw for this model");
}

MatrixPlaces::MatrixPlaces(std::int64_t rows, std::int64_t columns) noexcept {
  constexpr std::size_t alignment = 256;  // as libraries like it
  const auto place = [this](std::int64_t floats) {
    const std::size_t at = bytes;
    bytes += (static_cast<std::size_t>(floats) * sizeof(float) + alignment - 1) / alignment * alignment;
    return at;
  };
  const std::int64_t side = std::min(rows, columns);
  x = {place(rows * columns), place(rows * columns)};
  gram = place(side * side);
  square = place(side * side);
}

std::size_t matrix_scratch(const FlatLayout& layout) noexcept {
  std::size_t most = 0;
  for (const FlatParam& p : layout.trained())
    for (const std::int64_t rows : p.matrices)
      most = std::max(most, MatrixPlaces(rows, p.shape.elements() / p.shape[0]).bytes);
  return most;
}

}  // namespace dtrain
