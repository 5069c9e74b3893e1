// Opens a tokenizer by what a user calls it: a name, a file, or a folder of a model.
// Free functions that read files once and own nothing afterwards.
#pragma once

#include <memory>
#include <string>

#include "io/text/tokenizer.hpp"

namespace dtrain::io {

/// `what`: "bytes"; "gpt2", whose files lie in data/gpt2 or in dtrain/gpt2 below the user's data folder; a file
/// tokenizer.json, vocab.json or encoder.json, merges.txt or vocab.bpe, or vocab.txt; or a folder that has them. Throws
/// DataError: not there (with what is needed), damaged, not supported.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& what);
/// From the definition that a Tokenizer gives.
std::unique_ptr<Tokenizer> tokenizer_of(const std::string& definition, const std::string& source);

}  // namespace dtrain::io
