// Byte-level BPE: words are bytes, which merge to tokens as far as the merges go; every byte is a token by itself.
// A ByteLevelTokenizer owns its tables and does not change; its encoders own a cache of words each.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/text/added_tokens.hpp"
#include "io/text/merge_table.hpp"
#include "io/text/tokenizer_spec.hpp"

namespace dtrain::io {

class ByteLevelTokenizer : public Tokenizer {
 public:
  /// Throws DataError that names `source`: a byte without a token, merges of what is no token.
  ByteLevelTokenizer(About, ByteLevelSpec, std::vector<AddedToken>, const std::string& source);
  std::unique_ptr<Encoder> encoder(SpecialTokens) const override;
  std::string decode(std::span<const TokenId>) const override;
  std::string_view piece(TokenId) const override;

 private:
  class WordEncoder;
  SplitRule split_;
  bool digits_apart_;
  std::vector<AddedToken> added_;
  std::vector<std::string> pieces_;  // by id, bytes
  std::vector<bool> known_;          // by id
  std::array<TokenId, 256> bytes_{};
  MergeTable merges_;
  std::unordered_map<std::string_view, TokenId> whole_;  // of pieces_; filled where whole words come first
};

}  // namespace dtrain::io
