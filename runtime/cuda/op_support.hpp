// What the host side of own kernels shares: element types, slots and where a kernel runs.
// Free functions that own nothing.
#pragma once

#include <string_view>

#include "runtime/cuda/kernels.hpp"
#include "runtime/cuda/op_kernels.hpp"
#include "runtime/device/device.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::cuda {

inline Element element_of(DType dtype) {
  if (dtype == DType::f32) return Element::f32;
  if (dtype == DType::bf16) return Element::bf16;
  if (dtype == DType::f16) return Element::f16;
  throw BugError("a CUDA kernel of own making for elements that are no floats");
}
inline Element element_of(const TensorDesc& desc) {
  return element_of(desc.dtype);
}

inline bool wanted(const GradSlot& slot) {
  return slot.write != Write::none;
}
inline Slot slot_of(const GradSlot& slot) {
  if (slot.write == Write::none) return {};
  return {slot.grad.data, slot.write == Write::accumulate ? Put::add : Put::overwrite};
}

/// `op` is a literal, or one of the names of op.hpp, which end in a zero as well.
inline Launch at(Stream& stream, std::string_view op) {
  return {stream.native(), op.data()};
}

inline Images images_of(const TensorDesc& desc) {
  return {desc.batch(), desc.positions(), desc.channels()};
}
/// A value as rows of channels.
inline Matrix matrix_of(const TensorDesc& desc) {
  return {desc.rows(), desc.channels()};
}

}  // namespace dtrain::cuda
