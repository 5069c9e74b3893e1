#include <algorithm>

#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/device/device.hpp"
#include "runtime/tensor/bf16.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::size_t tile = 2048;  // floats: stays in the first-level cache from one addend to the next

void add_to(const float* __restrict a, float* __restrict sum, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) sum[i] = a[i] + sum[i];
}

template <class From, class To>
void convert(const void* from, void* to, std::size_t n) {
  const auto* __restrict a = static_cast<const From*>(from);
  auto* __restrict b = static_cast<To*>(to);
  for (std::size_t i = 0; i < n; ++i) b[i] = from_float<To>(to_float(a[i]));
}

}  // namespace

void CpuKernels::add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end,
                     Stream& stream) {
  stream.host(HostTask::of([=, threads = threads_] {
    parallel_chunks(static_cast<std::int64_t>(end - begin), static_cast<std::int64_t>(tile), threads,
                    [&](std::int64_t from, std::int64_t to) {
                      const std::size_t at = begin + static_cast<std::size_t>(from);
                      const auto n = static_cast<std::size_t>(to - from);
                      const float* last = parts.back();
                      if (last != out) std::copy_n(last + at, n, out + at);
                      for (std::size_t p = parts.size() - 1; p-- > 0;) add_to(parts[p] + at, out + at, n);
                    });
  }));
}

void CpuKernels::cast(Tensor from, Tensor to, Stream& stream) {
  const bool narrows = from.desc.dtype == DType::f32 && to.desc.dtype == DType::bf16;
  if (!narrows && (from.desc.dtype != DType::bf16 || to.desc.dtype != DType::f32))
    throw BugError("a cast of element types that nobody needs");
  stream.host(HostTask::of([narrows, a = from.data, b = to.data, n = static_cast<std::size_t>(from.elements())] {
    (narrows ? convert<float, Bf16> : convert<Bf16, float>)(a, b, n);
  }));
}

}  // namespace dtrain::cpu
