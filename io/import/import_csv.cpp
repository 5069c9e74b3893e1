#include "io/import/import_csv.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/dataset/channel_statistics.hpp"
#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/import/csv.hpp"
#include "io/import/csv_facts.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t block_bytes = std::size_t{4} << 20;
constexpr std::size_t max_classes = 1 << 20;

/// What each column is for.
struct Columns {
  std::size_t count = 0;
  std::vector<std::size_t> features, targets, nameless;
  std::optional<std::size_t> label;
  std::vector<std::string> names;  // empty without a header
};

class CsvImport {
 public:
  CsvImport(std::span<const std::string> files, const CsvImportOptions& options)
      : files_(files), options_(options), numbers_(options.decimal, options.keep_words) {}
  std::string run(const std::string& out);

 private:
  std::size_t find(const std::string& wanted, const CsvReader&) const;
  void choose(const CsvReader&, const std::vector<CsvField>& first);
  bool is_header(const CsvReader&, const std::vector<CsvField>& first);
  std::vector<std::size_t> order_of(const CsvReader&, const std::vector<CsvField>& header) const;
  std::optional<double> number(const CsvField& field) const { return numbers_(field, delimiter_); }
  /// Of a feature or a target, which may be a truth value.
  std::optional<double> value(const CsvField& field) const;
  double checked_value(const CsvReader&, const CsvField&, std::size_t column);
  void check_shape(const CsvReader&) const;
  std::vector<std::uint64_t> sample_dims() const;
  void look_at(const std::vector<CsvField>&);
  void settle_columns();
  std::string odd_columns() const;
  std::string column_text(std::size_t i) const;
  /// Calls row(reader, fields) for each row of all files.
  template <class F>
  void each_row(F&& row);
  bool check(const CsvReader&, const std::vector<CsvField>&);
  bool check_label(const CsvReader&, const CsvField&);
  void settle_labels();
  StoredType x_type() const { return !options_.shape.empty() && bytes_ ? StoredType::u8 : StoredType::f32; }
  std::string x_text() const;
  void write(const std::string& out);

  const std::span<const std::string> files_;
  const CsvImportOptions& options_;
  CsvNumbers numbers_;
  char delimiter_ = ',';  // of the file that is read
  bool bytes_ = true;     // all features of rows that are kept
  Columns columns_;
  bool has_header_ = false;
  std::string header_because_;
  std::vector<ColumnFacts> facts_;  // by column
  Findings findings_;
  std::uint64_t row_ = 0;  // rows seen in this pass
  std::vector<char> bad_;  // by row
  std::uint64_t kept_ = 0;
  std::vector<std::int32_t> labels_;  // of rows that are kept
  std::map<std::string, std::int32_t, std::less<>> words_;
  std::string normalize_;
};

std::size_t CsvImport::find(const std::string& wanted, const CsvReader& reader) const {
  const auto named = std::find(columns_.names.begin(), columns_.names.end(), wanted);
  if (named != columns_.names.end()) return static_cast<std::size_t>(named - columns_.names.begin());
  if (const auto index = integer_in(wanted)) {
    const auto count = static_cast<std::int64_t>(columns_.count);
    if (*index >= -count && *index < count) return static_cast<std::size_t>(*index < 0 ? *index + count : *index);
  }
  reader.fail(1, fmt::format("there is no column {}; the {} columns are {}", wanted, columns_.count,
                             columns_.names.empty() ? fmt::format("0 to {}", columns_.count - 1)
                                                    : fmt::format("{}", fmt::join(columns_.names, ", "))));
}

std::optional<double> CsvImport::value(const CsvField& field) const {
  const auto as_number = number(field);
  return as_number ? as_number : truth_in(field.text);
}

std::string CsvImport::column_text(std::size_t i) const {
  return columns_.names.empty() || is_nameless(columns_.names[i]) ? fmt::format("{}", i) : columns_.names[i];
}

/// The rule, and which part of it decided.
bool CsvImport::is_header(const CsvReader& reader, const std::vector<CsvField>& first) {
  header_because_ = "as --header says";
  if (options_.header != CsvImportOptions::Header::automatic) return options_.header == CsvImportOptions::Header::yes;
  std::optional<std::size_t> label;
  if (!options_.label.empty()) {
    header_because_ = "the label is named";
    if (!integer_in(options_.label)) return true;
    label = find(options_.label, reader);
  }
  header_because_ = "it holds words in place of numbers";
  for (std::size_t i = 0; i < first.size(); ++i)
    if (i != label && !value(first[i])) return true;
  header_because_ = "it counts the columns";
  if (counts_columns(first, label)) return true;
  header_because_ = "the first line is a sample";
  return false;
}

