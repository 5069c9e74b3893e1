#include "io/dataset/port_rows.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "io/hdf5/stored.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

Shape extents_from(const h5::DatasetInfo& info, std::size_t first) {
  const std::vector<std::int64_t> extents(info.dims.begin() + static_cast<std::ptrdiff_t>(first), info.dims.end());
  return Shape(std::span<const std::int64_t>(extents));
}

}  // namespace

std::size_t ShardList::shard_of(std::uint64_t row) const noexcept {
  // Mostly one file; else a search over the first rows.
  if (first.size() == 2) return 0;
  return static_cast<std::size_t>(std::upper_bound(first.begin(), first.end(), row) - first.begin() - 1);
}

PortRows::PortRows(const PortSource& source) : ignore_(source.ignore) {
  port_.name = source.name;
  port_.use = source.use;
  port_.index = source.index;
}

std::uint64_t PortRows::add(const std::string& path, const h5::DatasetInfo& info, const h5::DatasetInfo* offsets,
                            const std::shared_ptr<OpenFiles>& open_files, const ShardList& before, Description said) {
  Shard shard;
  shard.values = std::make_unique<Column>(path, info, open_files);
  const Shape row = extents_from(info, 1);
  // Labels may be whole numbers that are stored as floats; features that meet an embedding are a mistake.
  if (port_.index && port_.use == PortUse::input && is_float(*info.type))
    throw DataError(fmt::format("{}: {} is {}, but the model's input {} takes integers", path, info.path,
                                info.type_text, port_.name));
  if (shards_.empty()) {
    port_.key = info.path;
    port_.offsets = offsets != nullptr ? offsets->path : "";
    port_.type = *info.type;
    port_.row = row;
    port_.row_bytes = info.row_bytes();
    port_.labels = port_.use == PortUse::target && port_.index && offsets == nullptr && row.elements() == 1;
  } else {
    // Targets of [N] and [N, 1] are the same.
    const bool alike = port_.use == PortUse::input ? row == port_.row : row.elements() == port_.row.elements();
    if (!alike || *info.type != port_.type) {
      throw DataError(fmt::format("{}: {} differs from {}, which has {} {} a {}; shards must agree", path, info.text(),
                                  before.files[0], name_of(port_.type), port_.row.str(),
                                  port_.ragged() ? "position" : "sample"));
    }
  }
  said_.push_back(std::move(said));
  port_.layout = agreed_layout(said_);
  if (offsets != nullptr) read_offsets(path, *offsets, info.rows(), shard);
  const std::uint64_t rows = offsets != nullptr ? shard.offsets.size() - 1 : info.rows();
  shards_.push_back(std::move(shard));
  return rows;
}

void PortRows::add(const TextSamples& text, TextPart part, Description said) {
  text_ = &text;
  port_.text = part;
  port_.key = text.tokens().path;
  port_.type = text.type(part);
  port_.row = Shape{text.length()};
  port_.row_bytes = static_cast<std::size_t>(text.length()) * size_of(port_.type);
  said_.push_back(std::move(said));
}

void PortRows::read_offsets(const std::string& path, const h5::DatasetInfo& info, std::uint64_t positions,
                            Shard& shard) {
  if (is_float(*info.type) || info.dims.size() != 1 || info.rows() < 1) {
    throw DataError(fmt::format(
        "{}: {} cannot be the offsets of {}; expected one integer more than there are samples, from 0 to {}", path,
        info.text(), port_.key, positions));
  }
  const Column column(path, info);
  std::vector<std::byte> raw(column.rows() * column.row_bytes());
  column.read_all(raw.data(), 1);
  shard.offsets.resize(column.rows());
  for (std::size_t i = 0; i < shard.offsets.size(); ++i) {
    const std::int64_t value = *stored_whole(*info.type, raw.data() + i * column.row_bytes());
    const std::int64_t least = i == 0 ? 0 : static_cast<std::int64_t>(shard.offsets[i - 1]);
    if (value < least || static_cast<std::uint64_t>(value) > positions) {
      throw DataError(
          fmt::format("{}: {}, row {}: the offset is {}; offsets must not fall, and lie within the {} "
                      "positions of {}",
                      path, info.path, i, value, positions, port_.key));
    }
    shard.offsets[i] = static_cast<std::uint64_t>(value);
    if (i > 0) port_.longest = std::max(port_.longest, value - least);
  }
}

Description PortRows::match(const Description* reference, const ShardList& list) {
  check_shards(said_);
  check_tokenizers(said_, reference);
  const Description& own = fullest(said_);
  const Description wanted = reference != nullptr && !reference->names.empty() && !own.names.empty() ? *reference : own;
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    shards_[s].map = RowMap(wanted, said_[s], port_.type);
    port_.mapped = port_.mapped || !shards_[s].map.empty();
    if (port_.labels && !shards_[s].map.empty()) map_labels(s, list);
  }
  said_.clear();
  return wanted;
}

void PortRows::map_labels(std::size_t s, const ShardList& list) {
  for (std::uint64_t row = list.first[s]; row < list.first[s + 1]; ++row) {
    const std::int32_t stored = labels_[row];
    labels_[row] = static_cast<std::int32_t>(shards_[s].map.label(stored, ignore_));
    if (labels_[row] < 0 && labels_[row] != stored) throw_unnamed(list, row, fmt::format("{}", stored));
  }
  port_.class_count = 0;
  for (const std::int32_t label : labels_)
    if (label != ignore_) port_.class_count = std::max<std::int64_t>(port_.class_count, label + 1);
}

void PortRows::throw_unnamed(const ShardList& list, std::uint64_t index, const std::string& label) const {
  throw DataError(
      fmt::format("{}: {}, for which the file has no name; the classes of the files differ, so that each "
                  "label needs one",
                  where(list, index), label.empty() ? "it has a label" : "the label is " + label));
}

