#include "io/dataset/dataset.hpp"

#include <algorithm>
#include <iterator>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "io/dataset/detect.hpp"
#include "io/dataset/port_rows.hpp"
#include "io/samples/text_samples.hpp"
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

/// How a port is called in a configuration.
std::string_view section_of(PortUse use) {
  return use == PortUse::input ? "inputs" : use == PortUse::target ? "targets" : "weights";
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
  std::map<std::pair<dev_t, ino_t>, const std::string*> known;  // a link, or another spelling of the path
  for (const std::string& file : files) {
    struct stat status {};
    if (::stat(file.c_str(), &status) != 0) continue;  // told when it is opened
    const auto [other, first] = known.try_emplace({status.st_dev, status.st_ino}, &file);
    if (!first)
      throw DataError(fmt::format("{}: is the same file as {}; each shard may appear once", file, *other->second));
  }
  return files;
}

struct Dataset::State {
  ShardList list;
  std::shared_ptr<OpenFiles> open_files;
  std::unique_ptr<TextSamples> text_samples;  // where samples are that; `rows` are parts of it
  std::vector<PortRows> rows;
  std::vector<DataPort> ports;  // of `rows`, once these are open
  std::vector<Description> descriptions;
  bool in_memory = false;
  std::string fingerprint;
  BlockLayout blocks;

  void open(const DatasetOptions&);
  void open_file(const h5::File&, const std::vector<PortSource>&, bool evaluation);
  void make_text(const TextConfig&, const std::vector<PortSource>&);
  void open_text(const h5::File&, const std::vector<PortSource>&);
  std::vector<PortSource> detected(const h5::File&);
  void load(const DatasetOptions&);
  void make_fingerprint();
  void make_blocks();
  /// The first port of a use, or null.
  const PortRows* first_of(PortUse) const;
};

const PortRows* Dataset::State::first_of(PortUse use) const {
  const auto at = std::find_if(rows.begin(), rows.end(), [use](const PortRows& r) { return r.port().use == use; });
  return at == rows.end() ? nullptr : &*at;
}

/// The samples, and the targets if the file has any, as the first file has them.
std::vector<PortSource> Dataset::State::detected(const h5::File& file) {
  const Detected found = detect(file, "", "", TargetUse::automatic);
  std::vector<PortSource> sources{{"input", PortUse::input, false, found.sample.path, {}, {}}};
  if (found.target) {
    const bool index = !is_float(*found.target->type);
    sources.push_back({"target", PortUse::target, index, found.target->path, {}, {}});
    const std::uint64_t width =
        found.target->rows() == 0 ? 1 : found.target->row_bytes() / size_of(*found.target->type);
    if (index && width != 1) {
      throw DataError(fmt::format("{}: {}: labels must be one integer a sample, [{}]; one-hot rows are not labels",
                                  file.path(), found.target->text(), found.target->rows()));
    }
  }
  const bool had_targets = rows.size() > 1;
  if (!rows.empty() && had_targets != found.target.has_value()) {
    if (had_targets) {
      throw DataError(fmt::format("{}: has no targets, but {} has {}; shards must agree", file.path(), list.files[0],
                                  rows[1].port().key));
    }
    throw DataError(fmt::format("{}: has targets ({}), but {} has none; shards must agree", file.path(),
                                found.target->path, list.files[0]));
  }
  return sources;
}

