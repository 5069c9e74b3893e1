// What the kernels of one CUDA device are prepared with: which GPU it is and how wide.
// Plain data that belongs to the device and outlives its kernels; vendor handles live in files of their own, and are
// made by the first kernel that wants one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "runtime/device/algorithm_choices.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::cuda {

class BlasLt;
class CudnnGraphs;

struct CudaContext {
  int ordinal = 0;
  std::string model;       // "NVIDIA H200"
  int architecture = 0;    // 90 for compute capability 9.0
  int processors = 1;      // streaming multiprocessors
  std::size_t shared = 0;  // bytes of shared memory that a block may ask for
  CudaOptions options{};
  AlgorithmChoices choices{};
  std::shared_ptr<BlasLt> blas{};
  std::shared_ptr<CudnnGraphs> cudnn{};
};

}  // namespace dtrain::cuda
