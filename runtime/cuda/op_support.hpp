// What the host side of ops shares: element types, slots, where a kernel runs, and workspaces as the libraries want
// them. Free functions that own nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
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

/// A convolution that is_product, as a linear layer over pixels: images lie channels last.
std::unique_ptr<Kernel> make_product_conv(CudaContext&, const Conv&, const TensorDesc& in, const OpUse&);

/// The libraries want a workspace on a multiple of 256 bytes; a plan promises 64.
inline constexpr std::size_t workspace_alignment = 256;
inline std::size_t workspace_need(std::size_t bytes) {
  return bytes > 0 ? bytes + workspace_alignment : 0;
}
inline std::byte* workspace_of(const OpArgs& a) {
  auto* const begin = a.workspace.as<std::byte>();
  const std::size_t beyond = reinterpret_cast<std::uintptr_t>(begin) % workspace_alignment;
  return beyond == 0 ? begin : begin + (workspace_alignment - beyond);
}

inline std::size_t bytes_of(std::int64_t elements, DType dtype) {
  return static_cast<std::size_t>(elements) * size_of(dtype);
}

}  // namespace dtrain::cuda
