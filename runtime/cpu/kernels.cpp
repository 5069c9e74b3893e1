#include "runtime/cpu/kernels.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/device/device.hpp"
#include "runtime/input/image_load.hpp"
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

void CpuKernels::update(const UpdateRule& rule, const UpdateArgs& args, Stream& stream) {
  stream.host(HostTask::of([&rule, args, threads = threads_] { apply_update(rule, args, threads); }));
}

void CpuKernels::update_states(const StateUpdateArgs& args, Stream& stream) {
  stream.host(HostTask::of([args] { apply_state_update(args); }));
}

void CpuKernels::average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                         Stream& stream) {
  stream.host(HostTask::of([=, step = &step, threads = threads_] {
    if (step->nonfinite == 0) average_range(average, params, n, average_rate(decay, *step), threads);
  }));
}

void CpuKernels::sum_squares(const float* x, std::size_t n, double* partial, Stream& stream) {
  stream.host(HostTask::of([=, threads = threads_] { sum_squares_blocks(x, n, partial, threads); }));
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

void CpuKernels::load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) {
  stream.host(HostTask::of([&format, batch, threads = threads_] { cpu::load_images(format, batch, threads); }));
}

void CpuKernels::add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
                     Stream& stream) {
  stream.host(HostTask::of([=, threads = threads_] { add_parts(parts, out, begin, end, threads); }));
}

void CpuKernels::cast(Tensor from, Tensor to, Stream& stream) {
  stream.host(
      HostTask::of([a = from.data, a_type = from.desc.dtype, b = to.data, b_type = to.desc.dtype,
                    n = static_cast<std::size_t>(from.elements())] { cast_elements(a, a_type, b, b_type, n); }));
}

}  // namespace dtrain::cpu