/// Where the columns of the first file are in a file with this header.
std::vector<std::size_t> CsvImport::order_of(const CsvReader& reader, const std::vector<CsvField>& header) const {
  std::vector<std::string> names;
  for (const CsvField& field : header) names.emplace_back(field.text);
  std::vector<std::size_t> order;
  if (names == columns_.names) return order;
  for (const std::string& name : columns_.names) {
    const auto at = std::find(names.begin(), names.end(), name);
    const bool once = std::count(names.begin(), names.end(), name) == 1 &&
                      std::count(columns_.names.begin(), columns_.names.end(), name) == 1;
    if (!once)
      reader.fail(1, fmt::format("the columns are {}, but {} in {}; columns are matched by name, and {} {}",
                                 fmt::join(names, ", "), fmt::join(columns_.names, ", "), files_[0], name,
                                 at == names.end() ? "is not there" : "is there twice"));
    order.push_back(static_cast<std::size_t>(at - names.begin()));
  }
  return order;
}

void CsvImport::choose(const CsvReader& reader, const std::vector<CsvField>& first) {
  columns_.count = first.size();
  has_header_ = is_header(reader, first);
  if (has_header_) {
    for (const CsvField& field : first) columns_.names.emplace_back(field.text);
  }
  std::set<std::size_t> taken;
  const auto take = [&](const std::string& wanted) {
    const std::size_t index = find(wanted, reader);
    const auto same = std::find(columns_.names.begin(), columns_.names.end(), wanted);
    if (same != columns_.names.end())
      if (const auto other = std::find(same + 1, columns_.names.end(), wanted); other != columns_.names.end())
        reader.fail(1, fmt::format("columns {} and {} are both called {}; say the index of the one that is meant, and "
                                   "leave the other one out with --ignore",
                                   index, other - columns_.names.begin(), wanted));
    if (!taken.insert(index).second) throw ConfigError(fmt::format("import csv: column {} is named twice", wanted));
    return index;
  };
  if (!options_.label.empty()) columns_.label = take(options_.label);
  for (const auto& wanted : options_.targets) columns_.targets.push_back(take(wanted));
  for (const auto& wanted : options_.ignore) take(wanted);
  for (std::size_t i = 0; i < columns_.count; ++i) {
    if (taken.contains(i)) continue;
    (has_header_ && is_nameless(columns_.names[i]) ? columns_.nameless : columns_.features).push_back(i);
  }
  facts_.resize(columns_.count);
  if (columns_.features.empty()) reader.fail(1, "no column is left for features");
  check_shape(reader);
}

void CsvImport::check_shape(const CsvReader& reader) const {
  if (options_.shape.empty()) return;
  const bool rank = options_.shape.size() == 2 || options_.shape.size() == 3;
  const std::string text = fmt::format("--shape {}", fmt::join(options_.shape, ","));
  if (!rank) throw ConfigError(fmt::format("import csv: {}: expected height,width or channels,height,width", text));
  if (options_.shape.size() == 3 && options_.shape[0] > 1 && options_.layout == StoredLayout::unknown)
    throw ConfigError(
        fmt::format("import csv: {}: {} numbers of each pixel may stand together, or far apart; say --layout "
                    "channels_last (r,g,b,r,g,b) or channels_first (all r, all g, all b)",
                    text, options_.shape[0]));
  std::size_t pixels = 1;
  for (const std::int64_t extent : options_.shape) pixels *= static_cast<std::size_t>(extent);
  if (pixels != columns_.features.size())
    reader.fail(1,
                fmt::format("there are {} columns of features, but {} needs {}; name the other columns with --label, "
                            "--target or --ignore",
                            columns_.features.size(), text, pixels));
}

std::vector<std::uint64_t> CsvImport::sample_dims() const {
  if (options_.shape.empty()) return {columns_.features.size()};
  std::vector<std::uint64_t> dims(options_.shape.begin(), options_.shape.end());
  if (dims.size() == 2) dims.insert(dims.begin(), 1);
  if (options_.layout == StoredLayout::channels_last) std::rotate(dims.begin(), dims.begin() + 1, dims.end());
  return dims;
}

