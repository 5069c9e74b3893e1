#include "models/model/lora.hpp"

#include <algorithm>
#include <cstddef>
#include <variant>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "models/model/link.hpp"
#include "runtime/config/document.hpp"
#include "runtime/ops/kinds.hpp"
#include "runtime/optim/groups.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::models {

namespace {

/// Of a pattern that matches none of these: the one that it may mean, or the first ones.
std::string lora_hint(const std::string& pattern, std::span<const std::string> names) {
  constexpr std::size_t most = 4;
  if (names.empty()) return "the model has none";
  if (const std::string near = nearest_name(pattern, names); !near.empty())
    return fmt::format("did you mean {}?", json_string(near));
  return fmt::format("expected some of {}{}", fmt::join(names.first(std::min(most, names.size())), ", "),
                     names.size() > most ? ", ..." : "");
}

std::string_view layer_of_parameter(std::string_view name) {
  return name.substr(0, name.rfind('.'));
}

}  // namespace

bool is_adapter(std::string_view parameter) noexcept {
  const std::string_view layer = layer_of_parameter(parameter);
  return layer.ends_with(lora_a) || layer.ends_with(lora_b);
}

std::vector<bool> adapted_layers(const Lora& lora, std::span<const Linked> layers) {
  std::vector<bool> tied(layers.size(), false), adapted(layers.size(), false);
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (layers[i].tie >= 0) tied[i] = tied[static_cast<std::size_t>(layers[i].tie)] = true;
  const auto is_dense = [&](std::size_t i) { return std::holds_alternative<Dense>(layers[i].layer->op); };
  std::vector<std::string> names;
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (is_dense(i) && !tied[i]) names.push_back(layers[i].name);
  for (std::size_t t = 0; t < lora.targets.size(); ++t) {
    const std::string& pattern = lora.targets[t];
    bool found = false;
    std::string other;  // what it matches, and why that is not enough
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (!matches(pattern, layers[i].name)) continue;
      if (is_dense(i) && !tied[i])
        found = adapted[i] = true;
      else if (other.empty())
        other = is_dense(i) ? fmt::format("{}, which shares its weight with another layer", layers[i].name)
                            : fmt::format("{}, which is {}", layers[i].name, name_of(layers[i].layer->op));
    }
    if (found) continue;
    throw ConfigError(
        fmt::format("model.lora.targets.{}: {} matches {}; expected dense layers with weights of their "
                    "own; {}",
                    t, json_string(pattern), other.empty() ? "no layer" : other, lora_hint(pattern, names)));
  }
  return adapted;
}

std::vector<bool> trained_parameters(const Lora& lora, std::span<const std::string> parameters) {
  std::vector<bool> trained;
  std::vector<std::string> layers;
  for (const std::string& name : parameters) {
    trained.push_back(is_adapter(name));
    const std::string layer(layer_of_parameter(name));
    if (!trained.back() && (layers.empty() || layers.back() != layer)) layers.push_back(layer);
  }
  for (std::size_t m = 0; m < lora.modules_to_save.size(); ++m) {
    bool found = false;
    for (std::size_t p = 0; p < parameters.size(); ++p)
      if (matches(lora.modules_to_save[m], std::string(layer_of_parameter(parameters[p])))) found = trained[p] = true;
    if (!found)
      throw ConfigError(fmt::format("model.lora.modules_to_save.{}: {} matches no layer with parameters; {}", m,
                                    json_string(lora.modules_to_save[m]), lora_hint(lora.modules_to_save[m], layers)));
  }
  return trained;
}

void merge_adapter(std::span<float> weight, std::span<const float> a, std::span<const float> b, std::int64_t rank,
                   double factor) {
  const auto columns = a.size() / static_cast<std::size_t>(rank), rows = b.size() / static_cast<std::size_t>(rank);
  if (weight.size() != rows * columns) throw BugError("an adapter of another shape than its weight");
  std::vector<double> sum(columns);
  for (std::size_t u = 0; u < rows; ++u) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::size_t r = 0; r < static_cast<std::size_t>(rank); ++r) {
      const double left = factor * static_cast<double>(b[u * static_cast<std::size_t>(rank) + r]);
      for (std::size_t f = 0; f < columns; ++f) sum[f] += left * static_cast<double>(a[r * columns + f]);
    }
    for (std::size_t f = 0; f < columns; ++f)
      weight[u * columns + f] = static_cast<float>(static_cast<double>(weight[u * columns + f]) + sum[f]);
  }
}

TypePtr<Lora> lora_table() {
  Table<Lora> lora(
      "Low-rank adapters (Hu et al. 2021): the model's own parameters stay as they are, and only the adapters are "
      "trained and saved. Needs initialize_from.");
  lora.add("rank", &Lora::rank, at_least(1), "of each adapter: rows of its first matrix, columns of its second")
      .required();
  lora.add("alpha", &Lora::alpha, number({.least = 0, .above_least = true}),
           "an adapter's result is multiplied by alpha / rank");
  lora.add("targets", &Lora::targets, list_of(text(), "patterns", 1),
           "patterns of names of the dense layers that get one, such as \"h_*_attn_c_attn\"; \"*\": all")
      .required();
  lora.add("dropout", &Lora::dropout, fraction(), "of what an adapter reads");
  lora.add("modules_to_save", &Lora::modules_to_save, list_of(text(), "patterns", 1),
           "patterns of names of layers that are trained whole, and saved, such as a new head")
      .shown_if([](const Lora& l) { return !l.modules_to_save.empty(); });
  return shared(std::move(lora));
}

}  // namespace dtrain::models
