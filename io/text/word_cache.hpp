// The ids of words that were seen lately: a table of fixed size, in which a newer word takes the place of an older one.
// A WordCache owns its memory and belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "io/text/tokenizer.hpp"

namespace dtrain::io {

class WordCache {
 public:
  static constexpr std::size_t most_ids = 6;
  static constexpr std::size_t middle = 16;  // bytes of a word but the first and the last eight
  static constexpr std::size_t longest = 2 * sizeof(std::uint64_t) + middle;

  /// One cache line. The first and the last eight bytes, which overlap in short words, and the length are the word.
  struct alignas(64) Line {
    std::uint64_t first = 0, last = 0;
    std::array<char, middle> between{};
    std::array<TokenId, most_ids> ids{};
    std::uint32_t bytes = 0, count = 0;
  };
  static_assert(sizeof(Line) == 64);

  struct Key {
    std::uint64_t first, last;
    std::size_t place;
  };
  /// Of a word of 1 to `longest` bytes.
  static Key key_of(std::string_view word) noexcept {
    const char* const at = word.data();
    const std::size_t n = word.size();
    Key key{0, 0, 0};
    if (n >= 8) {
      std::memcpy(&key.first, at, 8);
      std::memcpy(&key.last, at + n - 8, 8);
    } else if (n >= 4) {
      std::uint32_t a = 0, b = 0;
      std::memcpy(&a, at, 4);
      std::memcpy(&b, at + n - 4, 4);
      key.first = a | std::uint64_t{b} << 32;
    } else {
      const auto byte = [at](std::size_t i) { return static_cast<std::uint64_t>(static_cast<unsigned char>(at[i])); };
      key.first = byte(0) | byte(n / 2) << 8 | byte(n - 1) << 16;
    }
    constexpr std::uint64_t odd = 0x9E3779B97F4A7C15, other = 0xC2B2AE3D27D4EB4F;
    std::uint64_t mixed = (key.first ^ n) * odd ^ key.last * other;
    mixed ^= mixed >> 32;
    mixed *= odd;
    key.place = mixed >> (64 - bits);
    return key;
  }
  /// The line of the word, or null where it is not here.
  const Line* find(std::string_view word, const Key& key) const noexcept {
    const Line& line = lines_[key.place];
    if (line.first != key.first || line.last != key.last || line.bytes != word.size()) return nullptr;
    if (word.size() > 16 && std::memcmp(line.between.data(), word.data() + 8, word.size() - 16) != 0) return nullptr;
    return &line;
  }
  void put(std::string_view word, const Key& key, std::span<const TokenId> ids) noexcept {
    if (ids.size() > most_ids) return;
    Line& line = lines_[key.place];
    line.first = key.first;
    line.last = key.last;
    if (word.size() > 16) std::memcpy(line.between.data(), word.data() + 8, word.size() - 16);
    std::memcpy(line.ids.data(), ids.data(), ids.size_bytes());
    line.bytes = static_cast<std::uint32_t>(word.size());
    line.count = static_cast<std::uint32_t>(ids.size());
  }

 private:
  static constexpr int bits = 15;  // of the number of lines: 2 MiB
  std::vector<Line> lines_ = std::vector<Line>(std::size_t{1} << bits);
};

}  // namespace dtrain::io
