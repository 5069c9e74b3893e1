#include "io/import/repack.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <xxhash.h>

#include "io/dataset/description.hpp"
#include "io/dataset/detect.hpp"
#include "io/dataset/stream.hpp"
#include "io/files/output.hpp"
#include "io/hdf5/column.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/hdf5/names.hpp"
#include "io/hdf5/stored.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t open_shards = 32;
constexpr std::size_t block_bytes = std::size_t{4} << 20;

bool is_float(const h5::DatasetInfo& info) {
  return is_float(*info.type);
}

/// Index of the first value of a row that is not finite, or -1.
std::int64_t first_not_finite(const h5::DatasetInfo& info, const std::byte* row) {
  return with_stored_type(*info.type, [&](auto tag) -> std::int64_t {
    using T = decltype(tag);
    if constexpr (stored_float<T>) {
      const std::size_t count = info.row_bytes() / sizeof(T);
      for (std::size_t i = 0; i < count; ++i) {
        T value;
        std::memcpy(&value, row + i * sizeof(T), sizeof(T));
        if (!std::isfinite(value)) return static_cast<std::int64_t>(i);
      }
    }
    return -1;
  });
}

/// "/x" of "x".
std::string rooted(const std::string& path) {
  return path.starts_with('/') ? path : "/" + path;
}

/// The data set that is given, or renamed to a usual name of such; else it is to be found.
std::string key_of(const RepackOptions& options, PortUse use) {
  const std::string& given = use == PortUse::input ? options.sample_key : options.target_key;
  if (!given.empty()) return given;
  const auto at = std::find_if(options.rename.begin(), options.rename.end(),
                               [use](const auto& names) { return usual_use(names.second) == use; });
  return at == options.rename.end() ? "" : at->first;
}

