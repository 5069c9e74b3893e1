// How the rows of a new HDF5 file lie in it.
// Values only.
#pragma once

#include <cstdint>

namespace dtrain::io {

struct StorageOptions {
  std::uint64_t chunk_rows = 0;  // rows of a chunk; 0: contiguous, or (compressed) chunks of about 256 KiB
  int gzip = 0;                  // level 1 to 9; 0: as it is
};

}  // namespace dtrain::io