template <class F>
void CsvImport::each_row(F&& row) {
  row_ = 0;
  std::vector<CsvField> fields, ordered;
  std::vector<std::size_t> order;
  for (std::size_t f = 0; f < files_.size(); ++f) {
    CsvReader reader(files_[f], options_.delimiter);
    delimiter_ = reader.delimiter();
    for (bool first = true; reader.next(fields); first = false) {
      if (first && columns_.count == 0) choose(reader, fields);
      if (fields.size() != columns_.count) {
        reader.fail(fields.back().column, fmt::format("there are {} fields; expected {}, as in the first line{}",
                                                      fields.size(), columns_.count, f == 0 ? "" : " of " + files_[0]));
      }
      if (first && has_header_) {
        order = order_of(reader, fields);
        continue;
      }
      ordered.clear();
      for (const std::size_t i : order) ordered.push_back(fields[i]);
      row(reader, order.empty() ? fields : ordered);
      ++row_;
    }
  }
}

bool CsvImport::check_label(const CsvReader& reader, const CsvField& field) {
  const auto as_number = number(field);
  if (as_number) numbers_.check_sign(reader, field);
  if (as_number && !std::isfinite(*as_number)) {
    findings_.add("rows with missing values or values that are not finite", row_,
                  fmt::format("{}: {}", reader.where(field), field.text.empty() ? "empty" : field.text));
    return false;
  }
  if (!as_number) {
    if (!labels_.empty() && words_.empty())
      reader.fail(field.column, fmt::format("the label is {}, but labels before it are numbers", field.text));
    const auto [word, made] = words_.try_emplace(std::string(field.text), static_cast<std::int32_t>(words_.size()));
    if (words_.size() > max_classes) reader.fail(field.column, "there are too many different labels");
    labels_.push_back(word->second);
    return true;
  }
  constexpr double most = 1 << 30;  // 0.0 is what pandas makes of 0 where some labels are missing
  const double label = *as_number;
  if (!words_.empty() || label != std::floor(label))
    reader.fail(field.column, fmt::format("the label is {}; expected {}", field.text,
                                          words_.empty() ? "an integer or a word" : "a word, as before it"));
  if (label < 0 || label >= (options_.classes > 0 ? static_cast<double>(options_.classes) : most)) {
    findings_.add("labels out of range", row_, fmt::format("{}: {}", reader.where(field), field.text));
    return false;
  }
  labels_.push_back(static_cast<std::int32_t>(label));
  return true;
}

double CsvImport::checked_value(const CsvReader& reader, const CsvField& field, std::size_t column) {
  const std::string named = columns_.names.empty() ? "" : fmt::format(" (column {})", columns_.names[column]);
  const auto read = value(field);
  if (!read) {
    const bool comma = delimiter_ != ',' && field.text.find(',') != std::string_view::npos;
    reader.fail(field.column, fmt::format("{} is not a number{}{}",
                                          field.text.size() > 40 ? "a long text" : fmt::format("\"{}\"", field.text),
                                          named, comma ? "; if the comma is a decimal sign, say --decimal comma" : ""));
  }
  numbers_.check_sign(reader, field);
  const bool truth = truth_in(field.text).has_value();
  ColumnFacts& facts = facts_[column];
  std::string& first = truth ? facts.truth_at : facts.number_at;
  if (first.empty() && (truth || (std::isfinite(*read) && *read != 0 && *read != 1))) first = reader.where(field);
  if (!facts.truth_at.empty() && !facts.number_at.empty())
    reader.fail(field.column,
                fmt::format("{}: the column mixes True or False ({}) with other numbers than 0 and 1 ({}){}",
                            field.text, facts.truth_at, facts.number_at, named));
  return *read;
}

bool CsvImport::check(const CsvReader& reader, const std::vector<CsvField>& fields) {
  bool good = true, bytes = true;
  const auto numbers = [&](const std::vector<std::size_t>& which) {
    for (const std::size_t i : which) {
      const CsvField& field = fields[i];
      const double read = checked_value(reader, field, i);
      bytes = bytes && read >= 0 && read <= 255 && read == std::floor(read);
      if (good && !std::isfinite(static_cast<float>(read))) {
        findings_.add("rows with missing values or values that are not finite", row_,
                      fmt::format("{}: {}", reader.where(field), field.text.empty() ? "empty" : field.text));
        good = false;
      }
    }
  };
  numbers(columns_.features);
  if (good) bytes_ = bytes_ && bytes;
  numbers(columns_.targets);
  if (good && columns_.label) good = check_label(reader, fields[*columns_.label]);
  look_at(fields);
  return good;
}

