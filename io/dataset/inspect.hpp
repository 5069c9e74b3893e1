// What an HDF5 file holds, for people (text) and scripts (JSON).
// A function on the caller's thread that owns nothing afterwards.
#pragma once

#include <string>

namespace dtrain::io {

struct Inspection {
  std::string text;  // several lines, newline at the end
  std::string json;  // one object: file, bytes, datasets: [{path, shape, dtype, chunks, filters, min, max, mean}],
                     // sample, target, count, classes: [n, ...], notes: [..]; of tokens also
                     // text: {tokens, documents, tokenizer, tokenizer_hash, vocabulary, begin: [text, ...]}
};

/// Data sets with shape, type, storage, and (up to 256 MiB) minimum, maximum and mean; what training would take as
/// samples and targets; the number of samples a class; of tokens how the first documents begin. Throws DataError.
Inspection inspect(const std::string& path);

}  // namespace dtrain::io