void PortRows::map(std::size_t s, std::byte* stored, std::uint64_t positions, const ShardList& list,
                   std::uint64_t index) const {
  const RowMap& map = shards_[s].map;
  if (map.empty()) return;
  const std::size_t count = static_cast<std::size_t>(positions) * (port_.row_bytes / size_of(port_.type));
  if (!map.apply(stored, count, ignore_)) throw_unnamed(list, index, "");
}

void PortRows::read_labels(const ShardList& list) {
  if (!port_.labels) return;
  const Column& column = *shards_.back().values;
  std::vector<std::byte> raw(column.rows() * column.row_bytes());
  column.read_all(raw.data(), 1);
  const std::size_t first = labels_.size();
  labels_.resize(first + static_cast<std::size_t>(column.rows()));
  for (std::size_t i = 0; first + i < labels_.size(); ++i) {
    const std::byte* const at = raw.data() + i * column.row_bytes();
    const std::optional<std::int64_t> whole = stored_whole(port_.type, at);
    if (!whole) {
      throw DataError(fmt::format("{}: the label is {}, but the loss needs integer class labels from 0",
                                  where(list, first + i), stored_text(port_.type, at)));
    }
    const std::int64_t value = *whole;
    const bool ignored = value == ignore_;
    if (!ignored && (value < 0 || value >= std::numeric_limits<std::int32_t>::max())) {
      const bool ignorable = value >= std::numeric_limits<std::int32_t>::min() && value < 0;
      throw DataError(fmt::format(
          "{}: the label is {}; labels count from 0{}", where(list, first + i), stored_text(port_.type, at),
          ignorable ? fmt::format("; with ignore: {} the loss leaves such labels out", value) : std::string()));
    }
    labels_[first + i] = static_cast<std::int32_t>(value);
    if (!ignored) port_.class_count = std::max(port_.class_count, value + 1);
  }
  shards_.back().values.reset();  // the labels are all that is read of it
}

double PortRows::stored_bytes() const noexcept {
  double positions = 0;
  for (const Shard& shard : shards_)
    if (shard.values) positions += static_cast<double>(shard.values->rows());
  return positions * static_cast<double>(port_.row_bytes);
}

void PortRows::load(const ShardList& list, std::uint64_t begin, std::uint64_t end, int threads) {
  if (!has_rows()) return;
  kept_begin_ = begin;
  kept_end_ = end;
  struct Run {
    std::size_t shard;
    std::uint64_t first, count;  // positions
  };
  std::vector<Run> runs;
  std::uint64_t positions = 0;
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    const std::uint64_t first = std::max(list.first[s], begin), last = std::min(list.first[s + 1], end);
    if (first >= last) continue;
    Run run{s, first - list.first[s], last - first};
    if (port_.ragged()) {
      const auto& offsets = shards_[s].offsets;
      run.count = offsets[run.first + run.count] - offsets[run.first];
      run.first = offsets[run.first];
      shards_[s].memory = (static_cast<std::ptrdiff_t>(positions) - static_cast<std::ptrdiff_t>(run.first)) *
                          static_cast<std::ptrdiff_t>(port_.row_bytes);
    }
    positions += run.count;
    runs.push_back(run);
  }
  memory_.resize(static_cast<std::size_t>(positions) * port_.row_bytes);
  std::byte* to = memory_.data();
  for (const Run& run : runs) {
    if (run.count > 0) shards_[run.shard].values->read_rows(run.first, run.count, to, threads);
    map(run.shard, to, run.count, list, std::max(list.first[run.shard], begin));
    to += run.count * port_.row_bytes;
  }
}

Dataset::Row PortRows::row(const ShardList& list, std::uint64_t index, std::byte* scratch) const {
  if (text_ != nullptr) {
    const std::size_t s = list.shard_of(index);
    return {text_->row(port_.text, s, index - list.first[s], scratch), 1};
  }
  const bool kept = index >= kept_begin_ && index < kept_end_;
  if (!port_.ragged()) {
    if (kept) return {memory_.data() + (index - kept_begin_) * port_.row_bytes, 1};
    const std::size_t s = list.shard_of(index);
    shards_[s].values->read_row(index - list.first[s], scratch);
    map(s, scratch, 1, list, index);
    return {scratch, 1};
  }
  const std::size_t s = list.shard_of(index);
  const Shard& shard = shards_[s];
  const std::uint64_t begin = shard.offsets[index - list.first[s]], end = shard.offsets[index - list.first[s] + 1];
  const auto length = static_cast<std::int64_t>(end - begin);
  if (kept) {
    const auto at = shard.memory + static_cast<std::ptrdiff_t>(begin) * static_cast<std::ptrdiff_t>(port_.row_bytes);
    return {memory_.data() + at, length};
  }
  if (length > 0) shard.values->read_range(begin, end - begin, scratch);
  map(s, scratch, end - begin, list, index);
  return {scratch, length};
}

std::int64_t PortRows::length(const ShardList& list, std::uint64_t index) const noexcept {
  if (!port_.ragged()) return 1;
  const std::size_t s = list.shard_of(index);
  const auto& offsets = shards_[s].offsets;
  return static_cast<std::int64_t>(offsets[index - list.first[s] + 1] - offsets[index - list.first[s]]);
}

std::string PortRows::where(const ShardList& list, std::uint64_t index) const {
  const std::size_t s = list.shard_of(index);
  if (text_ != nullptr) return fmt::format("{}: {}", list.files[s], text_->where(s, index - list.first[s]));
  return fmt::format("{}: {}, row {}", list.files[s], port_.key, index - list.first[s]);
}

}  // namespace dtrain::io
