// UTF-8, and the classes of characters by which text is split into words.
// Free functions on constants; any bytes may be given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dtrain::io {

enum class CharacterClass : std::uint8_t { other, letter, number, space };

struct Character {
  std::uint32_t code = 0;
  std::uint32_t bytes = 1;  // that it takes
  bool valid = true;        // else `code` is a byte that begins no character
};

/// The first character of [at, end), which is not empty.
inline Character character_at(const char* at, const char* end) noexcept {
  const auto byte = [at](int i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(at[i])); };
  const auto follows = [&](int i) { return (byte(i) & 0xC0) == 0x80; };
  const std::uint32_t first = byte(0);
  const auto left = end - at;
  if (first < 0x80) return {first, 1, true};
  if (first >= 0xC2 && first < 0xE0 && left >= 2 && follows(1))
    return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2, true};
  if (first >= 0xE0 && first < 0xF0 && left >= 3 && follows(1) && follows(2)) {
    const std::uint32_t code = (first & 0xF) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    if (code >= 0x800 && (code < 0xD800 || code >= 0xE000)) return {code, 3, true};
  }
  if (first >= 0xF0 && first < 0xF5 && left >= 4 && follows(1) && follows(2) && follows(3)) {
    const std::uint32_t code = (first & 7) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    if (code >= 0x10000 && code < 0x110000) return {code, 4, true};
  }
  return {first, 1, false};
}

CharacterClass class_of(std::uint32_t code) noexcept;
/// The property White_Space, which is what regular expressions call \s.
bool is_white_space(std::uint32_t code) noexcept;
void append_utf8(std::uint32_t code, std::string& to);
/// Where the first byte lies that is no UTF-8; nothing where all is.
std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept;

}  // namespace dtrain::io
