// What loops over activations of either element type share: the choice of a type or an activation at preparation, and
// writes that overwrite or add. Templates that own nothing; what they make runs on the thread that calls it.
#pragma once

#include <memory>
#include <utility>

#include "runtime/ops/activation_math.hpp"
#include "runtime/ops/op.hpp"
#include "runtime/tensor/bf16.hpp"

namespace dtrain::cpu {

/// Elements a task of a loop over flat tensors, and of a block whose results wait in the first cache.
constexpr std::int64_t task_elements = 32 * 1024, block_elements = 512;

/// A kernel of class Of<T, ...> for the element type of `desc`.
template <template <class> class Of, class... Arguments>
std::unique_ptr<Kernel> make_for(DType dtype, Arguments&&... arguments) {
  if (dtype == DType::bf16) return std::make_unique<Of<Bf16>>(std::forward<Arguments>(arguments)...);
  return std::make_unique<Of<float>>(std::forward<Arguments>(arguments)...);
}

/// to[i] = value(i), or to[i] += value(i). What value reads may be `to` itself: each element is read before it is
/// written. A copy of `value`, so that no write can change what it holds.
template <class T, class Value>
void write_elements(T* to, std::int64_t begin, std::int64_t end, bool add, Value value) {
  if (add) {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = from_float<T>(to_float(to[i]) + value(i));
  } else {
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) to[i] = from_float<T>(value(i));
  }
}

/// Writes what waits in `values` as the slot says.
template <class T>
void write_slot(const GradSlot& slot, std::int64_t begin, std::int64_t end, const float* values) {
  if (slot.write == Write::none) return;
  write_elements(slot.grad.as<T>() + begin, 0, end - begin, slot.write == Write::accumulate,
                 [=](std::int64_t i) { return values[i]; });
}

}  // namespace dtrain::cpu
