// What no single field of a configuration can tell: whether its settings suit each other.
// A function on the caller's thread; problems go to whoever knows where fields stand in the file.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "launch/config/config.hpp"

namespace dtrain::launch {

/// `has_model`: there is a section `model`. `sound`: no problem was found at or below a path before. `problem`: is told
/// of each, with the field where it lies.
void check_config(const RunConfig&, bool has_model, const std::function<bool(std::string_view)>& sound,
                  const std::function<void(const std::string& field, const std::string& text)>& problem);

}  // namespace dtrain::launch
