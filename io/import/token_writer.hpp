// The tokens of an import on their way into one HDF5 file, or into shards of which those that exist are kept.
// A TokenWriter owns an unnamed file beside the output, which holds tokens until their number is known, and the HDF5
// file that is being made; one thread at a time uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/hdf5/hdf5_writer.hpp"
#include "io/text/tokenizer.hpp"

namespace dtrain::io {

/// A byte and a line in the text of one of the files that are imported.
struct TextPlace {
  std::size_t file = 0;
  std::uint64_t byte = 0, line = 1;
};

class TokenWriter {
 public:
  /// `shard_tokens`: a shard ends where it has so many; 0: one file. `import`: one word that differs where the same
  /// shards would hold something else.
  TokenWriter(const Tokenizer&, std::string out, std::uint64_t shard_tokens, std::string import,
              std::span<const std::string> inputs);
  ~TokenWriter();
  TokenWriter(const TokenWriter&) = delete;
  TokenWriter& operator=(const TokenWriter&) = delete;

  StoredType type() const noexcept { return type_; }
  /// Behind what the shards that exist hold.
  const TextPlace& begin() const noexcept { return begin_; }
  /// Tokens as they are stored, how many of them there are up to each document's end, and the bytes of their text.
  void append(std::span<const std::byte> tokens, std::span<const std::uint64_t> ends, std::uint64_t text_bytes);
  /// No document goes on here, and the text behind it begins at `next`: a shard that is full ends.
  void cut(const TextPlace& next);
  /// Writes what is left, and removes shards of older imports. `next`: the end.
  void finish(const TextPlace& next);

  std::uint64_t tokens() const noexcept { return all_tokens_; }
  std::uint64_t documents() const noexcept { return all_documents_; }
  /// Files, those that were kept among them.
  std::size_t files() const noexcept { return index_; }
  std::size_t kept() const noexcept { return kept_; }
  std::string path(std::size_t shard) const;

 private:
  void find_shards();
  void open();
  void write(const TextPlace& next);
  void remove_others() const;
  void read(std::span<std::byte> to, std::uint64_t at) const;
  [[noreturn]] void spool_failed() const;

  const Tokenizer& tokenizer_;
  const std::string out_, import_;
  const std::uint64_t shard_tokens_;
  const std::span<const std::string> inputs_;
  const StoredType type_;
  TextPlace begin_;
  std::size_t index_ = 0, kept_ = 0;  // of the file that is being made
  std::uint64_t all_tokens_ = 0, all_documents_ = 0;
  int spool_ = -1;
  std::uint64_t spooled_ = 0, text_bytes_ = 0;  // bytes; of the text that they are made of
  std::vector<std::int64_t> offsets_{0};
  std::optional<h5::Writer> writer_;
};

}  // namespace dtrain::io
