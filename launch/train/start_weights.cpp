#include "launch/train/start_weights.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/config/document.hpp"
#include "runtime/optim/groups.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

void check_patterns(const std::vector<std::string>& patterns, const std::vector<io::StateTensor>& tensors) {
  std::vector<std::string> names;
  for (const auto& tensor : tensors) names.push_back(io::pytorch_name(tensor.name));
  for (const std::string& pattern : patterns) {
    if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return matches(pattern, name); })) continue;
    const std::string near = nearest_name(pattern, names);
    throw ConfigError(fmt::format(
        "model.initialize_from.skip: \"{}\" matches no parameter of the model; {}", pattern,
        near.empty() ? fmt::format("the first is \"{}\"", names.front()) : fmt::format("did you mean \"{}\"?", near)));
  }
}

}  // namespace

io::StartWeights take_start_weights(Group& group, const models::InitializeFrom& from, ModelState& model) {
  io::StartWeights weights;
  group.agree([&] {
    if (group.rank() != 0) return;
    auto tensors = model.loaded_tensors();
    std::erase_if(tensors,
                  [](const auto& t) { return !t.name.starts_with("param/") && !t.name.starts_with("state/"); });
    check_patterns(from.skip, tensors);
    weights = io::load_weights(from.path, tensors, [&](const std::string& name) {
      return std::none_of(from.skip.begin(), from.skip.end(), [&](const auto& p) { return matches(p, name); });
    });
  });
  model.push();
  model.restart_average();
  return weights;
}

std::vector<std::string> lines_of(const io::StartWeights& weights) {
  std::vector<std::string> lines{
      fmt::format("starts from the weights in {}: {} tensors", weights.source, weights.taken.size())};
  const auto add = [&](const std::vector<std::string>& names, const char* what) {
    constexpr std::size_t most = 8;
    if (names.empty()) return;
    const std::span<const std::string> shown(names.data(), std::min(most, names.size()));
    lines.push_back(
        fmt::format("{}: {}{}", what, fmt::join(shown, ", "),
                    names.size() > most ? fmt::format(" and {} more", names.size() - most) : std::string()));
  };
  add(weights.absent, "not in it, so initialized as in a new model");
  add(weights.other_shape, "of another shape, so initialized as in a new model");
  add(weights.unused, "in it, but not in this model");
  return lines;
}

}  // namespace dtrain::launch