/// The rows of all files, one after the other.
class Rows {
 public:
  Rows(const std::vector<std::string>& files, const RepackOptions& options) {
    for (const std::string& path : files) {
      const h5::File file(path);
      Detected found =
          detect(file, key_of(options, PortUse::input), key_of(options, PortUse::target), TargetUse::automatic);
      if (!shards_.empty()) {
        same(path, found.sample, shards_[0].sets.sample);
        if (found.target.has_value() != shards_[0].sets.target.has_value())
          throw DataError(fmt::format("{}: targets are in some shards only; shards must agree", path));
        if (found.target) same(path, *found.target, *shards_[0].sets.target);
      }
      if (found.target && found.target->rows() != found.sample.rows())
        throw DataError(fmt::format("{}: {} has {} rows, but {} has {}", path, found.target->path, found.target->rows(),
                                    found.sample.path, found.sample.rows()));
      const std::uint64_t rows = found.sample.rows();
      std::vector<std::string> names = io::file_names(file, found.sample);
      named_ = named_ && !names.empty();
      if (!named_) file_names_.clear();
      if (named_)
        file_names_.insert(file_names_.end(), std::make_move_iterator(names.begin()),
                           std::make_move_iterator(names.end()));
      said_[0].push_back(describe(file, found.sample, "input", PortUse::input, false));
      if (found.target)
        said_[1].push_back(describe(file, *found.target, "target", PortUse::target, !is_float(*found.target)));
      shards_.push_back({path, count_, std::move(found), nullptr, {}, {}});
      count_ += rows;
    }
    agreed_layout(said_[0]);
    check_shards(said_[0]);
    if (!options.classes_from.empty()) take_classes(options.classes_from);
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      shards_[s].sample_map = RowMap(fullest(said_[0]), said_[0][s], *sample().type);
      if (target() != nullptr) shards_[s].target_map = RowMap(said_of_targets(), said_[1][s], *target()->type);
    }
    if (count_ == 0) throw DataError(fmt::format("{}: {} holds no samples", files[0], sample().path));
    rename(options);
  }
  std::uint64_t count() const noexcept { return count_; }
  const h5::DatasetInfo& sample() const noexcept { return shards_[0].sets.sample; }
  const h5::DatasetInfo* target() const noexcept { return shards_[0].sets.target ? &*shards_[0].sets.target : nullptr; }
  /// In the output.
  const std::string& name_of(const h5::DatasetInfo& set) const { return &set == &sample() ? names_[0] : names_[1]; }
  void read_sample(std::uint64_t row, std::byte* out) {
    at(row).sample->read_row(row - found_->first, out);
    found_->sample_map.apply(out, sample().row_bytes() / size_of(*sample().type), {});
  }
  /// In the numbers of what all files say together.
  void read_target(std::uint64_t row, std::byte* out) {
    at(row).target->read_row(row - found_->first, out);
    if (!found_->target_map.apply(out, target()->row_bytes() / size_of(*target()->type), {}))
      throw DataError(
          fmt::format("{}: it has a label for which the file has no name; the classes of the files differ, "
                      "so that each label needs one",
                      where(row, *target())));
  }
  /// Of which file each row was made; empty where some of the files do not say it.
  const std::vector<std::string>& file_names() const noexcept { return file_names_; }
  /// What the output says of its samples and of its targets.
  std::vector<const Description*> said() const {
    std::vector<const Description*> all{&fullest(said_[0])};
    if (!said_[1].empty()) all.push_back(&said_of_targets());
    return all;
  }
  /// The file that says most of them.
  const std::string& file_of(std::size_t set) const {
    const std::vector<Description>& all = said_[set];
    return shards_[static_cast<std::size_t>(&fullest(all) - all.data())].path;
  }
  std::string where(std::uint64_t row, const h5::DatasetInfo& set) {
    at(row);
    return fmt::format("{}: {}, row {}", found_->path, set.path, row - found_->first);
  }

 private:
  struct Open {
    std::unique_ptr<Column> sample, target;
  };
  struct Shard {
    std::string path;
    std::uint64_t first;
    Detected sets;
    std::unique_ptr<Open> open;
    RowMap sample_map, target_map;
  };
  const Description& said_of_targets() const { return classes_ ? *classes_ : fullest(said_[1]); }
  /// Labels are numbered as in that file.
  void take_classes(const std::string& path) {
    const h5::File file(path);
    const Detected found = detect(file, "", "", TargetUse::automatic);
    if (found.target && !is_float(*found.target))
      classes_ = describe(file, *found.target, "target", PortUse::target, true);
    if (!classes_ || classes_->names.empty())
      throw DataError(fmt::format("{}: it has no names of classes (class_names), which --classes-from takes", path));
    for (const Description& own : said_[1])
      if (own.names.empty())
        throw DataError(fmt::format("{}: it has no names of classes to find in {} (--classes-from)", own.source, path));
    if (target() == nullptr)
      throw DataError(fmt::format("{}: it has no labels to number as in {} (--classes-from)", shards_[0].path, path));
    const std::size_t most = size_of(*target()->type) == 1 ? 256 : classes_->names.size();
    if (classes_->names.size() > most)
      throw DataError(fmt::format("{}: its labels are too narrow for the {} classes of {}", shards_[0].path,
                                  classes_->names.size(), path));
  }
  void rename(const RepackOptions& options) {
    names_[0] = sample().path;
    if (target() != nullptr) names_[1] = target()->path;
    for (const auto& [from, to] : options.rename) {
      std::string* const name = rooted(from) == sample().path                           ? &names_[0]
                                : target() != nullptr && rooted(from) == target()->path ? &names_[1]
                                                                                        : nullptr;
      if (name == nullptr)
        throw ConfigError(
            fmt::format("repack: --rename {}={}: the samples are {}, the targets {}; a new name for other ones must be "
                        "a usual one, "
                        "x or images for samples, y or labels for targets",
                        from, to, sample().path, target() != nullptr ? target()->path : "none"));
      *name = rooted(to);
    }
    if (names_[0] == names_[1]) throw ConfigError(fmt::format("repack: samples and targets are both {}", names_[0]));
  }
  static void same(const std::string& path, const h5::DatasetInfo& a, const h5::DatasetInfo& b) {
    if (*a.type != *b.type || !std::equal(a.dims.begin() + 1, a.dims.end(), b.dims.begin() + 1, b.dims.end()))
      throw DataError(
          fmt::format("{}: {} differs from the first file's {}; shards must agree", path, a.text(), b.text()));
  }
  Open& at(std::uint64_t row) {
    if (found_ == nullptr || row < found_->first || row - found_->first >= found_->sets.sample.rows()) {
      found_ = &*(std::upper_bound(shards_.begin(), shards_.end(), row,
                                   [](std::uint64_t r, const Shard& s) { return r < s.first; }) -
                  1);
    }
    if (found_->open == nullptr) {
      if (opened_.size() == open_shards) {
        opened_.front()->open.reset();
        opened_.pop_front();
      }
      found_->open = std::make_unique<Open>();
      found_->open->sample = std::make_unique<Column>(found_->path, found_->sets.sample);
      if (found_->sets.target) found_->open->target = std::make_unique<Column>(found_->path, *found_->sets.target);
      opened_.push_back(found_);
    }
    return *found_->open;
  }

  std::vector<Shard> shards_;
  std::vector<Description> said_[2];     // of samples and targets, by shard
  std::optional<Description> classes_;   // of another file
  std::string names_[2];                 // of them in the output
  std::vector<std::string> file_names_;  // of files, by row
  bool named_ = true;
  std::uint64_t count_ = 0;
  Shard* found_ = nullptr;
  std::deque<Shard*> opened_;
};

