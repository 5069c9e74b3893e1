// TextSamples: the samples that files of tokens hold, windows or packs of one length, and where each of them lies.
// It owns the columns, offsets and pack tables of its files and, once loaded, their tokens; afterwards any thread may
// read, and reading allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/hdf5/column.hpp"
#include "io/samples/config.hpp"
#include "io/samples/masking.hpp"
#include "io/samples/pack.hpp"

namespace dtrain::io {

class TextSamples {
 public:
  /// `apart`: the model reads documents, so that no label is of another document than its position. `ignore`: the label
  /// of positions that have none; needed where labels are read and `apart`, or tokens are masked.
  TextSamples(const TextConfig&, bool apart, std::optional<std::int64_t> ignore);

  /// Takes the next file; returns its number of samples, which may be 0. Throws DataError: no file of tokens, an empty
  /// one, damaged offsets, or, to mask tokens, a tokenizer without a mask token.
  std::uint64_t add(const h5::File&, const std::shared_ptr<OpenFiles>&);
  /// After the last file. Throws DataError where no file has enough tokens for a sample.
  void check_count() const;
  /// Keeps all tokens in memory.
  void load(int threads);
  double stored_bytes() const noexcept;

  std::int64_t length() const noexcept { return static_cast<std::int64_t>(length_); }
  /// Of the newest file.
  const h5::DatasetInfo& tokens() const noexcept { return shards_.back().tokens->info(); }
  StoredType type(TextPart) const noexcept;
  /// length() values of that type, in memory or in `scratch`, filled.
  const std::byte* row(TextPart, std::size_t shard, std::uint64_t sample, std::byte* scratch) const;
  /// Positions that hold a token; they come first.
  std::int64_t held(std::size_t shard, std::uint64_t sample) const noexcept;
  /// Samples of a file that are cheap to read together.
  std::uint64_t band_samples(std::size_t shard) const noexcept;
  /// "/tokens, window 3" or "/tokens, pack 3".
  std::string where(std::size_t shard, std::uint64_t sample) const;
  /// "/tokens, position 4711": of what a position of a sample reads.
  std::string where(TextPart, std::size_t shard, std::uint64_t sample, std::int64_t position) const;
  /// Throws DataError that names the first token in memory that is not below the limit.
  void check_tokens(std::int64_t limit) const;
  /// What is to be masked; null where nothing is.
  const MaskTokens* mask_tokens() const noexcept { return mask_tokens_ ? &*mask_tokens_ : nullptr; }
  /// Of lengths and documents: the same for the same samples of the same tokens.
  std::string digest() const;
  /// "1000 tokens of 2 documents in 15 windows of 64; the last 40 tokens are in none"
  std::string text() const;

 private:
  struct Shard {
    std::string path;
    std::unique_ptr<Column> tokens;
    std::vector<std::uint64_t> documents;  // offsets; where they matter
    std::optional<PackTable> packs;
    std::uint64_t samples = 0, document_count = 0;
    std::vector<std::byte> memory;
    std::uint64_t largest = 0;  // in memory
  };
  bool packed() const noexcept { return config_.packing == TextConfig::Packing::documents; }
  bool next_token() const noexcept { return config_.objective == TextConfig::Objective::next_token; }
  bool wide(TextPart part) const noexcept { return part == TextPart::labels && ignore_; }
  void read_documents(const std::string& path, const h5::DatasetInfo&, Shard&) const;
  const std::byte* read(const Shard&, std::uint64_t first, std::uint64_t count, std::byte* scratch) const;
  void widen(const Shard&, std::uint64_t first, std::uint64_t count, std::byte* out) const;
  const std::byte* window(TextPart, const Shard&, std::uint64_t first, std::byte* scratch) const;
  void pack_tokens(const Shard&, std::span<const Piece>, std::byte* out) const;
  void pack_labels(const Shard&, std::span<const Piece>, std::byte* out) const;
  void documents_of(const Shard&, std::uint64_t sample, std::int32_t* out) const;
  std::uint64_t place_of(TextPart, const Shard&, std::uint64_t sample, std::uint64_t position) const;

  const TextConfig config_;
  const std::uint64_t length_;
  const bool apart_;
  const std::optional<std::int64_t> ignore_;
  std::vector<Shard> shards_;
  StoredType type_ = StoredType::u16;
  std::size_t size_ = 0;  // of a token
  std::optional<MaskTokens> mask_tokens_;
};

}  // namespace dtrain::io
