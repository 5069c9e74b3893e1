// The tokenizers and texts of tests/golden/tokenizers.json, and files that tests write of them.
// Values that the caller owns.
#pragma once

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/text/tokenizer_files.hpp"

namespace dtrain::io::testing {

using TokenizerJson = nlohmann::json;

inline const TokenizerJson& tokenizer_goldens() {
  static const TokenizerJson json = TokenizerJson::parse(std::ifstream("tests/golden/tokenizers.json"));
  return json;
}
inline TokenizerJson golden_definition(const std::string& name) {
  return tokenizer_goldens().at("tokenizers").at(name).at("definition");
}
inline std::unique_ptr<Tokenizer> golden_tokenizer(const std::string& name) {
  return tokenizer_of(golden_definition(name).dump(), name);
}
inline std::string golden_text(const std::string& name) {
  return tokenizer_goldens().at("texts").at(name).get<std::string>();
}
inline std::vector<TokenId> ids_in(const TokenizerJson& json) {
  return json.get<std::vector<TokenId>>();
}
inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

}  // namespace dtrain::io::testing
