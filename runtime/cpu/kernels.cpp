#include "runtime/cpu/kernels.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> make_kernel(const OpSpec& op, std::span<const TensorDesc> in, int threads) {
  const auto* cast = std::get_if<Cast>(&op);
  const auto half = [](const TensorDesc& desc) { return desc.dtype == DType::f16; };
  if (std::any_of(in.begin(), in.end(), half) || (cast != nullptr && cast->to == DType::f16))
    throw DeviceError(fmt::format("{}: the cpu has no kernels in float16; use bfloat16 or float32", name_of(op)));
  return std::visit([&](const auto& o) { return make(o, in, threads); }, op);
}

}  // namespace dtrain::cpu
