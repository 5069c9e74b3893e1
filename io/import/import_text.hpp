// Makes an HDF5 file of tokens from text files.
// A function on the caller's thread, which reads; threads of its own encode. Memory is bounded by threads and by the
// longest document; an unnamed file beside the output holds the tokens until their number is known.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

namespace dtrain::io {

struct TextImportOptions {
  std::string tokenizer = "bytes";  // as open_tokenizer() takes it
  std::string key;                  // files are JSON lines, and this key of each line has its text
  enum class Document : std::uint8_t { line, file };
  std::optional<Document> document;  // none: a file, or with a key a line
  std::uint64_t shard_tokens = 0;    // a file ends, between documents, where it has so many; 0: one file
  int threads = 0;                   // that encode; 0: one a core
  /// Called on the caller's thread now and then: bytes of the files that were read, and all there are.
  std::function<void(std::uint64_t, std::uint64_t)> progress;
};

/// -> /tokens u16 (u32 where the vocabulary has more than 65,536 ids), /document_offsets i64 [documents + 1] and
/// /tokenizer; io/FORMAT.md has the details. Files may be compressed. Each document ends with the tokenizer's end of
/// text, if it has one; empty ones and blank lines are left out. The bytes of the file do not depend on the number of
/// threads. Shards of `out` WEB.h5 are WEB-00000.h5, ...; those that an interrupted import of the same files has
/// written are kept, and shards of another import that this one does not replace are removed. Returns what the command
/// prints. Throws DataError with file and line or byte: not UTF-8 (but with the tokenizer bytes), no JSON, no such key,
/// an empty file, output not writable; ConfigError for options.
std::string import_text(std::span<const std::string> files, const std::string& out, const TextImportOptions&);

}  // namespace dtrain::io