void Dataset::State::open_file(const h5::File& file, const std::vector<PortSource>& sources, bool evaluation) {
  PortFinder finder(file, evaluation);
  const std::uint64_t first = list.count();
  std::uint64_t count = 0;
  std::string counted;
  const auto label_targets = std::count_if(sources.begin(), sources.end(),
                                           [](const PortSource& s) { return s.use == PortUse::target && s.index; });
  bool usual_input = true, usual_target = true;  // only the first of them, `input` or `target`, may have a usual name
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const PortSource& source = sources[i];
    bool& usual = source.use == PortUse::input ? usual_input : usual_target;
    const h5::DatasetInfo info = finder.of(source, usual && source.use != PortUse::weight);
    if (source.use != PortUse::weight) usual = false;
    std::optional<h5::DatasetInfo> offsets;
    if (!source.offsets.empty()) offsets = finder.of_key(source.offsets);
    Description said = describe(file, info, source.name, source.use, source.index);
    if (said.classes && label_targets > 1) said.names.clear();  // of which of them is not said
    const std::uint64_t n =
        rows[i].add(file.path(), info, offsets ? &*offsets : nullptr, open_files, list, std::move(said));
    const std::string& key = offsets ? offsets->path : info.path;
    if (i == 0) {
      count = n;
      counted = key;
    } else if (n != count) {
      const std::string_view what = offsets ? "gives" : "has";
      throw DataError(fmt::format("{}: {} {} {} rows, but {} has {}", file.path(), key, what, n, counted, count));
    }
  }
  list.first.push_back(first + count);
  for (PortRows& port : rows) port.read_labels(list);
}

void Dataset::State::make_text(const TextConfig& config, const std::vector<PortSource>& sources) {
  bool apart = false, labels = false;
  std::optional<std::int64_t> ignore;
  for (const PortSource& source : sources) {
    if (source.text == TextPart::none) throw BugError("dataset: a port that is no part of a text");
    apart = apart || source.text == TextPart::documents;
    labels = labels || source.text == TextPart::labels;
    if (source.text == TextPart::labels) ignore = source.ignore;
  }
  if (labels && (apart || config.objective == TextConfig::Objective::masked) && !ignore)
    throw BugError("dataset: positions without a label, and no label that says so");
  text_samples = std::make_unique<TextSamples>(config, apart, ignore);
}

void Dataset::State::open_text(const h5::File& file, const std::vector<PortSource>& sources) {
  const std::uint64_t count = text_samples->add(file, open_files);
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const PortSource& source = sources[i];
    rows[i].add(*text_samples, source.text,
                describe(file, text_samples->tokens(), source.name, source.use, source.index));
  }
  list.first.push_back(list.count() + count);
}

void Dataset::State::open(const DatasetOptions& options) {
  const bool automatic = options.ports.empty();
  if (options.text) make_text(options.text, options.ports);
  list.first.push_back(0);
  std::vector<PortSource> sources = options.ports;
  for (const std::string& path : list.files) {
    const h5::File file(path);
    if (automatic) sources = detected(file);
    if (rows.empty())
      for (const PortSource& source : sources) rows.emplace_back(source);
    text_samples ? open_text(file, sources) : open_file(file, sources, options.evaluation);
  }
  if (text_samples) text_samples->check_count();
  for (PortRows& r : rows) {
    descriptions.push_back(r.match(find_description(options.reference, r.port().use, r.port().name), list));
    ports.push_back(r.port());
  }
}

void Dataset::State::load(const DatasetOptions& options) {
  double bytes = text_samples ? text_samples->stored_bytes() : 0;
  for (const PortRows& r : rows) bytes += r.stored_bytes();
  in_memory = bytes <= options.cache_mib * 1024 * 1024;
  if (!in_memory) return;
  if (text_samples) return text_samples->load(reading_threads());
  const auto begin_of = [&](int part) {
    return part_begin(list.count(), static_cast<std::uint64_t>(part), static_cast<std::uint64_t>(options.part.count),
                      static_cast<std::uint64_t>(options.part.batch));
  };
  const std::uint64_t begin = begin_of(options.part.index), end = begin_of(options.part.index + 1);
  for (PortRows& r : rows) r.load(list, begin, end, r.port().use == PortUse::input ? reading_threads() : 1);
}

/// By the largest input: the others' bands are small beside it.
void Dataset::State::make_blocks() {
  if (in_memory) return;
  const PortRows* port = nullptr;
  for (const PortRows& r : rows) {
    const bool fits = r.port().use == PortUse::input && !r.port().ragged();
    if (fits && (port == nullptr || r.port().row_bytes > port->port().row_bytes)) port = &r;
  }
  if (port == nullptr) return;
  const std::size_t shards = list.files.size();
  // Where rows are cheap in one shard and bands in another, blocks of the bands' size serve both.
  std::uint64_t most = 1;
  for (std::size_t s = 0; s < shards; ++s) most = std::max(most, port->band_rows(s));
  if (most == 1) return;
  for (std::size_t s = 0; s < shards; ++s) {
    const std::uint64_t band = port->band_rows(s), step = band > 1 ? band : most;
    for (std::uint64_t row = list.first[s]; row < list.first[s + 1]; row += step) blocks.starts.push_back(row);
  }
}

