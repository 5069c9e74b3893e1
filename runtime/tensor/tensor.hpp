// Shapes, element types and tensor views.
// A Tensor never owns its bytes: owners are Buffer, the arena of a Program and the flat ParameterStore; views live on
// any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "runtime/tensor/dtype.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

std::size_t size_of(DType) noexcept;
/// "float32", "bfloat16", ... as in configuration files and manifests.
std::string_view name_of(DType) noexcept;
/// Inverse of name_of; throws ConfigError.
DType dtype_from_name(std::string_view);

/// Up to six extents, outermost first. Logical order is NCHW whatever the memory order is.
class Shape {
 public:
  static constexpr int max_rank = 6;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const noexcept { return rank_; }
  std::int64_t operator[](int i) const noexcept { return extents_[static_cast<std::size_t>(i)]; }
  /// Product of the extents; 1 for rank 0.
  std::int64_t elements() const noexcept;
  std::span<const std::int64_t> extents() const noexcept { return {extents_.data(), static_cast<std::size_t>(rank_)}; }
  /// The same shape with another outermost extent (the batch).
  Shape with_batch(std::int64_t n) const;
  /// "[64, 1, 28, 28]"
  std::string str() const;
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, max_rank> extents_{};
  int rank_ = 0;
};

/// How a tensor lies in memory.
enum class Layout : std::uint8_t {
  plain,          // row-major in logical order
  channels_last,  // rank 4 only: logical NCHW, memory NHWC
  // Rank 2 [N, C*H*W] that was flattened from channels-last [N, C, H, W] without a copy: memory order is H, W, C,
  // logical order is C, H, W. `TensorDesc::origin` holds {C, H, W}. Linear absorbs it in its packed weights.
  flattened_channels_last,
};

/// Everything about a tensor but its address. Dense: no strides, no padding.
struct TensorDesc {
  DType dtype = DType::f32;
  Shape shape;
  Layout layout = Layout::plain;
  std::array<std::int64_t, 3> origin{};  // {C, H, W} of a flattened_channels_last tensor, else zeros

  std::int64_t elements() const noexcept { return shape.elements(); }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(elements()) * size_of(dtype); }
  friend bool operator==(const TensorDesc&, const TensorDesc&) = default;
};

/// A view: description and address. `data` may be null where a slot is unused.
struct Tensor {
  TensorDesc desc;
  void* data = nullptr;

  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
  std::size_t bytes() const noexcept { return desc.bytes(); }
  std::int64_t elements() const noexcept { return desc.elements(); }
  explicit operator bool() const noexcept { return data != nullptr; }
};

}  // namespace dtrain
