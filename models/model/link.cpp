#include "models/model/link.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "models/model/build.hpp"
#include "runtime/config/document.hpp"

namespace dtrain::models {

namespace {

class Linker {
 public:
  Linker(std::span<const Layer> layers, std::span<const ModelInput> inputs) : inputs_(inputs) {
    for (const ModelInput& input : inputs_) input_names_.push_back(input.name);
    std::map<std::string, int, std::less<>> numbers;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string kind(name_of(layers[i].op));
      const int number = ++numbers[kind];
      linked_.push_back({&layers[i], layers[i].name.empty() ? fmt::format("{}_{}", kind, number) : layers[i].name, {}});
      const std::string& name = linked_.back().name;
      if (name == "input" || name == "loss" || input_index(name))
        throw LayerError(i, fmt::format("layer \"{0}\": {0} is the model's own name; expected another", name));
      if (!index_.emplace(name, i).second)
        throw LayerError(i, fmt::format("layer \"{}\": the name is taken by another layer", name));
    }
  }

  LinkedModel link(std::span<const ModelOutput> outputs, const Family& family) {
    for (std::size_t i = 0; i < linked_.size(); ++i) {
      if (linked_[i].layer->from.empty())
        linked_[i].from = {i == 0 ? Source{true, first_input(inputs_)} : Source{false, i - 1}};
      for (const std::string& name : linked_[i].layer->from) linked_[i].from.push_back(resolve(i, name, "from"));
      if (const std::string& tie = linked_[i].layer->tie; !tie.empty()) linked_[i].tie = tied(i, tie);
    }
    LinkedModel model;
    for (const ModelOutput& output : outputs) model.outputs.push_back(layer_of(output));
    check_read(model.outputs, family);
    model.layers = std::move(linked_);
    return model;
  }

 private:
  std::optional<std::size_t> input_index(const std::string& name) const {
    const auto it = std::find(input_names_.begin(), input_names_.end(), name);
    if (it == input_names_.end()) return std::nullopt;
    return static_cast<std::size_t>(it - input_names_.begin());
  }

  Source resolve(std::size_t i, const std::string& name, const char* field) const {
    if (const auto input = input_index(name)) return {true, *input};
    const auto it = index_.find(name);
    if (it == index_.end()) {
      std::vector<std::string> names = input_names_;
      for (std::size_t k = 0; k < linked_.size(); ++k)
        if (k != i) names.push_back(linked_[k].name);
      const std::string near = nearest_name(name, names);
      throw LayerError(i, fmt::format("layer {}: {}: there is no layer {}; expected {} or a layer before it{}",
                                      linked_[i].name, field, json_string(name), fmt::join(input_names_, ", "),
                                      near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    }
    if (it->second == i)
      throw LayerError(i, fmt::format("layer {}: {}: it reads itself; expected a layer before it", name, field));
    if (it->second > i) {
      throw LayerError(i, fmt::format("layer {}: {}: {} comes after it{}; expected a layer before it", linked_[i].name,
                                      field, name, reads(it->second, i) ? " and reads it: a cycle" : ""));
    }
    return {false, it->second};
  }

  int tied(std::size_t i, const std::string& name) const {
    const Source of = resolve(i, name, "tie");
    if (of.input)
      throw LayerError(i, fmt::format("layer {}: tie: {} is an input, which has no weight; expected a layer before it",
                                      linked_[i].name, name));
    return static_cast<int>(of.index);
  }

  std::size_t layer_of(const ModelOutput& output) const {
    if (output.layer.empty()) return linked_.size() - 1;
    if (const auto it = index_.find(output.layer); it != index_.end()) return it->second;
    std::vector<std::string> names;
    for (const Linked& layer : linked_) names.push_back(layer.name);
    const std::string near = nearest_name(output.layer, names);
    throw LayerError(linked_.size(),
                     fmt::format("output {}: there is no layer {}{}", output.name, json_string(output.layer),
                                 near.empty() ? "" : fmt::format("; did you mean {}?", near)));
  }

  void check_read(const std::vector<std::size_t>& outputs, const Family& family) const {
    std::vector<bool> read(linked_.size(), false), read_input(inputs_.size(), false);
    for (const Linked& layer : linked_)
      for (const Source& from : layer.from) (from.input ? read_input : read)[from.index] = true;
    for (const std::size_t output : outputs) read[output] = true;
    for (std::size_t i = 0; i < linked_.size(); ++i) {
      if (!read[i])
        throw LayerError(i, fmt::format("layer {}: nothing reads its output; expected its name in the `from` of a "
                                        "later layer{}",
                                        linked_[i].name, i + 1 == linked_.size() ? ", or in model.outputs" : ""));
    }
    for (std::size_t k = 0; k < inputs_.size(); ++k) {
      if (read_input[k]) continue;
      const std::string_view name = family_name(family), also = family_also_reads(family);
      const std::string why = name.empty()
                                  ? std::string("no layer reads it; expected its name in the `from` of a layer")
                                  : fmt::format("the family {} does not read it; expected the first input alone{}{}",
                                                name, also.empty() ? "" : ", or beside it an input named ", also);
      throw LayerError(linked_.size(), fmt::format("input {}: {}", inputs_[k].name, why));
    }
  }

  /// Whether a layer reads an earlier one, directly or through layers in between; names that do not resolve are no way.
  bool reads(std::size_t later, std::size_t earlier) const {
    std::vector<bool> reached(linked_.size(), false);
    reached[later] = true;
    for (std::size_t i = later; i > earlier; --i) {
      if (!reached[i]) continue;
      const std::vector<std::string>& from = linked_[i].layer->from;
      if (from.empty()) reached[i - 1] = true;
      for (const std::string& name : from)
        if (const auto it = index_.find(name); it != index_.end()) reached[it->second] = true;
    }
    return reached[earlier];
  }

  std::span<const ModelInput> inputs_;
  std::vector<std::string> input_names_;
  std::vector<Linked> linked_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace

LinkedModel link(std::span<const Layer> layers, std::span<const ModelInput> inputs,
                 std::span<const ModelOutput> outputs, const Family& family) {
  if (layers.empty()) throw ShapeError("the model has no layers");
  return Linker(layers, inputs).link(outputs, family);
}

}  // namespace dtrain::models
