// What a benchmark says, for people and for scripts.
// A plain value.
#pragma once

#include <string>

namespace dtrain::launch {

struct BenchReport {
  std::string text, json;
};

}  // namespace dtrain::launch
