// What a tokenizer is, as data: read from files, written as one canonical text, and made into a Tokenizer.
// Plain values that the caller owns.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "io/text/pretokenize.hpp"
#include "io/text/tokenizer.hpp"

namespace dtrain::io {

/// A token that is found in text before anything else is done with it.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;
};

struct ByteLevelSpec {
  std::vector<std::string> vocabulary;         // by id, each byte written as one character; "": no token
  std::vector<std::array<TokenId, 2>> merges;  // the first come first
  bool whole_words_first = false;              // `ignore_merges`: a word that is a token is not merged
  bool digits_apart = false;                   // each digit is a word, before the rule
  SplitRule split = SplitRule::gpt2;
};

struct WordPieceSpec {
  std::vector<std::string> vocabulary;  // by id; "": no token
  std::string unknown = "[UNK]", continues = "##";
  std::uint32_t longest_word = 100;  // in characters; longer ones are unknown
  bool clean_text = true, chinese_apart = true, strip_accents = true, lowercase = true;
};

struct TokenizerSpec {
  std::variant<ByteLevelSpec, WordPieceSpec> model;
  std::vector<AddedToken> added;  // by id
  std::string post_processor;     // as JSON: what surrounds texts elsewhere; kept, and not applied
};

/// The one character that stands for a byte in vocabularies of byte-level BPE.
std::uint32_t character_of_byte(unsigned char) noexcept;
/// The bytes that a token of such a vocabulary stands for; false where it has other characters.
bool bytes_of_characters(std::string_view token, std::string& bytes);

/// Throws DataError that names `source` where the parts contradict one another.
std::unique_ptr<Tokenizer> make_tokenizer(TokenizerSpec, const std::string& source);
/// 256 bytes, and <|endoftext|> as id 256.
TokenizerSpec bytes_spec();

}  // namespace dtrain::io
