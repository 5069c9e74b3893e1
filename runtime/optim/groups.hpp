// Groups of parameters by name, with a learning rate, a weight decay or no update of their own.
// Plain data of the optimizer's rule, and the function that writes what they say into a Graph before it is planned.
#pragma once

#include <optional>
#include <span>
#include <string>

namespace dtrain {

class Graph;

/// The parameters whose names match. Where several groups match a parameter, the last one decides, with all that it
/// says; what it does not say is as without groups.
struct ParameterGroup {
  std::string match;                        // "conv1.*": * is any text, ? any character, [ab] one of these
  double learning_rate_factor = 1;          // times the rate of the schedule
  std::optional<double> weight_decay = {};  // in place of the optimizer's; biases and norms stay spared
  bool frozen = false;                      // the parameters keep their values
  bool frozen_statistics = false;           // of batch norms whose weight matches: the running ones are used and stay
  bool orthogonalize = true;                // by Muon, where they are hidden matrices; false: AdamW updates them
};

bool matches(const std::string& pattern, const std::string& name) noexcept;
bool matches(const ParameterGroup&, const std::string& parameter) noexcept;

/// Gives each parameter of the graph what the last group that matches it says; what is frozen already stays so. Throws
/// ConfigError, with "optimizer.groups.N.match" or "...statistics" in front, where a group matches no parameter, where
/// it freezes statistics and matches no batch norm, and where all parameters are frozen.
void apply_groups(Graph&, std::span<const ParameterGroup>);

}  // namespace dtrain
