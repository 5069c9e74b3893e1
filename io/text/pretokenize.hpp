// Splits text into the words within which byte-level BPE merges, as the published regular expressions do.
// Functions on the caller's bytes without state; bytes that are no UTF-8 count as characters that are neither letter,
// number nor space.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "io/text/unicode.hpp"

namespace dtrain::io {

enum class SplitRule : std::uint8_t {
  none,    // the text is one word
  gpt2,    // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  llama3,  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
           // \s+(?!\S)|\s+
  qwen2,   // as llama3, but numbers one by one
};

namespace words {

/// Classes of ASCII characters; of other bytes `other`, which is not asked.
constexpr auto make_ascii() {
  std::array<CharacterClass, 256> classes{};
  for (unsigned c = 0; c < 128; ++c) {
    const unsigned lower = c | 0x20;
    if (lower >= 'a' && lower <= 'z') classes[c] = CharacterClass::letter;
    if (c >= '0' && c <= '9') classes[c] = CharacterClass::number;
    if (c == ' ' || (c >= 9 && c <= 13)) classes[c] = CharacterClass::space;
  }
  return classes;
}
inline constexpr auto ascii = make_ascii();

struct Next {
  CharacterClass kind;
  std::uint32_t bytes;
};
inline Next next_at(const char* at, const char* end) noexcept {
  const auto byte = static_cast<unsigned char>(*at);
  if (byte < 0x80) return {ascii[byte], 1};
  const Character c = character_at(at, end);
  return {c.valid ? class_of(c.code) : CharacterClass::other, c.bytes};
}
/// The end of the run of characters of this class.
inline const char* run_end(const char* at, const char* end, CharacterClass kind) noexcept {
  while (at < end) {
    const auto byte = static_cast<unsigned char>(*at);
    if (byte < 0x80) {
      if (ascii[byte] != kind) break;
      ++at;
      continue;
    }
    const Next next = next_at(at, end);
    if (next.kind != kind) break;
    at += next.bytes;
  }
  return at;
}
inline bool is_line_end(char c) noexcept {
  return c == '\r' || c == '\n';
}

/// The bytes of 's, 't, 're, 've, 'm, 'll or 'd at an apostrophe; 0 where none follows.
std::size_t contraction(const char* at, const char* end, bool any_case) noexcept;
/// The end of a word that begins with white space and no rule before takes: \s+(?!\S)|\s+
const char* space_end(const char* at, const char* end) noexcept;

inline const char* gpt2_end(const char* at, const char* end) noexcept {
  if (*at == '\'')
    if (const std::size_t bytes = contraction(at, end, false)) return at + bytes;
  const char* begin = at + (*at == ' ' && end - at > 1 ? 1 : 0);
  const Next next = next_at(begin, end);
  if (next.kind != CharacterClass::space) return run_end(begin + next.bytes, end, next.kind);
  return space_end(at, end);
}

template <int most_numbers>
const char* llama3_end(const char* at, const char* end) noexcept {
  if (*at == '\'')
    if (const std::size_t bytes = contraction(at, end, true)) return at + bytes;
  const Next first = next_at(at, end);
  if (first.kind == CharacterClass::letter) return run_end(at + first.bytes, end, first.kind);
  if (first.kind == CharacterClass::number) {
    at += first.bytes;
    for (int i = 1; i < most_numbers && at < end; ++i) {
      const Next next = next_at(at, end);
      if (next.kind != CharacterClass::number) break;
      at += next.bytes;
    }
    return at;
  }
  const char* const second = at + first.bytes;
  if (second < end && !is_line_end(*at)) {
    const Next next = next_at(second, end);
    if (next.kind == CharacterClass::letter) return run_end(second + next.bytes, end, next.kind);
  }
  const char* const mark = at + (*at == ' ' && second < end ? 1 : 0);
  if (next_at(mark, end).kind == CharacterClass::other) {
    const char* last = run_end(mark, end, CharacterClass::other);
    while (last < end && is_line_end(*last)) ++last;
    return last;
  }
  const char* const blank = run_end(at, end, CharacterClass::space);
  for (const char* p = blank; p > at; --p)
    if (is_line_end(p[-1])) return p;
  return space_end(at, end);
}

}  // namespace words

/// Calls f(word) for each word of the text, in order; together they are the text.
template <class F>
void each_word(std::string_view text, SplitRule rule, F&& f) {
  const char *at = text.data(), *const end = at + text.size();
  const auto all = [&](auto word_end) {
    while (at < end) {
      const char* const last = word_end(at, end);
      f(std::string_view(at, static_cast<std::size_t>(last - at)));
      at = last;
    }
  };
  switch (rule) {
    case SplitRule::none:
      if (!text.empty()) f(text);
      break;
    case SplitRule::gpt2:
      all([](const char* a, const char* e) { return words::gpt2_end(a, e); });
      break;
    case SplitRule::llama3:
      all([](const char* a, const char* e) { return words::llama3_end<3>(a, e); });
      break;
    case SplitRule::qwen2:
      all([](const char* a, const char* e) { return words::llama3_end<1>(a, e); });
      break;
  }
}

}  // namespace dtrain::io
