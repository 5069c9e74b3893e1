#include <algorithm>

#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/tensor/bf16.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::size_t tile = 2048;  // floats: stays in the first-level cache from one addend to the next

void add_to(const float* __restrict a, float* __restrict sum, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) sum[i] = a[i] + sum[i];
}

}  // namespace

void add_parts(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, int threads) {
  parallel_chunks(static_cast<std::int64_t>(end - begin), static_cast<std::int64_t>(tile), threads,
                  [&](std::int64_t from, std::int64_t to) {
                    const std::size_t at = begin + static_cast<std::size_t>(from);
                    const auto n = static_cast<std::size_t>(to - from);
                    const float* last = parts.back();
                    if (last != out) std::copy_n(last + at, n, out + at);
                    for (std::size_t p = parts.size() - 1; p-- > 0;) add_to(parts[p] + at, out + at, n);
                  });
}

void cast_elements(const void* from, DType from_type, void* to, DType to_type, std::size_t n) {
  if (from_type == DType::f32 && to_type == DType::bf16) {
    const auto* __restrict a = static_cast<const float*>(from);
    auto* __restrict b = static_cast<Bf16*>(to);
    for (std::size_t i = 0; i < n; ++i) b[i] = to_bf16(a[i]);
  } else if (from_type == DType::bf16 && to_type == DType::f32) {
    const auto* __restrict a = static_cast<const Bf16*>(from);
    auto* __restrict b = static_cast<float*>(to);
    for (std::size_t i = 0; i < n; ++i) b[i] = to_float(a[i]);
  } else {
    throw BugError("a cast of element types that nobody needs");
  }
}

}  // namespace dtrain::cpu
