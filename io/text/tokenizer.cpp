#include "io/text/tokenizer.hpp"

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<TokenId> ids;
  encoder(special)->encode(text, ids);
  return ids;
}

void Tokenizer::no_such_id(TokenId id) const {
  throw DataError(fmt::format("token {} is not in the vocabulary of {}, which has {} ids", id, name(), vocabulary()));
}

}  // namespace dtrain::io