void Dataset::State::make_fingerprint() {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  const auto add = [&](const void* bytes, std::size_t n) { XXH3_64bits_update(hash.get(), bytes, n); };
  const auto add_text = [&](const std::string& text) { add(text.data(), text.size()); };
  std::vector<std::byte> scratch;
  for (const DataPort& p : ports) scratch.resize(std::max(scratch.size(), p.scratch_bytes()));
  const auto add_row = [&](const PortRows& r, std::uint64_t index) {
    if (!r.has_rows()) return;
    const Row row = r.row(list, index, scratch.data());
    add(row.data, r.port().row_bytes * static_cast<std::size_t>(row.length));
  };
  // Rows of the whole set, not of shards, so that resharding the same data keeps the fingerprint.
  const std::uint64_t count = list.count(), n = std::min(count, fingerprint_rows);
  const auto sampled = [&](std::uint64_t i) { return n == 1 ? 0 : i * (count - 1) / (n - 1); };

  // The first input and the first target: as it was when a set had no other, as checkpoints hold fingerprints.
  static const DataPort nothing;
  const PortRows *input = first_of(PortUse::input), *target = first_of(PortUse::target);
  const DataPort &x = input != nullptr ? input->port() : nothing, &y = target != nullptr ? target->port() : nothing;
  const int use = static_cast<int>(target == nullptr ? TargetUse::none
                                   : y.index         ? TargetUse::labels
                                                     : TargetUse::values);
  add_text(fmt::format("{}|{} {} {}|{} {} {} {}", count, x.key, name_of(x.type), x.row.str(), y.key, use,
                       name_of(y.type), target != nullptr ? y.row.elements() : 0));
  if (text_samples) add_text(text_samples->digest());
  if (target != nullptr && y.labels) add(target->labels().data(), target->labels().size() * sizeof(std::int32_t));
  for (std::uint64_t i = 0; i < n; ++i) {
    if (input != nullptr) add_row(*input, sampled(i));
    if (target != nullptr) add_row(*target, sampled(i));
  }
  for (const PortRows& r : rows) {
    const DataPort& p = r.port();
    if (p.ragged()) {
      add_text(fmt::format("|{} {}", p.key, p.offsets));
      for (std::uint64_t i = 0; i < count; ++i) {
        const std::int64_t length = r.length(list, i);
        add(&length, sizeof length);
      }
    }
    if (&r == input || &r == target) continue;
    add_text(fmt::format("|{} {} {} {} {}", section_of(p.use), p.key, name_of(p.type), p.row.str(), p.index ? 1 : 0));
    add(r.labels().data(), r.labels().size() * sizeof(std::int32_t));
    for (std::uint64_t i = 0; i < n; ++i) add_row(r, sampled(i));
  }
  fingerprint = fmt::format("{:016x}", XXH3_64bits_digest(hash.get()));
}

Dataset::Dataset(std::span<const std::string> patterns, const DatasetOptions& options)
    : state_(std::make_unique<State>()) {
  state_->list.files = expand_files(patterns);
  state_->open_files = std::make_shared<OpenFiles>(options.open_files);
  state_->open(options);
  if (state_->list.count() == 0) {
    throw DataError(fmt::format("{}: {} holds no samples", state_->list.files[0], port(0).key));
  }
  state_->load(options);
  state_->make_blocks();
  state_->make_fingerprint();
}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

