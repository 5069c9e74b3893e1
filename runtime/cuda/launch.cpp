#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runtime/cuda/grid.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

void check_launch(const Launch& where, int status) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what is not sticky is cleared
  throw DeviceError(fmt::format("{}: its CUDA kernel cannot be started: {}", where.op,
                                cudaGetErrorString(static_cast<cudaError_t>(status))));
}

}  // namespace dtrain::cuda