/// Rows worth keeping.
std::vector<std::uint64_t> clean(Rows& rows, const RepackOptions& options, Findings& findings) {
  std::vector<std::uint64_t> kept;
  const h5::DatasetInfo& sample = rows.sample();
  const h5::DatasetInfo* target = rows.target();
  const bool labels = target != nullptr && !is_float(*target) && target->row_bytes() == size_of(*target->type);
  if (options.classes > 0 && !labels)
    throw DataError(fmt::format("{}: --classes needs labels, one integer a sample",
                                rows.where(0, target != nullptr ? *target : sample)));
  std::vector<std::byte> row(std::max(sample.row_bytes(), target != nullptr ? target->row_bytes() : 0));
  for (std::uint64_t i = 0; i < rows.count(); ++i) {
    bool good = true;
    const auto finite = [&](const h5::DatasetInfo& set) {
      if (const std::int64_t bad = first_not_finite(set, row.data()); bad >= 0) {
        good = false;
        findings.add(
            "sample* with values that are not finite", i,
            fmt::format("{}: value {} is {}", rows.where(i, set), bad,
                        stored_number(*set.type, row.data() + static_cast<std::size_t>(bad) * size_of(*set.type))));
      }
    };
    if (is_float(sample)) {
      rows.read_sample(i, row.data());
      finite(sample);
    }
    if (target != nullptr && good && (labels || is_float(*target))) {
      rows.read_target(i, row.data());
      finite(*target);
      if (labels) {
        const std::int64_t label = *stored_whole(*target->type, row.data());
        if (label < 0 || (options.classes > 0 && label >= options.classes)) {
          good = false;
          findings.add("label* out of range", i, fmt::format("{}: {}", rows.where(i, *target), label));
        }
      }
    }
    if (good) kept.push_back(i);
  }
  return kept;
}

std::string shard_name(const std::string& out, std::int64_t shard, std::int64_t shards) {
  if (shards == 1) return out;
  const std::filesystem::path path(out);
  return (path.parent_path() /
          fmt::format("{}-{:05}-of-{:05}{}", path.stem().string(), shard, shards, path.extension().string()))
      .string();
}

/// The same for the same samples, however they are stored and ordered.
std::string set_id(Rows& rows, const std::vector<std::uint64_t>& kept) {
  constexpr std::uint64_t sampled = 16;
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  const std::uint64_t count = kept.size(), n = std::min(count, sampled);
  XXH3_64bits_update(hash.get(), &count, sizeof count);
  std::vector<std::byte> row(std::max(rows.sample().row_bytes(), rows.target() ? rows.target()->row_bytes() : 0));
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t at = kept[n == 1 ? 0 : i * (count - 1) / (n - 1)];
    rows.read_sample(at, row.data());
    XXH3_64bits_update(hash.get(), row.data(), rows.sample().row_bytes());
    if (rows.target() == nullptr) continue;
    rows.read_target(at, row.data());
    XXH3_64bits_update(hash.get(), row.data(), rows.target()->row_bytes());
  }
  return fmt::format("{:016x}", XXH3_64bits_digest(hash.get()));
}

bool is_shard(const std::string& path) {
  try {
    const h5::File file(path);
    for (const h5::DatasetInfo& set : file.list().datasets)
      if (!h5::read_text_attribute(file, set.path, "shard").empty()) return true;
  } catch (const DataError&) {
  }
  return false;
}

