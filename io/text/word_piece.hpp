// WordPiece as BERT uses it: text is cleaned and folded, split at blanks and punctuation, and each word is cut from its
// left into the longest pieces of the vocabulary.
// A WordPieceTokenizer owns its vocabulary and does not change; its encoders own a cache of words each.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/text/added_tokens.hpp"
#include "io/text/tokenizer_spec.hpp"

namespace dtrain::io {

class WordPieceTokenizer : public Tokenizer {
 public:
  /// Throws DataError that names `source`: no unknown token.
  WordPieceTokenizer(About, WordPieceSpec, std::vector<AddedToken>, const std::string& source);
  std::unique_ptr<Encoder> encoder(SpecialTokens) const override;
  /// Words with a blank between them, but none before most punctuation; folded text stays folded.
  std::string decode(std::span<const TokenId>) const override;
  std::string_view piece(TokenId) const override;

 private:
  class WordEncoder;
  using Pieces = std::unordered_map<std::string_view, TokenId>;

  WordPieceSpec spec_;
  std::vector<AddedToken> added_;
  TokenId unknown_ = 0;
  Pieces begins_, continues_;      // of spec_.vocabulary; the latter without their prefix
  std::size_t longest_piece_ = 0;  // in bytes
};

}  // namespace dtrain::io
