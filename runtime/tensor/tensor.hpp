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

/// Up to six extents, outermost first.
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
  /// "[64, 1, 28, 28]"
  std::string str() const;
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::int64_t, max_rank> extents_{};
  int rank_ = 0;
};

/// Everything about a tensor but its address. Dense and row-major: the order of the extents is the order in memory.
///
/// Values of a network are [batch, positions..., channels]: features [N, C], series [N, T, C], images [N, H, W, C],
/// volumes [N, D, H, W, C]. Index values (labels, tokens) are [batch, positions...], without channels.
struct TensorDesc {
  /// Of an image (or volume) that was flattened to [N, C * pixels] without a copy: memory is pixel by pixel, while the
  /// features are counted channel by channel, as PyTorch does. A dense layer absorbs it in its packed weights.
  struct Flattened {
    std::int64_t channels = 0, pixels = 0;  // zeros: not flattened, or the same both ways
    friend bool operator==(const Flattened&, const Flattened&) = default;
  };

  DType dtype = DType::f32;
  Shape shape;
  Flattened flattened{};

  std::int64_t elements() const noexcept { return shape.elements(); }
  std::size_t bytes() const noexcept { return static_cast<std::size_t>(elements()) * size_of(dtype); }
  bool is_flattened_image() const noexcept { return flattened.channels > 0; }
  bool is_index() const noexcept;
  std::int64_t batch() const { return shape[0]; }
  /// The innermost extent. Throws BugError for index values and for what has no batch before it.
  std::int64_t channels() const;
  /// Of one sample: 1 for features.
  std::int64_t positions() const { return rows() / batch(); }
  /// Batch x positions.
  std::int64_t rows() const { return is_index() ? elements() : elements() / channels(); }
  /// The shape of a sample as users write it: [features], [length, channels], [channels, height, width],
  /// [channels, depth, height, width].
  Shape sample() const;
  std::string sample_str() const { return sample().str(); }
  /// The value of `batch` samples of such a shape.
  static TensorDesc of_sample(DType, std::int64_t batch, std::span<const std::int64_t> sample);
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