/// What repack wrote under this name before, in another number of files: beside the new ones they would be taken for
/// some of these.
std::vector<std::string> older_shards(const std::string& out, std::int64_t shards) {
  const std::filesystem::path path(out), folder = path.parent_path().empty() ? "." : path.parent_path();
  const std::string begin = path.stem().string() + "-", end = path.extension().string();
  std::vector<std::string> found;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename().string();
    const std::string_view digits = std::string_view(name).substr(std::min(begin.size(), name.size()));
    if (!name.starts_with(begin) || digits.size() != 14 + end.size() || !digits.ends_with(end)) continue;
    std::int64_t shard = 0, of = 0;
    char rest = 0;
    if (std::sscanf(std::string(digits.substr(0, 14)).c_str(), "%5ld-of-%5ld%c", &shard, &of, &rest) != 2) continue;
    const std::string full = (path.parent_path() / name).string();
    if ((shards == 1 || of != shards) && is_shard(full)) found.push_back(full);
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// One output file: rows [first, last) of the new order. `shard`: what it says of itself; empty: it is the only one.
void write_shard(Rows& rows, const std::string& path, const std::string& shard, const RepackOptions& options,
                 const std::vector<std::uint64_t>& kept, const IndexPermutation* order, std::uint64_t first,
                 std::uint64_t last) {
  h5::Writer writer(path);
  const auto copy = [&](const h5::DatasetInfo& set, const std::string& from, auto&& read) {
    const h5::File source(from);
    std::vector<std::uint64_t> dims = set.dims;
    dims[0] = last - first;
    const std::size_t out = writer.add(rows.name_of(set), *set.type, dims, options.storage);
    writer.copy_attributes(source, source.info(set.path), out);
    if (&set == &rows.sample() && !shard.empty()) writer.attribute(out, "shard", shard);
    const std::uint64_t row_bytes = set.row_bytes(), chunk = h5::Writer::chunk_rows(*set.type, dims, options.storage);
    const std::uint64_t block =
        chunk * std::max<std::uint64_t>(1, block_bytes / std::max<std::uint64_t>(1, chunk * row_bytes));
    std::vector<std::byte> bytes(std::min(block, last - first) * row_bytes);
    for (std::uint64_t begin = first; begin < last; begin += block) {
      const std::uint64_t end = std::min(begin + block, last);
      for (std::uint64_t i = begin; i < end; ++i)
        read(kept[order != nullptr ? (*order)(i) : i], bytes.data() + (i - begin) * row_bytes);
      writer.write(out, begin - first, end - begin, bytes.data());
    }
  };
  copy(rows.sample(), rows.file_of(0), [&](std::uint64_t row, std::byte* to) { rows.read_sample(row, to); });
  if (rows.target() != nullptr)
    copy(*rows.target(), rows.file_of(1), [&](std::uint64_t row, std::byte* to) { rows.read_target(row, to); });
  for (const Description* said : rows.said())
    if (!said->names.empty()) writer.add_names(name_set(*said), said->names);
  if (!rows.file_names().empty()) {
    std::vector<std::string> names;
    for (std::uint64_t i = first; i < last; ++i)
      names.push_back(rows.file_names()[kept[order != nullptr ? (*order)(i) : i]]);
    writer.add_names(file_names_set, names);
  }
  writer.commit();
}

/// Labels of the rows that are kept, where classes are shared out by themselves.
std::vector<std::int64_t> labels_of(Rows& rows, const std::vector<std::uint64_t>& kept, const RepackOptions& options) {
  std::vector<std::int64_t> labels;
  if (!options.split.stratify) return labels;
  const h5::DatasetInfo* target = rows.target();
  if (target == nullptr || is_float(*target) || target->row_bytes() != size_of(*target->type))
    throw DataError(fmt::format("{}: --stratify needs labels, one integer a sample",
                                rows.where(0, target != nullptr ? *target : rows.sample())));
  std::vector<std::byte> row(target->row_bytes());
  for (const std::uint64_t i : kept) {
    rows.read_target(i, row.data());
    labels.push_back(*stored_whole(*target->type, row.data()));
  }
  return labels;
}

/// Writes these rows under this name, in shards and in the order that is asked for. Returns lines for the user.
std::string write_set(Rows& rows, const std::vector<std::string>& files, const std::string& out,
                      const std::vector<std::uint64_t>& kept, const RepackOptions& options) {
  const auto shards = static_cast<std::uint64_t>(options.shards);
  const std::vector<std::string> older = older_shards(out, options.shards);
  for (const std::string& old : older) {
    std::error_code none;
    for (const std::string& file : files)
      if (std::filesystem::equivalent(old, file, none))
        throw ConfigError(fmt::format("repack: {} is read, and would be replaced by {}; name another output", file,
                                      shard_name(out, 0, options.shards)));
  }
  const std::string id = shards > 1 ? set_id(rows, kept) : "";
  std::optional<IndexPermutation> order;
  if (options.shuffle) order.emplace(kept.size(), *options.shuffle, 0);
  for (std::uint64_t s = 0; s < shards; ++s) {
    write_shard(rows, shard_name(out, static_cast<std::int64_t>(s), options.shards),
                shards > 1 ? shard_text(id, s, shards) : "", options, kept, order ? &*order : nullptr,
                part_begin(kept.size(), s, shards), part_begin(kept.size(), s + 1, shards));
  }
  std::string text = fmt::format("wrote {}: {} samples{}\n",
                                 shards == 1 ? out
                                             : fmt::format("{} to {}", shard_name(out, 0, options.shards),
                                                           shard_name(out, options.shards - 1, options.shards)),
                                 kept.size(), shards == 1 ? "" : fmt::format(" in {} shards", shards));
  for (const std::string& old : older) std::filesystem::remove(old);
  if (!older.empty())
    text += fmt::format("removed {} older shards: {} to {}\n", older.size(), older.front(), older.back());
  return text;
}

std::string write(const std::vector<std::string>& files, const std::string& out, const RepackOptions& options) {
  Rows rows(files, options);
  Findings findings;
  const std::vector<std::uint64_t> kept = clean(rows, options, findings);
  findings.settle(options.on_error, files.size() == 1 ? files[0] : fmt::format("{} files", files.size()));
  if (kept.empty()) throw DataError(fmt::format("{}: no sample is left: {}", files[0], findings.text()));
  std::vector<SplitPart> sets;
  if (options.split.on()) {
    sets = split(kept.size(), options.split, labels_of(rows, kept, options));
    for (SplitPart& set : sets)
      for (std::uint64_t& row : set.rows) row = kept[static_cast<std::size_t>(row)];
  } else {
    sets.push_back({"", kept});
  }
  for (const SplitPart& set : sets)  // before any is written
    if (static_cast<std::uint64_t>(options.shards) > set.rows.size())
      throw ConfigError(fmt::format("repack: {} samples{} cannot fill {} shards", set.rows.size(),
                                    set.name.empty() ? "" : " of the part " + set.name, options.shards));
  std::string text;
  for (const SplitPart& set : sets)
    text += write_set(rows, files, set.name.empty() ? out : part_path(out, set.name), set.rows, options);
  if (findings.count() > 0) text += fmt::format("dropped {}\n", findings.text());
  return text;
}

/// What repack() will write.
std::vector<std::string> outputs_of(const std::string& out, const RepackOptions& options) {
  std::vector<std::string> sets;
  for (const auto& part : options.split.parts) sets.push_back(part_path(out, part.first));
  for (int f = 1; f <= options.split.folds; ++f)
    for (const char* half : {"train", "eval"}) sets.push_back(part_path(out, fmt::format("fold-{}-{}", f, half)));
  if (sets.empty()) sets.push_back(out);
  std::vector<std::string> files;
  for (const std::string& set : sets)
    for (std::int64_t s = 0; s < options.shards; ++s) files.push_back(shard_name(set, s, options.shards));
  return files;
}

}  // namespace

std::string repack(std::span<const std::string> patterns, const std::string& out, const RepackOptions& options) {
  const std::vector<std::string> files = expand_files(patterns);
  std::vector<std::string> read = files;
  if (!options.classes_from.empty()) read.push_back(options.classes_from);
  for (const std::string& file : outputs_of(out, options)) check_output(file, read);
  return write(files, out, options);
}

std::string repack_file(const std::string& file, const std::string& out, const RepackOptions& options) {
  const std::vector<std::string> read(options.classes_from.empty() ? 0 : 1, options.classes_from);
  for (const std::string& output : outputs_of(out, options)) check_output(output, read);
  return write({file}, out, options);
}

}  // namespace dtrain::io
