#include "io/hdf5/stored.hpp"

#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace dtrain::io {

Dims dims_of(const Shape& shape) {
  return {shape.extents().begin(), shape.extents().end()};
}

std::string text_of(std::span<const std::uint64_t> dims) {
  return fmt::format("[{}]", fmt::join(dims, ", "));
}

std::size_t size_of(StoredType type) noexcept {
  return with_stored_type(type, [](auto tag) { return sizeof tag; });
}

std::string_view name_of(StoredType type) noexcept {
  static constexpr std::array<std::string_view, 11> names{"uint8",  "int8",  "uint16",  "int16",   "uint32", "int32",
                                                          "uint64", "int64", "float16", "float32", "float64"};
  return names[static_cast<std::size_t>(type)];
}

bool is_float(StoredType type) noexcept {
  return with_stored_type(type, [](auto tag) { return stored_float<decltype(tag)>; });
}

std::string stored_text(StoredType type, const std::byte* at) {
  return with_stored_type(type, [at](auto value) {
    std::memcpy(&value, at, sizeof value);
    if constexpr (stored_float<decltype(value)>) {
      return fmt::format("{}", static_cast<double>(value));
    } else {
      return fmt::format("{}", value);
    }
  });
}

}  // namespace dtrain::io
