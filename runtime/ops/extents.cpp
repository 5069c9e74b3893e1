#include "runtime/ops/extents.hpp"

#include <fmt/ranges.h>

namespace dtrain {

std::string Extents::str() const {
  return fmt::format("[{}]", fmt::join(*this, ", "));
}

}  // namespace dtrain
