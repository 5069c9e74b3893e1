// The number types of HDF5 files, and reading one stored number of a type that is known at run time.
// Free functions on bytes that the caller owns; the bytes need no alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace dtrain::io {

/// Number types a file may hold; big-endian ones are swapped while reading.
enum class StoredType : std::uint8_t { u8, i8, u16, i16, i32, i64, f32, f64 };
std::size_t size_of(StoredType) noexcept;
/// "uint8", "float32", ... as h5py prints them.
std::string_view name_of(StoredType) noexcept;

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
    case StoredType::i32:
      return f(std::int32_t{});
    case StoredType::i64:
      return f(std::int64_t{});
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
/// Integer types only.
inline std::int64_t stored_integer(StoredType type, const std::byte* at) {
  return stored_as<std::int64_t>(type, at);
}

}  // namespace dtrain::io
