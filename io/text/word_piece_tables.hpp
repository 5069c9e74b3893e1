// What BERT's normalizer and its splitting into words make of a character, as tables.
// Constants that word_piece_tables.cpp and word_piece_bare.cpp own.
#pragma once

#include <cstdint>
#include <span>

#include "io/text/unicode_tables.hpp"

namespace dtrain::io {

/// Every `step`th character of [first, last] becomes itself plus `add`.
struct CharacterMapping {
  std::uint32_t first, last, step;
  std::int32_t add;
};
/// A character that becomes several; zeros end a shorter sequence.
struct CharacterSequence {
  std::uint32_t from;
  std::uint32_t to[3];
};

struct CharacterPair {
  std::uint32_t from, to;
};

/// All in the order of their characters.
struct WordPieceTables {
  std::span<const CharacterRange> punctuation;      // words of their own
  std::span<const CharacterRange> removed;          // control characters and the like
  std::span<const CharacterRange> marks;            // accents: removed after decomposition
  std::span<const CharacterSequence> bare_several;  // what is left of a decomposed one without its accents
  std::span<const CharacterMapping> lower;
  std::span<const CharacterSequence> lower_several;
};
const WordPieceTables& word_piece_tables() noexcept;
/// One character that is left of a decomposed one without its accents.
std::span<const CharacterPair> word_piece_bare() noexcept;

}  // namespace dtrain::io
