// Tokenizers: bytes of text become token ids, and ids text again.
// A Tokenizer does not change once it is made, and any thread may use it. An Encoder belongs to one thread and owns
// what that thread keeps between texts; the Tokenizer that made it must outlive it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dtrain::io {

using TokenId = std::uint32_t;

/// What a special token's name in a text is: letters like any others, or the token. Added tokens that are not special,
/// runs of blanks say, are always tokens.
enum class SpecialTokens : std::uint8_t { as_text, as_tokens };

class Encoder {
 public:
  virtual ~Encoder() = default;
  /// Appends the ids of a text, which may be any bytes.
  virtual void encode(std::string_view text, std::vector<TokenId>& ids) = 0;
};

class Tokenizer {
 public:
  struct About {
    TokenId vocabulary = 0;
    std::optional<TokenId> end_of_text;
    std::string name, definition, hash;
    bool lines_apart = false;
  };
  virtual ~Tokenizer() = default;

  virtual std::unique_ptr<Encoder> encoder(SpecialTokens = SpecialTokens::as_text) const = 0;
  std::vector<TokenId> encode(std::string_view text, SpecialTokens = SpecialTokens::as_text) const;
  /// The text of ids. Byte-level tokenizers give the very bytes that were encoded. Throws DataError where an id is
  /// none of this vocabulary.
  virtual std::string decode(std::span<const TokenId>) const = 0;
  /// What one id stands for: bytes, which need not be whole characters; "##" begins what continues a word.
  virtual std::string_view piece(TokenId) const = 0;

  /// The number of ids: one more than the largest.
  TokenId vocabulary() const noexcept { return about_.vocabulary; }
  /// The token behind each document.
  std::optional<TokenId> end_of_text() const noexcept { return about_.end_of_text; }
  /// May a text be cut behind a line end, and its parts be encoded one by one? The ids are those of the whole if what
  /// is before the line end is no blank and what follows it is a letter.
  bool lines_apart() const noexcept { return about_.lines_apart; }
  /// "bytes", "gpt2", or the kind and the number of ids: "bpe-49152", "wordpiece-30522".
  const std::string& name() const noexcept { return about_.name; }
  /// All of it, as the text of a file tokenizer.json: equal for equal tokenizers, whatever files they were read from.
  const std::string& definition() const noexcept { return about_.definition; }
  /// XXH3-64 of the definition, 16 hexadecimal digits.
  const std::string& hash() const noexcept { return about_.hash; }

 protected:
  explicit Tokenizer(About about) : about_(std::move(about)) {}
  [[noreturn]] void no_such_id(TokenId) const;

 private:
  About about_;
};

}  // namespace dtrain::io
