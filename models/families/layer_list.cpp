#include "models/families/layer_list.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::models {

Dense transformer_dense(std::int64_t units, double deviation) {
  return {.units = units, .init = {Init{Init::Kind::normal, deviation}, Init{Init::Kind::zeros}}};
}

void expect_heads(std::string_view family, std::int64_t width, std::int64_t heads) {
  if (width % heads != 0)
    throw ShapeError(
        fmt::format("{}: a width of {} and {} heads; expected heads that divide the width", family, width, heads));
}

bool has_input(std::span<const ModelInput> inputs, std::string_view name) {
  return std::any_of(inputs.begin(), inputs.end(), [&](const ModelInput& input) { return input.name == name; });
}

std::vector<std::string> with_documents(const std::string& layer, std::span<const ModelInput> inputs) {
  std::vector<std::string> from{layer};
  if (has_input(inputs, "documents")) from.emplace_back("documents");
  return from;
}

void add_class_names(Document& config, std::int64_t classes) {
  Document names = Document::map(), numbers = Document::map();
  for (std::int64_t i = 0; i < classes; ++i) {
    const std::string name = fmt::format("LABEL_{}", i);
    names.set(std::to_string(i), Document::string(name));
    numbers.set(name, Document::integer(i));
  }
  config.set("id2label", std::move(names)).set("label2id", std::move(numbers));
}

Conv square_conv(std::int64_t filters, std::int64_t kernel, std::int64_t stride, std::int64_t groups) {
  // Normal with the standard deviation that keeps the variance of gradients through a relu.
  const Init init{Init::Kind::normal, std::sqrt(2.0 / static_cast<double>(filters * kernel * kernel))};
  const std::int64_t padding = kernel / 2;
  return {.filters = filters,
          .kernel = {kernel, kernel},
          .stride = {stride, stride},
          .padding = {padding, padding},
          .bias = false,
          .groups = groups,
          .init = {.weight = init}};
}

TypePtr<std::int64_t> class_count() {
  return integer({1, std::int64_t{1} << 31});
}

}  // namespace dtrain::models
