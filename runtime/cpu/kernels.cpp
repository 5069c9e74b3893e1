#include "runtime/cpu/kernels.hpp"

#include "runtime/error.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> make_kernel(const OpSpec&, std::span<const TensorDesc>, int) {
  throw DeviceError("the cpu kernels are not there yet");
}

void apply_update(const UpdateRule&, const UpdateArgs&, int) {
  throw DeviceError("the cpu updates are not there yet");
}

}  // namespace dtrain::cpu
