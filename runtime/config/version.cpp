#include "runtime/config/version.hpp"

#include "runtime/version_string.hpp"

namespace dtrain {

std::string_view version() noexcept {
  return DTRAIN_VERSION_STRING;
}

}  // namespace dtrain
