#include "io/dataset/dataset.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "io/dataset/detect.hpp"
#include "io/hdf5/column.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint64_t fingerprint_rows = 16;  // a shard

int reading_threads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 4u));
}

bool is_glob(const std::string& pattern) {
  return pattern.find_first_of("*?[") != std::string::npos;
}

bool is_float(StoredType type) {
  return type == StoredType::f32 || type == StoredType::f64;
}

}  // namespace

std::vector<std::string> expand_files(std::span<const std::string> patterns) {
  std::vector<std::string> files;
  for (const std::string& pattern : patterns) {
    struct stat status {};
    if (!is_glob(pattern) || ::stat(pattern.c_str(), &status) == 0) {
      files.push_back(pattern);
      continue;
    }
    glob_t found{};
    const int rc = ::glob(pattern.c_str(), 0, nullptr, &found);
    if (rc == 0) files.insert(files.end(), found.gl_pathv, found.gl_pathv + found.gl_pathc);
    ::globfree(&found);
    if (rc != 0)
      throw DataError(fmt::format("{}: no file matches; data paths start at the working directory", pattern));
  }
  if (files.empty()) throw DataError("no data files are named");
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (std::find(files.begin(), files.begin() + static_cast<std::ptrdiff_t>(i), files[i]) !=
        files.begin() + static_cast<std::ptrdiff_t>(i)) {
      throw DataError(fmt::format("{}: is named twice; each shard may appear once", files[i]));
    }
  }
  return files;
}

struct Dataset::State {
  struct Shard {
    std::uint64_t first = 0, rows = 0;
    std::unique_ptr<Column> samples, values;
  };
  std::vector<std::string> files;
  std::shared_ptr<OpenFiles> open_files;
  std::vector<Shard> shards;
  std::uint64_t count = 0;
  std::string sample_key, target_key;
  Shape sample_shape;
  StoredType sample_type = StoredType::u8;
  StoredType target_type = StoredType::u8;
  TargetUse target = TargetUse::none;
  std::int64_t target_width = 0, class_count = 0;
  std::size_t sample_bytes = 0, target_bytes = 0;
  bool in_memory = false;
  std::uint64_t kept_begin = 0, kept_end = 0;  // samples in memory, if any are
  std::vector<std::byte> memory;               // these
  std::vector<std::byte> target_memory;        // their values
  bool kept(std::uint64_t index) const noexcept { return index >= kept_begin && index < kept_end; }
  std::vector<std::int32_t> labels;
  std::string fingerprint;
  BlockLayout blocks;

  const Shard& shard_of(std::uint64_t index) const {
    // Mostly one shard; else a search over the first rows.
    if (shards.size() == 1) return shards[0];
    const auto after = std::upper_bound(shards.begin(), shards.end(), index,
                                        [](std::uint64_t i, const Shard& s) { return i < s.first; });
    return *(after - 1);
  }
  std::size_t shard_index(std::uint64_t index) const {
    return static_cast<std::size_t>(&shard_of(index) - shards.data());
  }
  std::string where(const std::string& key, std::uint64_t index) const {
    const std::size_t s = shard_index(index);
    return fmt::format("{}: {}, row {}", files[s], key, index - shards[s].first);
  }

  void open(const DatasetOptions&);
  void open_target(const std::string& path, const h5::DatasetInfo&, Shard&, TargetUse wanted);
  void read_labels(const Column&);
  void load(const DatasetOptions&);
  void make_fingerprint();
  void make_blocks();
};

void Dataset::State::open_target(const std::string& path, const h5::DatasetInfo& info, Shard& shard, TargetUse wanted) {
  auto column = std::make_unique<Column>(path, info, open_files);
  const StoredType type = *info.type;
  std::int64_t width = 1;
  for (std::size_t i = 1; i < info.dims.size(); ++i) width *= static_cast<std::int64_t>(info.dims[i]);
  const TargetUse use = wanted != TargetUse::automatic ? wanted
                        : is_float(type)               ? TargetUse::values
                                                       : TargetUse::labels;
  if (info.rows() != shard.rows) {
    throw DataError(
        fmt::format("{}: {} has {} rows, but {} has {}", path, info.path, info.rows(), sample_key, shard.rows));
  }
  if (use == TargetUse::labels && is_float(type)) {
    throw DataError(
        fmt::format("{}: {} is {}, but the loss needs integer class labels", path, info.path, info.type_text));
  }
  if (use == TargetUse::labels && width != 1) {
    throw DataError(fmt::format("{}: {}: labels must be one integer a sample, [{}]; one-hot rows are not labels", path,
                                info.text(), info.rows()));
  }
  if (shard.first == 0) {
    target = use;
    target_key = info.path;
    target_type = type;
    target_width = width;
    target_bytes = static_cast<std::size_t>(info.row_bytes());
  } else if (type != target_type || width != target_width) {
    throw DataError(fmt::format("{}: {} differs from {}, which has {} x {} a sample; shards must agree", path,
                                info.text(), files[0], target_width, name_of(target_type)));
  }
  if (use == TargetUse::labels) {
    read_labels(*column);
  } else {
    shard.values = std::move(column);
  }
}

