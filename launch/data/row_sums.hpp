// RowSums: sums of Dataset::row_hash over the rows of a set, by its 64 blocks of rows: equal for equal bytes, however
// the rows are shared among ranks, files and steps. SavedSums are what a checkpoint has of them.
// Values only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/dataset/dataset.hpp"

namespace dtrain::launch {

struct RowSums {
  static constexpr std::size_t blocks = 64;
  std::array<std::uint64_t, blocks> sums{};

  /// Rows [first, second) of a set of `count`.
  static std::pair<std::uint64_t, std::uint64_t> block(std::size_t index, std::uint64_t count) noexcept;
  /// `hash`: of the row with this index.
  void add(std::uint64_t index, std::uint64_t count, std::uint64_t hash) noexcept;
  void add(const RowSums& other) noexcept;
  bool operator==(const RowSums&) const = default;
  /// 16 hexadecimal digits, the same for the same rows.
  std::string digest() const;
};
/// Of all rows, which are read on this thread.
RowSums sum_rows(const io::Dataset&);
/// "rows 0 to 15 of train.h5, rows 32 to 47 of train.h5": the blocks that differ, cut after some.
std::string differing_rows(const io::Dataset&, const RowSums&, const RowSums&);

struct SavedSums {
  std::uint64_t count = 0;  // of the set's rows
  std::optional<RowSums> all;
  /// The sums of the positions [begin, end) of the stream, which lie in one epoch.
  struct Part {
    std::uint64_t begin = 0, end = 0;
    RowSums sums;
  };
  std::optional<Part> part;
};
std::string to_text(const SavedSums&);
/// Throws CheckpointError (corrupt), naming `source`, where the text does not say such sums.
SavedSums saved_sums_from(const std::string& text, const std::string& source);

}  // namespace dtrain::launch
