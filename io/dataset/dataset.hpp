// A Dataset is one logical set of samples in one or several HDF5 files, read row by row: a data set of the file (or of
// each shard) for each input, target and weight of a model.
// It owns its files and, for small sets, a copy of the stored bytes; after construction every method may be called from
// any thread, and reading a row allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/dataset/description.hpp"
#include "io/hdf5/stored.hpp"
#include "io/samples/config.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::io {

class TextSamples;

/// A data set of the file that gives one input of the model.
struct PortSource {
  std::string name;  // of the model's input, for messages
  PortUse use = PortUse::input;
  bool index = false;     // integers (tokens, categories, labels, label maps) that stay integers; else numbers
  std::string key{};      // HDF5 path; empty: /NAME, or where that is `input` or `target` one of the usual names
  std::string offsets{};  // HDF5 path of [rows + 1] offsets: the values of all samples lie one after another in `key`,
                          // sample i at [offsets[i], offsets[i + 1]); empty: a row a sample
  std::optional<std::int64_t> ignore{};  // of labels: this one may lie outside of every range
  TextPart text = TextPart::none;        // with DatasetOptions::text, in place of the paths
};

struct DatasetOptions {
  /// Empty: samples and, where the file has them, targets, both by their usual names; integers are labels.
  std::vector<PortSource> ports;
  double cache_mib = 1024;  // the whole set is kept in memory if it is not larger than this; 0: never
  /// Only these samples will be read again and again (evaluation): what is kept in memory. See part_begin.
  struct Part {
    int index = 0, count = 1;
    std::int64_t batch = 1;
  } part{};
  std::size_t open_files = 0;  // at a time; 0: a quarter of what the process may open
  bool evaluation = false;     // of a file with both halves, x_train and x_test or groups of these names, the second
  /// Of the set, or the checkpoint, that these samples meet: labels and columns are numbered as there, by their names.
  /// Without it, as in the file that names most of them.
  std::vector<Description> reference{};
  TextConfig text{};  // of files of tokens; with a length all ports are parts of their samples
};

/// A port as the files have it.
struct DataPort {
  std::string name;
  PortUse use = PortUse::input;
  bool index = false;
  std::string key, offsets;  // HDF5 paths in use
  StoredType type = StoredType::u8;
  Shape row;                     // extents of a row as stored, {} for single numbers; ragged: of one position of a row
  std::size_t row_bytes = 0;     // of that
  std::int64_t longest = 1;      // ragged: positions of the longest row
  bool labels = false;           // targets of one integer a sample, which were read and checked when the set was opened
  std::int64_t class_count = 0;  // of `labels`: the largest + 1
  StoredLayout layout = StoredLayout::unknown;  // as the files say
  bool mapped = false;                          // labels or columns are numbered in another way than in some file
  TextPart text = TextPart::none;               // of a sample of text, which is made of rows of `key`
  bool ragged() const noexcept { return !offsets.empty(); }
  /// Of what row() may need.
  std::size_t scratch_bytes() const noexcept { return row_bytes * static_cast<std::size_t>(longest); }
};

/// Where part p of n samples begins, as evenly as whole batches of m can be shared: a batch is the same samples however
/// many parts there are. Without overflow for any n.
inline std::uint64_t part_begin(std::uint64_t n, std::uint64_t part, std::uint64_t parts,
                                std::uint64_t m = 1) noexcept {
  const std::uint64_t batches = n / m + (n % m != 0 ? 1 : 0);
  const std::uint64_t before = batches / parts * part + batches % parts * part / parts;
  return before == batches ? n : before * m;
}

/// Files and globs -> files: each pattern's matches sorted, patterns in the given order. Throws DataError where a
/// pattern matches nothing or a file is missing.
std::vector<std::string> expand_files(std::span<const std::string> patterns);

/// Runs of rows that are cheap to read together: compressed chunks. Empty where single rows are cheap.
struct BlockLayout {
  std::vector<std::uint64_t> starts;  // first row of each block, ascending from 0; empty: no blocks
};

class Dataset {
 public:
  /// `patterns`: files or globs. Opens each file once, for shapes and types, which say how many samples there are, and
  /// for labels and offsets, which are read and checked; reads small sets (or the part of them that will be used).
  /// Afterwards a file is open only while its rows are used, and so many at a time.
  /// Throws DataError: missing, not HDF5, truncated, refused storage, unknown names, ports of different numbers of
  /// rows, shards that differ, names of classes or columns that do not match, no samples.
  explicit Dataset(std::span<const std::string> patterns, const DatasetOptions& options = {});
  ~Dataset();
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;
  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;

  std::uint64_t count() const noexcept;
  /// As DatasetOptions::ports; without those the samples, and the targets if there are any.
  const std::vector<DataPort>& ports() const noexcept;
  const DataPort& port(std::size_t i) const noexcept { return ports()[i]; }
  const std::vector<std::string>& files() const noexcept;
  /// What the files say of the ports, in the numbers in which they are read.
  const std::vector<Description>& descriptions() const noexcept;
  /// Of which file each row was made, read from the files now; empty where one of them does not say it. Throws
  /// DataError.
  std::vector<std::string> file_names() const;
  bool in_memory() const noexcept;
  /// 16 hexadecimal digits over counts, names, shapes, types, all labels and sampled rows: the same for the same data
  /// wherever the files lie and however they are split off in chunks.
  const std::string& fingerprint() const noexcept;
  /// Blocks to shuffle by: only of compressed sets that are not in memory.
  const BlockLayout& blocks() const noexcept;

  /// Throws DataError that names the first of a port's `labels` outside [0, classes) that is not ignored: file, row,
  /// value.
  void check_labels(std::size_t port, std::int64_t classes, std::optional<std::int64_t> ignore = {}) const;

  /// Throws DataError that names the first row of a ragged port of more than `most` positions.
  void check_lengths(std::size_t port, std::int64_t most) const;
  /// Throws DataError that names the first row of a ragged port that is longer or shorter than that of another one.
  void check_same_lengths(std::size_t port, std::size_t other) const;

  struct Row {
    const std::byte* data;
    std::int64_t length;  // ragged: positions; else 1
  };
  /// Stored bytes (native byte order) of one row: in memory, or in `scratch` (scratch_bytes()), filled.
  Row row(std::size_t port, std::uint64_t index, std::byte* scratch) const;
  /// Of a port with `labels`.
  std::int32_t label(std::size_t port, std::uint64_t index) const noexcept;
  /// Of a row's bytes, its index and its port: may be added up over rows in any order. Labels have no rows here:
  /// fingerprint() has them all.
  std::uint64_t row_hash(std::size_t port, std::uint64_t index, const Row&) const noexcept;
  /// "rows 0 to 15 of train.h5" for messages: [begin, end), which may lie in several files.
  std::string rows_text(std::uint64_t begin, std::uint64_t end) const;
  /// "train.h5: /images, row 17" for messages.
  std::string where(std::size_t port, std::uint64_t index) const;

  /// Where samples are text; else null.
  const TextSamples* text() const noexcept;
  /// Of a sample of text: positions that hold a token, and "train.h5: /tokens, position 17" of what one of them reads.
  std::int64_t held(std::uint64_t index) const noexcept;
  std::string token_place(std::size_t port, std::uint64_t index, std::int64_t position) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dtrain::io
