// In place of nccl.cpp where CUDA or NCCL is missing.
#include "comm/nccl/nccl.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

bool nccl_available() noexcept {
  return false;
}

std::string nccl_version() {
  return {};
}

std::unique_ptr<DeviceExchange> make_nccl_collective(Group&, Device&, const CommConfig&, LastResort) {
  throw DeviceError(
      "this dtrain was built without NCCL; use communication.transport: staged, or build it with "
      "-DDTRAIN_CUDA=ON");
}

}  // namespace dtrain::comm
