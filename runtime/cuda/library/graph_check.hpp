// Whether cuDNN supports what a model needs of it, asked for a GPU that need not be here.
// Pure functions; two definitions: with CUDA, and one in cuda_off.cpp that says there is none.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/graph/graph.hpp"

namespace dtrain::cuda {

/// A GPU that need not be here; an H100 or H200 by default.
struct GpuDescription {
  std::string name = "sm_90";
  int architecture = 90, processors = 132;
  std::size_t shared = 232448;  // bytes of shared memory that a block may opt in to
};

/// One cuDNN graph, named by its key, and the engines that support it. `fused`: those that apply a convolution's bias
/// and activation as well; an own pass does where there is none. Norms, pools and attention have own kernels, too.
struct GraphSupport {
  std::string key;
  std::size_t engines = 0, fused = 0;
  std::string favourite;  // of the bare graph
  bool supported() const noexcept { return engines > 0; }
};

/// The distinct cuDNN graphs of a model's forward and backward pass. Throws DeviceError where nobody can tell.
std::vector<GraphSupport> check_graphs(const Graph&, const GpuDescription&, bool tf32);

}  // namespace dtrain::cuda
