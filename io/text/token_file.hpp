// The HDF5 file of tokens that `data import text` makes: its names, and what it says of itself.
// Free functions on an open file, whose content is trusted in nothing; values belong to the caller.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "io/hdf5/hdf5.hpp"
#include "io/text/tokenizer.hpp"

namespace dtrain::io {

namespace token_file {
inline constexpr const char* tokens = "tokens";             // uint16 or uint32 [tokens], one document after another
inline constexpr const char* offsets = "document_offsets";  // int64 [documents + 1], from 0 to the number of tokens
inline constexpr const char* tokenizer = "tokenizer";       // uint8: its definition; also the name, as an attribute
inline constexpr const char* tokenizer_hash = "tokenizer_hash";    // attribute of the tokens, as what follows
inline constexpr const char* vocabulary = "vocabulary";            // the number of ids
inline constexpr const char* end_of_document = "end_of_document";  // the id behind each document
inline constexpr const char* text_bytes = "text_bytes";            // of the documents, as they were encoded
}  // namespace token_file

struct TokenFile {
  h5::DatasetInfo tokens, offsets;
  std::string tokenizer, tokenizer_hash;
  std::optional<double> text_bytes;  // files of older programs do not say it
};
/// Nothing where the file holds something else.
std::optional<TokenFile> find_tokens(const h5::File&);
/// The tokenizer whose definition the file holds. Throws DataError: none, damaged, or not the one of its tokens.
std::unique_ptr<Tokenizer> stored_tokenizer(const h5::File&, const TokenFile&);

struct Document {
  std::uint64_t tokens = 0;  // of all of it
  std::string begin;         // decoded
};
/// The first documents, of each up to `most_tokens` tokens. Throws DataError where offsets or ids are out of range.
std::vector<Document> first_documents(const TokenFile&, const std::string& path, const Tokenizer&,
                                      std::uint64_t documents, std::uint64_t most_tokens);

}  // namespace dtrain::io
