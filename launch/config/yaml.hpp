// YAML text -> Document, strictly: no anchors, aliases, tags, duplicate keys or second documents, and limits on size,
// depth and number of values that hold while the text is read.
// Pure; nothing of the YAML library is visible here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/config/document.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::launch {

struct YamlLimits {
  std::size_t bytes = 1 << 20;
  int depth = 32;
  int values = 10'000;
};

/// Problems (with places of this source) are appended; what could be read is returned, null where nothing could.
Document read_yaml(std::string_view text, int source, std::vector<FieldProblem>& problems, const YamlLimits& = {});

}  // namespace dtrain::launch
