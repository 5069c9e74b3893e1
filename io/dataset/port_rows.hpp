// The rows of one port over all files of a Dataset: where they lie, in memory or in the files; internal to io/.
// A PortRows owns its columns and what of them is in memory; after it is opened and loaded any thread may read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/dataset/dataset.hpp"
#include "io/hdf5/column.hpp"
#include "io/samples/text_samples.hpp"

namespace dtrain::io {

/// The files of a set as far as they are open, and their first rows: shared by all ports.
struct ShardList {
  std::vector<std::string> files;
  std::vector<std::uint64_t> first;  // row of each file, and the count of all rows at the end
  std::size_t shard_of(std::uint64_t row) const noexcept;
  std::uint64_t count() const noexcept { return first.empty() ? 0 : first.back(); }
};

class PortRows {
 public:
  explicit PortRows(const PortSource&);

  /// Takes the data set of the next file, whose path is given. `offsets`: null where it is not ragged. Returns its
  /// number of rows. Throws DataError where it differs from those before.
  std::uint64_t add(const std::string& path, const h5::DatasetInfo&, const h5::DatasetInfo* offsets,
                    const std::shared_ptr<OpenFiles>&, const ShardList& before, Description);
  /// The same of a part of samples of text, which have taken the file.
  void add(const TextSamples&, TextPart, Description);
  /// The labels of the file that was added last, if the port has labels.
  void read_labels(const ShardList&);

  /// After the last file, before rows are read: labels and columns get the numbers of `reference`, or, where it is
  /// null, of the file that names most. Returns what then holds for all. Throws DataError where names do not match.
  Description match(const Description* reference, const ShardList&);

  const DataPort& port() const noexcept { return port_; }
  const std::optional<std::int64_t>& ignore() const noexcept { return ignore_; }
  const std::vector<std::int32_t>& labels() const noexcept { return labels_; }
  /// Of all rows; what labels take does not count.
  double stored_bytes() const noexcept;
  /// Keeps the rows [begin, end) in memory.
  void load(const ShardList&, std::uint64_t begin, std::uint64_t end, int threads);
  Dataset::Row row(const ShardList&, std::uint64_t index, std::byte* scratch) const;
  /// Positions of a row.
  std::int64_t length(const ShardList&, std::uint64_t index) const noexcept;
  /// Rows of a file that are cheap to read together.
  std::uint64_t band_rows(std::size_t shard) const noexcept {
    return text_ != nullptr ? text_->band_samples(shard) : shards_[shard].values->band_rows();
  }
  bool has_rows() const noexcept { return !port_.labels; }
  std::string where(const ShardList&, std::uint64_t index) const;

 private:
  struct Shard {
    std::unique_ptr<Column> values;
    std::vector<std::uint64_t> offsets;  // ragged: [rows + 1], in positions
    std::ptrdiff_t memory = 0;           // ragged: where position 0 of the file would lie in memory_
    RowMap map;
  };
  void read_offsets(const std::string& path, const h5::DatasetInfo& offsets, std::uint64_t positions, Shard&);
  void map_labels(std::size_t shard, const ShardList&);
  /// Rows that were read, so many positions from the row `index` of the set on, in place.
  void map(std::size_t shard, std::byte* stored, std::uint64_t positions, const ShardList&, std::uint64_t index) const;
  [[noreturn]] void throw_unnamed(const ShardList&, std::uint64_t index, const std::string& label) const;

  DataPort port_;
  std::optional<std::int64_t> ignore_;
  const TextSamples* text_ = nullptr;  // in place of what follows
  std::vector<Shard> shards_;
  std::vector<Description> said_;  // by shard; until match()
  std::vector<std::int32_t> labels_;
  std::uint64_t kept_begin_ = 0, kept_end_ = 0;  // rows in memory
  std::vector<std::byte> memory_;
};

}  // namespace dtrain::io
