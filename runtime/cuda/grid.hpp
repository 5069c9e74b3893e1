// How own kernels are written and started: a kernel is a struct of its arguments whose call operator is what one thread
// does, with `threads` a block and Shared between them. The CUDA compiler makes it a kernel; a host compiler hands it
// to whoever runs blocks on the host, so that tests see the same source without a GPU.
#pragma once

#include <cstdint>

#include "runtime/random/index_math.hpp"
#include "runtime/random/rng.hpp"

// The CUDA compiler includes CUDA's header before any source.
#if !defined(__CUDACC__)
#include "runtime/cuda/host_grid.hpp"
#endif

namespace dtrain::cuda {

/// Where a kernel runs, and for which op: named where it fails.
struct Launch {
  void* stream = nullptr;  // cudaStream_t
  const char* op = "";
};

struct Nothing {};

inline constexpr unsigned warp_size = 32;

/// Throws DeviceError that names the op, unless `status` (cudaError_t) says that the kernel was enqueued.
void check_launch(const Launch&, int status);
/// Throws DeviceError unless a grid may have so many blocks: 1 to 2^31 - 1.
void check_blocks(const Launch&, std::int64_t blocks);

#if defined(__CUDACC__)

/// A thread of a block. Every thread of a warp takes part in a shuffle, and every one of a block in sync().
struct Thread {
  __device__ unsigned index() const { return threadIdx.x; }
  __device__ std::int64_t block() const { return blockIdx.x; }
  __device__ std::int64_t blocks() const { return gridDim.x; }
  __device__ void sync() const { __syncthreads(); }
  template <class T>
  __device__ T shuffle_xor(T value, unsigned mask) const {
    return __shfl_xor_sync(0xFFFFFFFFu, value, static_cast<int>(mask));
  }
};

template <class Body>
__global__ void __launch_bounds__(Body::threads, 1) run(const __grid_constant__ Body body) {
  __shared__ typename Body::Shared shared;
  Thread thread;
  body(thread, shared);
}

template <class Body>
void launch(const Launch& where, std::int64_t blocks, const Body& body) {
  check_blocks(where, blocks);
  void* arguments[] = {const_cast<Body*>(&body)};
  check_launch(where, cudaLaunchKernel(reinterpret_cast<const void*>(&run<Body>), dim3(static_cast<unsigned>(blocks)),
                                       dim3(Body::threads), arguments, 0, static_cast<cudaStream_t>(where.stream)));
}

#else

template <class Body>
void launch(const Launch& where, std::int64_t blocks, const Body& body) {
  check_blocks(where, blocks);
  const auto one = [](const void* arguments, Thread& thread, void* shared) {
    (*static_cast<const Body*>(arguments))(thread, *static_cast<typename Body::Shared*>(shared));
  };
  run_blocks(where.op, blocks, Body::threads, sizeof(typename Body::Shared), one, &body);
}

#endif

inline std::int64_t divide_up(std::int64_t n, std::int64_t by) {
  return (n + by - 1) / by;
}

}  // namespace dtrain::cuda
