// Reads and writes tokenizer.json, the format of Hugging Face's tokenizers.
// Free functions; what a file asks for and dtrain does not do is refused by name, so that ids are never almost right.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "io/text/tokenizer_spec.hpp"

namespace dtrain::io {

/// Throws DataError that names `source`.
nlohmann::json parse_json(std::string_view text, const std::string& source);
/// Throws DataError that names `source`: no JSON, damaged, or not supported.
TokenizerSpec tokenizer_from_text(std::string_view text, const std::string& source);
TokenizerSpec tokenizer_from_json(const nlohmann::json& all, const std::string& source);
/// One text for equal tokenizers; tokenizers reads it as well.
std::string to_json(const TokenizerSpec&);
/// What BERT puts around texts, as JSON, with the ids of [CLS] and [SEP].
std::string bert_post_processor(TokenId cls, TokenId sep);

}  // namespace dtrain::io