void Dataset::State::read_labels(const Column& column) {
  std::vector<std::byte> raw(static_cast<std::size_t>(column.rows()) * column.row_bytes());
  column.read_all(raw.data(), 1);
  const std::size_t first = labels.size();
  labels.resize(first + static_cast<std::size_t>(column.rows()));
  for (std::size_t i = 0; first + i < labels.size(); ++i) {
    const std::int64_t value = stored_integer(target_type, raw.data() + i * column.row_bytes());
    if (value < 0 || value >= std::numeric_limits<std::int32_t>::max()) {
      throw DataError(fmt::format("{}: the label is {}; labels count from 0", where(target_key, first + i), value));
    }
    labels[first + i] = static_cast<std::int32_t>(value);
    class_count = std::max(class_count, value + 1);
  }
}

void Dataset::State::open(const DatasetOptions& options) {
  for (const std::string& path : files) {
    const h5::File file(path);
    const Detected found = detect(file, options.sample_key, options.target_key, options.target);
    const h5::DatasetInfo& info = found.sample;
    Shard shard;
    shard.first = count;
    shard.rows = info.rows();
    shard.samples = std::make_unique<Column>(path, info, open_files);
    std::vector<std::int64_t> extents(info.dims.begin() + 1, info.dims.end());
    const Shape shape{std::span<const std::int64_t>(extents)};
    if (shards.empty()) {
      sample_key = info.path;
      sample_shape = shape;
      sample_type = *info.type;
      sample_bytes = static_cast<std::size_t>(info.row_bytes());
    } else if (shape != sample_shape || *info.type != sample_type) {
      throw DataError(fmt::format("{}: {} differs from {}, which has {} {} a sample; shards must agree", path,
                                  info.text(), files[0], name_of(sample_type), sample_shape.str()));
    }
    count += shard.rows;
    shards.push_back(std::move(shard));
    if (found.target) {
      if (shards.size() > 1 && target == TargetUse::none) {
        throw DataError(fmt::format("{}: has targets ({}), but {} has none; shards must agree", path,
                                    found.target->path, files[0]));
      }
      open_target(path, *found.target, shards.back(), options.target);
    } else if (shards.size() > 1 && target != TargetUse::none) {
      throw DataError(fmt::format("{}: has no targets, but {} has {}; shards must agree", path, files[0], target_key));
    }
  }
}

void Dataset::State::load(const DatasetOptions& options) {
  const double bytes =
      static_cast<double>(count) * static_cast<double>(sample_bytes + (target == TargetUse::values ? target_bytes : 0));
  in_memory = bytes <= options.cache_mib * 1024 * 1024;
  if (!in_memory) return;
  const auto part = static_cast<std::uint64_t>(options.part), parts = static_cast<std::uint64_t>(options.parts);
  kept_begin = part_begin(count, part, parts);
  kept_end = part_begin(count, part + 1, parts);
  memory.resize(static_cast<std::size_t>(kept_end - kept_begin) * sample_bytes);
  if (target == TargetUse::values) target_memory.resize(static_cast<std::size_t>(kept_end - kept_begin) * target_bytes);
  for (const Shard& shard : shards) {
    const std::uint64_t first = std::max(shard.first, kept_begin), last = std::min(shard.first + shard.rows, kept_end);
    if (first >= last) continue;
    const std::size_t at = static_cast<std::size_t>(first - kept_begin);
    shard.samples->read_rows(first - shard.first, last - first, memory.data() + at * sample_bytes, reading_threads());
    if (shard.values)
      shard.values->read_rows(first - shard.first, last - first, target_memory.data() + at * target_bytes, 1);
  }
}

void Dataset::State::make_blocks() {
  if (in_memory) return;
  const bool banded =
      std::any_of(shards.begin(), shards.end(), [](const Shard& s) { return s.samples->band_rows() > 1; });
  if (!banded) return;
  // Where rows are cheap in one shard and bands in another, blocks of the bands' size serve both.
  std::uint64_t rows = 1;
  for (const Shard& shard : shards) rows = std::max(rows, shard.samples->band_rows());
  for (const Shard& shard : shards) {
    const std::uint64_t band = shard.samples->band_rows();
    const std::uint64_t step = band > 1 ? band : rows;
    for (std::uint64_t row = 0; row < shard.rows; row += step) blocks.starts.push_back(shard.first + row);
  }
}

