// The version of this build, as a constant string: "0.1.0+<commit>[-dirty]", or "0.1.0" where git was not at hand.
// The storage is static; any thread may call it at any time.
#pragma once

#include <string_view>

namespace dtrain {

std::string_view version() noexcept;

}  // namespace dtrain
