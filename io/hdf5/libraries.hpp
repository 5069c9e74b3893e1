// HDF5 and the compressors as `dtrain doctor` reports them.
// A free function that owns nothing.
#pragma once

#include <vector>

#include "runtime/device/libraries.hpp"

namespace dtrain::io {

std::vector<Library> io_libraries();

}  // namespace dtrain::io