std::uint64_t Dataset::count() const noexcept {
  return state_->list.count();
}
const std::vector<DataPort>& Dataset::ports() const noexcept {
  return state_->ports;
}
const std::vector<std::string>& Dataset::files() const noexcept {
  return state_->list.files;
}
const std::vector<Description>& Dataset::descriptions() const noexcept {
  return state_->descriptions;
}
std::vector<std::string> Dataset::file_names() const {
  std::vector<std::string> all;
  const PortRows* input = state_->first_of(PortUse::input);
  if (input == nullptr || input->port().ragged()) return all;
  for (const std::string& path : files()) {
    const h5::File file(path);
    std::vector<std::string> names = io::file_names(file, file.info(input->port().key));
    if (names.empty()) return {};
    all.insert(all.end(), std::make_move_iterator(names.begin()), std::make_move_iterator(names.end()));
  }
  return all;
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
std::string Dataset::where(std::size_t port, std::uint64_t index) const {
  return state_->rows[port].where(state_->list, index);
}

const TextSamples* Dataset::text() const noexcept {
  return state_->text_samples.get();
}
std::int64_t Dataset::held(std::uint64_t index) const noexcept {
  const std::size_t shard = state_->list.shard_of(index);
  return state_->text_samples->held(shard, index - state_->list.first[shard]);
}
std::string Dataset::token_place(std::size_t i, std::uint64_t index, std::int64_t position) const {
  const ShardList& list = state_->list;
  const std::size_t shard = list.shard_of(index);
  return fmt::format("{}: {}", list.files[shard],
                     state_->text_samples->where(port(i).text, shard, index - list.first[shard], position));
}

void Dataset::check_labels(std::size_t i, std::int64_t classes, std::optional<std::int64_t> ignore) const {
  const PortRows& r = state_->rows[i];
  if (r.port().class_count <= classes) return;
  if (!ignore) ignore = r.ignore();
  for (std::uint64_t row = 0; row < count(); ++row) {
    const std::int64_t label = r.labels()[row];
    if (label < classes || label == ignore) continue;
    throw DataError(fmt::format("{}: the label is {}, but the model has {} classes (labels 0 to {}{})", where(i, row),
                                label, classes, classes - 1,
                                ignore ? fmt::format(", or {}, which is ignored", *ignore) : ""));
  }
}

void Dataset::check_lengths(std::size_t i, std::int64_t most) const {
  const PortRows& r = state_->rows[i];
  if (!r.port().ragged() || r.port().longest <= most) return;
  for (std::uint64_t row = 0; row < count(); ++row) {
    const std::int64_t length = r.length(state_->list, row);
    if (length <= most) continue;
    throw DataError(
        fmt::format("{}: it has {} positions, but the model's {} is planned for {} at most; cut it when "
                    "the file is made, or raise the length in the model",
                    where(i, row), length, r.port().name, most));
  }
}

void Dataset::check_same_lengths(std::size_t port, std::size_t other) const {
  const PortRows &rows = state_->rows[port], &others = state_->rows[other];
  for (std::uint64_t i = 0; i < count(); ++i) {
    const std::int64_t length = rows.length(state_->list, i), wanted = others.length(state_->list, i);
    if (length == wanted) continue;
    throw DataError(
        fmt::format("{}: it has {} positions, but {} has {} there", where(port, i), length, others.port().key, wanted));
  }
}

Dataset::Row Dataset::row(std::size_t port, std::uint64_t index, std::byte* scratch) const {
  return state_->rows[port].row(state_->list, index, scratch);
}

std::uint64_t Dataset::row_hash(std::size_t i, std::uint64_t index, const Row& row) const noexcept {
  const std::size_t bytes = port(i).row_bytes * static_cast<std::size_t>(row.length);
  const std::uint64_t words[] = {XXH3_64bits(row.data, bytes), index, i};
  return XXH3_64bits(words, sizeof words);
}

std::string Dataset::rows_text(std::uint64_t begin, std::uint64_t end) const {
  const ShardList& list = state_->list;
  std::vector<std::string> parts;
  while (begin < end) {
    const std::size_t s = list.shard_of(begin);
    const std::uint64_t last = std::min(end, list.first[s + 1]), first = list.first[s];
    parts.push_back(fmt::format("rows {} to {} of {}", begin - first, last - 1 - first, list.files[s]));
    begin = last;
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::int32_t Dataset::label(std::size_t port, std::uint64_t index) const noexcept {
  return state_->rows[port].labels()[index];
}

}  // namespace dtrain::io
