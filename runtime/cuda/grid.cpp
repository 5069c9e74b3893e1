#include "runtime/cuda/grid.hpp"

#include <limits>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

void check_blocks(const Launch& where, std::int64_t blocks) {
  if (blocks < 1 || blocks > std::numeric_limits<std::int32_t>::max())
    throw DeviceError(fmt::format("{}: a CUDA kernel of {} blocks; a grid has 1 to 2^31 - 1", where.op, blocks));
}

}  // namespace dtrain::cuda
