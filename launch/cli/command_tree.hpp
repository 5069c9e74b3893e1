// What a part of the command line needs of the tree that it hangs in.
// Functions that the tree lends; it outlives whoever takes them. Everything is on one thread.
#pragma once

#include <functional>
#include <string>

namespace CLI {  // NOLINT(readability-identifier-naming): CLI11 calls it so
class App;
}

namespace dtrain::launch {

/// The positional that takes settings. Newer CLI11 allows no "=" in a name; the help shows it as key=value.
inline constexpr const char* settings_argument = "settings";

struct CommandTree {
  /// A new command below `parent`; the examples stand first in its help.
  std::function<CLI::App*(CLI::App& parent, const std::string& name, const std::string& what,
                          const std::string& examples)>
      add;
  std::function<void(std::function<int()>)> act;       // what the chosen command will do
  std::function<void(const CLI::App*)> on_every_rank;  // of a launch, not on the first alone
};

}  // namespace dtrain::launch