void CsvImport::look_at(const std::vector<CsvField>& fields) {
  const auto label = columns_.label ? number(fields[*columns_.label]) : std::nullopt;
  for (const auto* which : {&columns_.features, &columns_.nameless})
    for (const std::size_t i : *which) facts_[i].see(fields[i], value(fields[i]), label, row_);
}

/// A first column of integers without a name is an index, as pandas writes it.
void CsvImport::settle_columns() {
  for (const std::size_t i : columns_.nameless) {
    if (facts_[i].empty || (i == 0 && facts_[i].integers)) continue;
    throw DataError(
        fmt::format("{}: column {} has no name; give it one in the first line, or leave it out with "
                    "--ignore {}",
                    files_[0], i, i));
  }
}

/// For the summary: what was left out, and what may not be meant as a feature.
std::string CsvImport::odd_columns() const {
  std::string text;
  for (const std::size_t i : columns_.nameless)
    text += fmt::format("left out column {}, which has no name: {}\n", i,
                        facts_[i].empty ? "it is empty" : "it is an index of the rows");
  std::size_t odd = 0;
  constexpr std::size_t shown = 8;
  const auto say = [&](std::size_t i, const char* what) {
    if (++odd <= shown)
      text += fmt::format("column {} {}; --ignore {} leaves it out\n", column_text(i), what, column_text(i));
  };
  for (const std::size_t i : columns_.features) {
    if (const char* const what = facts_[i].odd(kept_, !options_.shape.empty())) {
      say(i, what);
    } else if (!columns_.names.empty() &&
               std::count(columns_.names.begin(), columns_.names.end(), columns_.names[i]) > 1) {
      say(i, "has a name that another column has, too");
    }
  }
  if (odd > shown) text += fmt::format("and {} more such columns\n", odd - shown);
  const std::size_t features = columns_.features.size();
  const auto side = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(features))));
  if (options_.shape.empty() && has_header_ && features >= 16 && side * side == features &&
      std::all_of(columns_.features.begin(), columns_.features.end(),
                  [&](std::size_t i) { return columns_.names[i].starts_with("pixel"); }))
    text += fmt::format("the columns look like pixels; --shape {},{} makes images of them\n", side, side);
  return text;
}

/// Words become numbers in the order of the alphabet.
void CsvImport::settle_labels() {
  std::vector<std::int32_t> number(words_.size());
  std::int32_t next = 0;
  for (const auto& [word, came] : words_) number[static_cast<std::size_t>(came)] = next++;
  if (!words_.empty())
    for (auto& label : labels_) label = number[static_cast<std::size_t>(label)];
  if (options_.classes > 0 && static_cast<std::int64_t>(words_.size()) > options_.classes)
    throw DataError(fmt::format("{}: there are {} different labels, more than --classes {}", files_[0], words_.size(),
                                options_.classes));
}

std::string CsvImport::x_text() const {
  if (options_.shape.empty())
    return fmt::format("{} samples of {} features (float32)", kept_, columns_.features.size());
  const std::vector<std::uint64_t> dims = sample_dims();
  const bool last = options_.layout == StoredLayout::channels_last;
  return fmt::format("{} images [{}] ({}, {})", kept_, fmt::join(dims, ", "), last ? "channels last" : "channels first",
                     name_of(x_type()));
}

