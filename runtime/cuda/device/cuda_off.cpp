// Stands in for the CUDA device where the build has none.
#include "runtime/cuda/library/graph_check.hpp"
#include "runtime/device/device.hpp"
#include "runtime/device/libraries.hpp"

namespace dtrain {

namespace {
constexpr const char* reason =
    "this dtrain was built without CUDA; use device: cpu, or install CUDA, cuDNN and NCCL and configure with "
    "-DDTRAIN_CUDA=ON";
}

std::unique_ptr<Device> make_cuda_device(int, const CudaOptions&) {
  throw DeviceError(reason);
}

int cuda_device_count(std::string& why_none) noexcept {
  try {
    why_none = reason;
  } catch (...) {
    why_none.clear();
  }
  return 0;
}

std::vector<cuda::GraphSupport> cuda::check_graphs(const Graph&, const GpuDescription&, bool) {
  throw DeviceError(reason);
}

std::vector<Library> cuda_libraries() {
  return {{"CUDA", "", "not in this build"}, {"cuBLASLt", "", "not in this build"}, {"cuDNN", "", "not in this build"}};
}

std::vector<GpuIdentity> cuda_gpus() {
  return {};
}

}  // namespace dtrain
