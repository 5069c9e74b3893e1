#include "io/hdf5/stored.hpp"

#include <array>

namespace dtrain::io {

std::size_t size_of(StoredType type) noexcept {
  switch (type) {
    case StoredType::u8:
    case StoredType::i8:
      return 1;
    case StoredType::u16:
    case StoredType::i16:
      return 2;
    case StoredType::i32:
    case StoredType::f32:
      return 4;
    case StoredType::i64:
    case StoredType::f64:
      return 8;
  }
  return 0;
}

std::string_view name_of(StoredType type) noexcept {
  static constexpr std::array<std::string_view, 8> names{"uint8", "int8",  "uint16",  "int16",
                                                         "int32", "int64", "float32", "float64"};
  return names[static_cast<std::size_t>(type)];
}

}  // namespace dtrain::io
