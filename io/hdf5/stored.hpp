// The number types of HDF5 files, and reading one stored number of a type that is known at run time.
// Free functions on bytes that the caller owns; the bytes need no alignment.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "runtime/tensor/f16.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::io {

/// Extents as files have them.
using Dims = std::vector<std::uint64_t>;
Dims dims_of(const Shape&);
/// "[64, 3]"
std::string text_of(std::span<const std::uint64_t> dims);

/// Number types a file may hold; big-endian ones are swapped while reading.
enum class StoredType : std::uint8_t { u8, i8, u16, i16, u32, i32, u64, i64, f16, f32, f64 };
std::size_t size_of(StoredType) noexcept;
/// "uint8", "float32", ... as h5py prints them.
std::string_view name_of(StoredType) noexcept;
bool is_float(StoredType) noexcept;

/// A float16 that computes as a float.
struct Half {
  F16 value{};
  Half() = default;
  explicit Half(std::int64_t v) : value(to_f16(static_cast<float>(v))) {}
  operator float() const { return to_float(value); }
};
template <class T>
inline constexpr bool stored_float = std::is_floating_point_v<T> || std::is_same_v<T, Half>;

/// Calls f with a value of the stored type's C++ type (a tag: its value is 0).
template <class F>
decltype(auto) with_stored_type(StoredType type, F&& f) {
  switch (type) {
    case StoredType::u8:
      return f(std::uint8_t{});
    case StoredType::i8:
      return f(std::int8_t{});
    case StoredType::u16:
      return f(std::uint16_t{});
    case StoredType::i16:
      return f(std::int16_t{});
    case StoredType::u32:
      return f(std::uint32_t{});
    case StoredType::i32:
      return f(std::int32_t{});
    case StoredType::u64:
      return f(std::uint64_t{});
    case StoredType::i64:
      return f(std::int64_t{});
    case StoredType::f16:
      return f(Half{});
    case StoredType::f32:
      return f(float{});
    case StoredType::f64:
      break;
  }
  return f(double{});
}

template <class To>
To stored_as(StoredType type, const std::byte* at) {
  return with_stored_type(type, [at](auto value) {
    std::memcpy(&value, at, sizeof value);
    return static_cast<To>(value);
  });
}
inline double stored_number(StoredType type, const std::byte* at) {
  return stored_as<double>(type, at);
}
/// As an integer, whatever its type; uint64 beyond int64 are the largest int64. Nothing where a float is no whole
/// number.
template <class T>
std::optional<std::int64_t> whole_number(T value) {
  if constexpr (stored_float<T>) {
    constexpr double exact = 0x1p53;
    const auto wide = static_cast<double>(value);
    if (!(wide >= -exact && wide <= exact) || wide != std::floor(wide)) return std::nullopt;
    return static_cast<std::int64_t>(wide);
  } else if constexpr (std::is_same_v<T, std::uint64_t>) {
    constexpr auto most = std::numeric_limits<std::int64_t>::max();
    return value > static_cast<std::uint64_t>(most) ? most : static_cast<std::int64_t>(value);
  } else {
    return static_cast<std::int64_t>(value);
  }
}
inline std::optional<std::int64_t> stored_whole(StoredType type, const std::byte* at) {
  return with_stored_type(type, [at](auto value) {
    std::memcpy(&value, at, sizeof value);
    return whole_number(value);
  });
}
/// As it stands in the file, for messages.
std::string stored_text(StoredType, const std::byte* at);

}  // namespace dtrain::io
