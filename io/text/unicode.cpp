#include "io/text/unicode.hpp"

#include <array>

#include "io/text/unicode_tables.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint32_t classified = 0x34000;  // no letter and no number lies above
constexpr std::uint32_t a_byte = 4;            // holds so many classes, two bits each
constexpr CharacterRange space_rows[] = {{0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                         {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                         {0x205F, 0x205F}, {0x3000, 0x3000}};

constexpr auto make_classes() {
  std::array<std::uint8_t, classified / a_byte> packed{};
  const auto mark = [&packed](const auto& rows, CharacterClass as) {
    for (const CharacterRange& range : rows)
      for (std::uint32_t c = range.first; c <= range.last; ++c)
        packed[c / a_byte] =
            static_cast<std::uint8_t>(packed[c / a_byte] | static_cast<unsigned>(as) << c % a_byte * 2);
  };
  mark(letters_rows, CharacterClass::letter);
  mark(numbers_rows, CharacterClass::number);
  mark(space_rows, CharacterClass::space);
  return packed;
}
constexpr auto classes = make_classes();

}  // namespace

CharacterClass class_of(std::uint32_t code) noexcept {
  if (code >= classified) return CharacterClass::other;
  return static_cast<CharacterClass>(classes[code / a_byte] >> code % a_byte * 2 & 3);
}

bool is_white_space(std::uint32_t code) noexcept {
  return class_of(code) == CharacterClass::space;
}

void append_utf8(std::uint32_t code, std::string& to) {
  if (code < 0x80) {
    to += static_cast<char>(code);
    return;
  }
  const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  constexpr std::uint32_t first[] = {0, 0xC0, 0xE0, 0xF0};
  to += static_cast<char>(first[more] | code >> 6 * more);
  for (int i = more - 1; i >= 0; --i) to += static_cast<char>(0x80 | (code >> 6 * i & 0x3F));
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) noexcept {
  const char *at = text.data(), *const end = at + text.size();
  while (at < end) {
    if (static_cast<unsigned char>(*at) < 0x80) {
      ++at;
      continue;
    }
    const Character c = character_at(at, end);
    if (!c.valid) return static_cast<std::size_t>(at - text.data());
    at += c.bytes;
  }
  return std::nullopt;
}

}  // namespace dtrain::io
