// Extents: one number for each of up to three spatial dimensions, outermost first: of a window, a stride, an image.
// A plain value of fixed size; it owns nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace dtrain {

class Extents {
 public:
  static constexpr std::size_t most = 3;

  constexpr Extents() = default;
  constexpr Extents(std::initializer_list<std::int64_t> values) {
    for (const std::int64_t value : values) push_back(value);
  }
  /// `count` times the same.
  static constexpr Extents all(std::size_t count, std::int64_t value) {
    Extents e;
    for (std::size_t i = 0; i < count; ++i) e.push_back(value);
    return e;
  }

  constexpr void push_back(std::int64_t value) { values_.at(size_++) = value; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr std::int64_t operator[](std::size_t i) const noexcept { return values_[i]; }
  constexpr std::int64_t& operator[](std::size_t i) noexcept { return values_[i]; }
  constexpr const std::int64_t* begin() const noexcept { return values_.data(); }
  constexpr const std::int64_t* end() const noexcept { return values_.data() + size_; }
  constexpr std::int64_t product() const noexcept {
    std::int64_t n = 1;
    for (const std::int64_t value : *this) n *= value;
    return n;
  }
  /// "[3, 3]"
  std::string str() const;
  friend constexpr bool operator==(const Extents&, const Extents&) = default;

 private:
  std::array<std::int64_t, most> values_{};
  std::size_t size_ = 0;
};

}  // namespace dtrain
