#include "runtime/cuda/errors.hpp"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

namespace {

std::string version_text(int v) {
  return fmt::format("{}.{}", v / 1000, v % 1000 / 10);
}

}  // namespace

std::string error_text(int status, const char* what) {
  std::string text = fmt::format("{}: {}", what, cudaGetErrorString(static_cast<cudaError_t>(status)));
  if (status == cudaErrorNoKernelImageForDevice)
    text += "; this dtrain was built for other GPUs: configure with -DCMAKE_CUDA_ARCHITECTURES=native on this one";
  return text;
}

void check(int status, const char* what) {
  if (status != cudaSuccess) throw DeviceError(error_text(status, what));
}

std::string unsupported(int ordinal, const std::string& model, int architecture) {
  if (architecture >= least_architecture) return {};
  return fmt::format("GPU {} ({}) has compute capability {}.{}, and dtrain needs {}.{} or newer; use device: cpu",
                     ordinal, model, architecture / 10, architecture % 10, least_architecture / 10,
                     least_architecture % 10);
}

std::string no_device_text(int status, int driver, int runtime) {
  if (driver == 0) return "no NVIDIA driver is loaded";
  if (status == cudaErrorInsufficientDriver)
    return fmt::format("the NVIDIA driver supports CUDA {}, and this dtrain was built with {}: install a newer driver",
                       version_text(driver), version_text(runtime));
  if (status == cudaSuccess || status == cudaErrorNoDevice)
    return "there is a driver, but it shows no GPU: see nvidia-smi and CUDA_VISIBLE_DEVICES";
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

}  // namespace dtrain::cuda
