// What CUDA and cuDNN say of themselves, and the GPUs that are here.
#include "runtime/libraries.hpp"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/format.h>

#include "runtime/device.hpp"

namespace dtrain {

namespace {

std::string cuda_number(int v) {
  return fmt::format("{}.{}", v / 1000, v % 1000 / 10);
}

}  // namespace

std::vector<Library> cuda_libraries() {
  int runtime = 0, driver = 0;
  std::string version = "unknown", remark = "no driver";
  if (cudaRuntimeGetVersion(&runtime) == cudaSuccess) version = cuda_number(runtime);
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0)
    remark = fmt::format("the driver supports {}", cuda_number(driver));
  cudaGetLastError();
  const std::size_t v = cudnnGetVersion(), b = cublasLtGetVersion();
  return {{"CUDA", version, remark},
          {"cuBLASLt", fmt::format("{}.{}.{}", b / 10000, b / 100 % 100, b % 100), ""},
          {"cuDNN", fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100), ""}};
}

std::vector<std::string> cuda_devices() {
  std::vector<std::string> out;
  std::string why_none;
  for (int i = 0; i < cuda_device_count(why_none); ++i) {
    cudaDeviceProp p{};
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    out.push_back(fmt::format("{}, {:.1f} GiB", p.name, static_cast<double>(p.totalGlobalMem) / (1 << 30)));
  }
  return out;
}

}  // namespace dtrain
