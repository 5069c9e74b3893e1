// Named<T>: values by name, in the order in which a configuration gives them.
// Plain values, owned by whoever holds them; for any thread.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dtrain {

template <class T>
using Named = std::vector<std::pair<std::string, T>>;

/// The value of that name, or null.
template <class T>
const T* find_named(const Named<T>& values, std::string_view name) {
  const auto at = std::find_if(values.begin(), values.end(), [name](const auto& value) { return value.first == name; });
  return at == values.end() ? nullptr : &at->second;
}

}  // namespace dtrain
