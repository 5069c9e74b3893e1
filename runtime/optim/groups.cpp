#include "runtime/optim/groups.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fnmatch.h>

#include "runtime/config/document.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

bool matches(const std::string& pattern, const std::string& name) noexcept {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}
bool matches(const ParameterGroup& group, const std::string& parameter) noexcept {
  return matches(group.match, parameter);
}

namespace {

/// For a pattern without a name: the parameter that it may mean.
std::string hint(const ParameterGroup& group, const std::vector<std::string>& names) {
  const std::string near = nearest_name(group.match, names);
  if (!near.empty()) return fmt::format("did you mean \"{}\"?", near);
  // The layers that a pattern such as "layr4*" may mean: their names are what is in front of the last dot.
  std::vector<std::string> layers;
  for (const std::string& name : names) layers.push_back(name.substr(0, name.rfind('.')));
  const std::string layer = nearest_name(group.match.substr(0, group.match.find_first_of("*?[")), layers);
  if (!layer.empty()) return fmt::format("did you mean \"{}.*\"?", layer);
  return fmt::format("the first parameter is \"{}\"; dtrain check lists all layers", names.front());
}

/// A batch norm is named as its weight is. The last group that matches a weight decides here, too.
void freeze_statistics(Graph& graph, std::span<const ParameterGroup> groups, const std::vector<std::string>& names) {
  std::vector<bool> matched(groups.size());
  for (const std::string& name : names) {
    if (!name.ends_with(".weight")) continue;
    const auto last = std::find_if(groups.rbegin(), groups.rend(), [&](const auto& g) { return matches(g, name); });
    if (last == groups.rend() || !last->frozen_statistics) continue;
    if (graph.freeze_statistics(name.substr(0, name.rfind('.'))))
      matched[static_cast<std::size_t>(groups.rend() - last) - 1] = true;
  }
  for (std::size_t g = 0; g < groups.size(); ++g)
    if (groups[g].frozen_statistics && !matched[g])
      throw ConfigError(
          fmt::format("optimizer.groups.{}.statistics: frozen, but \"{}\" decides on the weight of no batch norm; "
                      "expected a pattern "
                      "such as \"bn*\", and no later group that matches the same weights",
                      g, groups[g].match));
}

}  // namespace

void apply_groups(Graph& graph, std::span<const ParameterGroup> groups) {
  if (groups.empty()) return;
  std::vector<std::string> names;
  std::vector<bool> fixed;  // by the model: no group makes it train
  for (const GraphParam& p : graph.params()) {
    names.push_back(p.name);
    fixed.push_back(p.update.frozen);
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const ParameterGroup& group = groups[g];
    bool found = false;
    for (std::size_t p = 0; p < names.size(); ++p) {
      if (!matches(group, names[p])) continue;
      found = true;
      graph.set_update(static_cast<ParamId>(p),
                       {group.frozen || fixed[p], group.learning_rate_factor, group.weight_decay});
    }
    if (!found && !names.empty())
      throw ConfigError(fmt::format("optimizer.groups.{}.match: \"{}\" matches no parameter of the model; {}", g,
                                    group.match, hint(group, names)));
  }
  freeze_statistics(graph, groups, names);
  if (graph.frozen_count() == graph.parameter_count())
    throw ConfigError("optimizer.groups: all parameters are frozen; expected some to train");
}

}  // namespace dtrain
