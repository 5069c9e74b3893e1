// What CUDA and cuDNN say of themselves, and the GPUs that are here.
#include "runtime/device/libraries.hpp"

#include <cstddef>
#include <span>

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>
#include <fmt/format.h>

#include "runtime/device/device.hpp"

namespace dtrain {

namespace {

/// "GPU-8c2f2a5e-91b3-...": as nvidia-smi and CUDA_VISIBLE_DEVICES write it.
std::string uuid_text(std::span<const std::byte> bytes) {
  std::string out = "GPU";
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += fmt::format("{:02x}", std::to_integer<unsigned>(bytes[i]));
  }
  return out;
}

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

std::vector<GpuIdentity> cuda_gpus() {
  std::vector<GpuIdentity> out;
  std::string why_none;
  const int count = cuda_device_count(why_none);
  for (int i = 0; i < count; ++i) {
    GpuIdentity& gpu = out.emplace_back();  // also where CUDA says nothing of it: places are ordinals
    cudaDeviceProp p{};
    char bus_id[32] = {};
    if (cudaGetDeviceProperties(&p, i) == cudaSuccess) {
      gpu.name = p.name;
      gpu.memory = p.totalGlobalMem;
      gpu.uuid = uuid_text(std::as_bytes(std::span(p.uuid.bytes)));
    }
    if (cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, i) == cudaSuccess) gpu.bus_id = bus_id;
    cudaGetLastError();
  }
  return out;
}

}  // namespace dtrain
