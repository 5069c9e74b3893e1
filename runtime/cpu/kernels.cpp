#include "runtime/cpu/kernels.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/device/device.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

std::unique_ptr<Kernel> CpuKernels::prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse&) {
  const auto* cast = std::get_if<Cast>(&op);
  const auto half = [](const TensorDesc& desc) { return desc.dtype == DType::f16; };
  if (std::any_of(in.begin(), in.end(), half) || (cast != nullptr && cast->to == DType::f16))
    throw DeviceError(fmt::format("{}: the cpu has no kernels in float16; use bfloat16 or float32", name_of(op)));
  return std::visit([&](const auto& o) { return make(o, in, threads_); }, op);
}

void CpuKernels::finish_gradients(const GradientArgs& args, Stream& stream) {
  stream.host(HostTask::of([args] {
    if (!args.squares) return trust_gradients(*args.step);
    double sum = 0;
    std::uint32_t last = 0;
    for (std::size_t b = 0; b < args.blocks; ++b) {
      sum += args.squares[b];
      if (!std::isfinite(args.squares[b])) last = static_cast<std::uint32_t>(b);
    }
    judge_gradients(*args.step, sum, last, args.max_norm);
  }));
}

void CpuKernels::finish_step(const FinishArgs& args, Stream& stream) {
  stream.host(HostTask::of([args] { close_step(*args.step, args.sums, args.scaling, args.losses); }));
}

}  // namespace dtrain::cpu
