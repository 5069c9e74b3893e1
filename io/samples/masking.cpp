#include "io/samples/masking.hpp"

#include <algorithm>
#include <variant>

#include <fmt/format.h>

#include "io/text/tokenizer_json.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// WordPiece marks what continues a word; a byte-level token that begins one begins with its blank.
std::vector<bool> continuing(const TokenizerSpec& spec, TokenId vocabulary) {
  std::vector<bool> continues(vocabulary);
  const auto fill = [&](const std::vector<std::string>& pieces, auto continued) {
    for (std::size_t id = 0; id < pieces.size() && id < continues.size(); ++id) continues[id] = continued(pieces[id]);
  };
  if (const auto* words = std::get_if<WordPieceSpec>(&spec.model)) {
    fill(words->vocabulary, [words](const std::string& piece) { return piece.starts_with(words->continues); });
  } else {
    fill(std::get<ByteLevelSpec>(spec.model).vocabulary, [bytes = std::string()](const std::string& piece) mutable {
      bytes.clear();
      return bytes_of_characters(piece, bytes) && !bytes.empty() && static_cast<unsigned char>(bytes[0]) > ' ';
    });
  }
  for (const AddedToken& token : spec.added) continues.at(token.id) = false;
  return continues;
}

}  // namespace

MaskTokens MaskTokens::of(const Tokenizer& tokenizer, bool whole_words, const std::string& source) {
  const TokenizerSpec spec = tokenizer_from_text(tokenizer.definition(), source);
  const auto mask = std::find_if(spec.added.begin(), spec.added.end(), [](const AddedToken& token) {
    return token.content == "[MASK]" || token.content == "<mask>";
  });
  if (mask == spec.added.end())
    throw DataError(
        fmt::format("{}: its tokenizer ({}) has no token [MASK] or <mask>, which data.text.objective: masked "
                    "needs; import the text with a tokenizer that has one, such as BERT's",
                    source, tokenizer.name()));
  MaskTokens tokens{mask->id, whole_words, std::vector<bool>(tokenizer.vocabulary()), {}};
  if (whole_words) tokens.continues = continuing(spec, tokenizer.vocabulary());
  for (const AddedToken& token : spec.added) tokens.special.at(token.id) = token.special;
  tokens.special.at(mask->id) = true;
  return tokens;
}

TokenId Masking::seen(TokenId id, const Random4& draw) const noexcept {
  const auto choice = static_cast<double>(to_unit(draw.v[1]));
  if (choice < replaced) return tokens_.mask;
  if (choice >= replaced + random) return id;
  return static_cast<TokenId>(static_cast<std::uint64_t>(draw.v[2]) * tokens_.special.size() >> 32);
}

}  // namespace dtrain::io