void CsvImport::write(const std::string& out) {
  h5::Writer writer(out);
  const std::size_t features = columns_.features.size(), targets = columns_.targets.size();
  const std::array<std::uint64_t, 2> t_dims{kept_, targets};
  const std::array<std::uint64_t, 1> y_dims{kept_};
  std::vector<std::uint64_t> x_dims = sample_dims();
  x_dims.insert(x_dims.begin(), kept_);
  const bool image = !options_.shape.empty(), last = options_.layout == StoredLayout::channels_last;
  const StoredType type = x_type();
  const std::size_t x_set = writer.add("x", type, x_dims, options_.storage);
  if (image) writer.attribute(x_set, "layout", last ? "NHWC" : "NCHW");
  std::size_t y_set = 0;
  if (targets > 0) y_set = writer.add("y", StoredType::f32, t_dims, options_.storage);
  if (columns_.label) {
    y_set = writer.add("y", StoredType::i32, y_dims, options_.storage);
    writer.write(y_set, 0, kept_, labels_.data());
  }
  const std::uint64_t chunk = h5::Writer::chunk_rows(type, x_dims, options_.storage);
  const std::uint64_t block =
      std::min(kept_, chunk * std::max<std::uint64_t>(1, block_bytes / (chunk * features * sizeof(float))));
  std::vector<float> x(block * features), t(block * targets);
  std::vector<std::uint8_t> bytes(type == StoredType::u8 ? x.size() : 0);
  ChannelStatistics statistics(type, std::span(x_dims).subspan(1), last);
  std::uint64_t written = 0, waiting = 0;
  const auto flush = [&] {
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(x[i]);
    const void* const stored = bytes.empty() ? static_cast<const void*>(x.data()) : bytes.data();
    writer.write(x_set, written, waiting, stored);
    if (targets > 0) writer.write(y_set, written, waiting, t.data());
    statistics.add(static_cast<const std::byte*>(stored), waiting);
    written += std::exchange(waiting, 0);
  };
  each_row([&](const CsvReader& reader, const std::vector<CsvField>& fields) {
    const auto changed = [&reader] { reader.fail(1, "the file was changed while it was read"); };
    if (row_ >= bad_.size()) changed();
    if (bad_[row_] != 0) return;
    const auto copy = [&](const std::vector<std::size_t>& which, std::vector<float>& to) {
      for (std::size_t i = 0; i < which.size(); ++i) {
        const auto read = value(fields[which[i]]);
        if (!read) changed();
        to[waiting * which.size() + i] = static_cast<float>(*read);
      }
    };
    copy(columns_.features, x);
    copy(columns_.targets, t);
    if (++waiting == block) flush();
  });
  flush();
  if (written != kept_) throw DataError(fmt::format("{}: was changed while it was read", files_[0]));
  if (columns_.label) {
    const auto classes =
        static_cast<double>(labels_.empty() ? 0 : 1 + *std::max_element(labels_.begin(), labels_.end()));
    writer.attribute(y_set, "classes", std::span(&classes, 1));
  }
  std::vector<std::string> names;
  for (const auto& [word, came] : words_) names.push_back(word);
  if (!names.empty()) writer.add_names("class_names", names);
  const auto named = [&](const char* set, const std::vector<std::size_t>& which) {
    names.clear();
    for (const std::size_t i : which) names.push_back(columns_.names[i]);
    writer.add_names(set, names);
  };
  if (has_header_ && !image) named("feature_names", columns_.features);
  if (has_header_ && targets > 0) named("target_names", columns_.targets);
  writer.commit();
  normalize_ = statistics.normalize();
}

std::string CsvImport::run(const std::string& out) {
  if (!options_.label.empty() && !options_.targets.empty())
    throw ConfigError("import csv: --label and --target exclude each other: classes, or values to predict");
  if (options_.classes > 0 && options_.label.empty()) throw ConfigError("import csv: --classes needs --label");
  each_row([this](const CsvReader& reader, const std::vector<CsvField>& fields) {
    const bool good = check(reader, fields);
    bad_.push_back(good ? 0 : 1);
    kept_ += good;
  });
  const std::string source = files_.size() == 1 ? files_[0] : fmt::format("{} files", files_.size());
  findings_.settle(options_.on_error, source);
  if (kept_ == 0)
    throw DataError(
        fmt::format("{}: no rows{}", source, findings_.count() > 0 ? " are left: " + findings_.text() : ""));
  settle_columns();
  settle_labels();
  write(out);
  std::string text = fmt::format("wrote {}: {}", out, x_text());
  if (columns_.label) text += fmt::format(", {} classes", 1 + *std::max_element(labels_.begin(), labels_.end()));
  if (!columns_.targets.empty()) text += fmt::format(", {} targets", columns_.targets.size());
  text += fmt::format("; {}: {}", has_header_ ? "the first line is a header" : "no header", header_because_);
  if (delimiter_ != ',' && !options_.delimiter)
    text += fmt::format("; fields are separated by {}", delimiter_ == '\t' ? "tabs" : std::string(1, delimiter_));
  text += '\n';
  text += odd_columns();
  if (findings_.count() > 0) text += fmt::format("dropped {}\n", findings_.text());
  if (!normalize_.empty()) text += fmt::format("normalize: {}\n", normalize_);
  return text;
}

}  // namespace

std::string import_csv(std::span<const std::string> files, const std::string& out, const CsvImportOptions& options) {
  check_output(out, files);
  return CsvImport(files, options).run(out);
}

}  // namespace dtrain::io
