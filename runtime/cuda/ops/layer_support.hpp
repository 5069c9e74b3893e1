// What the kernels share that go by libraries: workspaces as the libraries want them, and sizes.
// Free functions that own nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "runtime/cuda/op_support.hpp"

namespace dtrain::cuda {

inline bool wanted(std::span<const GradSlot> slots, std::size_t i) {
  return i < slots.size() && wanted(slots[i]);
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