void Dataset::State::make_fingerprint() {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  const auto add = [&](const void* bytes, std::size_t n) { XXH3_64bits_update(hash.get(), bytes, n); };
  const std::string description =
      fmt::format("{}|{} {} {}|{} {} {} {}", count, sample_key, name_of(sample_type), sample_shape.str(), target_key,
                  static_cast<int>(target), name_of(target_type), target_width);
  add(description.data(), description.size());
  if (!labels.empty()) add(labels.data(), labels.size() * sizeof(labels[0]));
  std::vector<std::byte> row(std::max(sample_bytes, target_bytes));
  // Rows of the whole set, not of shards, so that resharding the same data keeps the fingerprint.
  const std::uint64_t n = std::min(count, fingerprint_rows);
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t index = n == 1 ? 0 : i * (count - 1) / (n - 1);
    const Shard& shard = shard_of(index);
    const std::byte* bytes = row.data();
    if (kept(index)) {
      bytes = memory.data() + (index - kept_begin) * sample_bytes;
    } else {
      shard.samples->read_row(index - shard.first, row.data());
    }
    add(bytes, sample_bytes);
    if (shard.values) {
      shard.values->read_row(index - shard.first, row.data());
      add(row.data(), target_bytes);
    }
  }
  fingerprint = fmt::format("{:016x}", XXH3_64bits_digest(hash.get()));
}

Dataset::Dataset(std::span<const std::string> patterns, const DatasetOptions& options)
    : state_(std::make_unique<State>()) {
  state_->files = expand_files(patterns);
  state_->open_files = std::make_shared<OpenFiles>(options.open_files);
  state_->open(options);
  if (state_->count == 0) {
    throw DataError(fmt::format("{}: {} holds no samples", state_->files[0], state_->sample_key));
  }
  state_->load(options);
  state_->make_blocks();
  state_->make_fingerprint();
}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

std::uint64_t Dataset::count() const noexcept {
  return state_->count;
}
const Shape& Dataset::sample_shape() const noexcept {
  return state_->sample_shape;
}
StoredType Dataset::sample_type() const noexcept {
  return state_->sample_type;
}
TargetUse Dataset::target() const noexcept {
  return state_->target;
}
std::int64_t Dataset::target_width() const noexcept {
  return state_->target == TargetUse::none ? 0 : state_->target_width;
}
std::int64_t Dataset::class_count() const noexcept {
  return state_->class_count;
}
const std::vector<std::string>& Dataset::files() const noexcept {
  return state_->files;
}
const std::string& Dataset::sample_key() const noexcept {
  return state_->sample_key;
}
const std::string& Dataset::target_key() const noexcept {
  return state_->target_key;
}
bool Dataset::in_memory() const noexcept {
  return state_->in_memory;
}
const std::string& Dataset::fingerprint() const noexcept {
  return state_->fingerprint;
}
const BlockLayout& Dataset::blocks() const noexcept {
  return state_->blocks;
}
std::size_t Dataset::sample_bytes() const noexcept {
  return state_->sample_bytes;
}
std::string Dataset::where(std::uint64_t index) const {
  return state_->where(state_->sample_key, index);
}

void Dataset::check_labels(std::int64_t classes) const {
  if (state_->class_count <= classes) return;
  for (std::uint64_t i = 0; i < state_->count; ++i) {
    if (state_->labels[i] >= classes) {
      throw DataError(fmt::format("{}: the label is {}, but the model has {} classes (labels 0 to {})",
                                  state_->where(state_->target_key, i), state_->labels[i], classes, classes - 1));
    }
  }
}

const std::byte* Dataset::sample(std::uint64_t index, std::byte* scratch) const {
  if (state_->kept(index)) return state_->memory.data() + (index - state_->kept_begin) * state_->sample_bytes;
  const State::Shard& shard = state_->shard_of(index);
  shard.samples->read_row(index - shard.first, scratch);
  return scratch;
}

std::int32_t Dataset::label(std::uint64_t index) const noexcept {
  return state_->labels[index];
}

void Dataset::values(std::uint64_t index, float* out) const {
  const State& s = *state_;
  const std::size_t width = static_cast<std::size_t>(s.target_width), item = size_of(s.target_type);
  if (s.kept(index)) {
    const std::byte* row = s.target_memory.data() + (index - s.kept_begin) * s.target_bytes;
    for (std::size_t i = 0; i < width; ++i) out[i] = static_cast<float>(stored_number(s.target_type, row + i * item));
  } else {
    const State::Shard& shard = s.shard_of(index);
    // One buffer a thread: it grows once.
    thread_local std::vector<std::byte> row;
    if (row.size() < s.target_bytes) row.resize(s.target_bytes);
    shard.values->read_row(index - shard.first, row.data());
    for (std::size_t i = 0; i < width; ++i)
      out[i] = static_cast<float>(stored_number(s.target_type, row.data() + i * item));
  }
  for (std::size_t i = 0; i < width; ++i) {
    if (!std::isfinite(out[i])) {
      throw DataError(
          fmt::format("{}: value {} is {}; targets must be finite", s.where(s.target_key, index), i, out[i]));
    }
  }
}

}  // namespace dtrain::io
