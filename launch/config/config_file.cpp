#include "launch/config/config_file.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "launch/base/text.hpp"
#include "launch/config/config_checks.hpp"
#include "launch/config/tables.hpp"
#include "launch/config/yaml.hpp"
#include "models/model/build.hpp"
#include "runtime/config/document.hpp"
#include "runtime/config/fields.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t max_path_parts = 32;

void set_place(Document& d, const Place& place) {
  d.place = place;
  for (auto& item : d.items) set_place(item, place);
  for (auto& entry : d.entries) {
    entry.place = place;
    set_place(entry.value, place);
  }
}

/// Index of a list item, if `part` is one.
std::optional<std::size_t> item_index(const std::string& part, std::size_t size) {
  if (part.empty() || part.size() > 6 || part.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
  const auto index = static_cast<std::size_t>(std::stoul(part));
  return index < size ? std::optional(index) : std::nullopt;
}

/// Puts an override's value where its key says; what stood there is gone.
void apply(Document& root, const std::vector<std::string>& parts, Document value, std::vector<FieldProblem>& problems) {
  Document* at = &root;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (at->kind == Document::Kind::list) {
      const auto index = item_index(parts[i], at->items.size());
      if (!index) {
        problems.push_back(
            {value.place,
             {},
             fmt::format("no item {} in a list of {}; expected an index from 0 to {}", json_string(parts[i]),
                         at->items.size(), at->items.empty() ? 0 : at->items.size() - 1)});
        return;
      }
      at = &at->items[*index];
      continue;
    }
    if (at->kind != Document::Kind::map) {
      // `optimizer: adam` and optimizer.adam.learning_rate=... or optimizer.shard=...: the bare name may be that of a
      // kind, as the table knows.
      Document map = Document::map();
      map.place = at->kind == Document::Kind::null ? value.place : at->place;
      if (at->is_scalar()) {
        Document kind = map;
        map.entries.push_back({at->text, map.place, std::move(kind), true});
      }
      *at = std::move(map);
    }
    auto entry = std::find_if(at->entries.begin(), at->entries.end(), [&](const auto& e) { return e.key == parts[i]; });
    if (entry == at->entries.end()) {
      entry = at->entries.insert(entry, {parts[i], value.place, {}});
      entry->value.place = value.place;
    }
    if (i + 1 == parts.size()) entry->place = value.place;
    entry->alone = false;
    at = &entry->value;
  }
  *at = std::move(value);
}

/// What is known of the field, or of the nearest section that holds it.
template <class T>
T nearest(const std::map<std::string, T>& places, std::string field, const T& nowhere) {
  while (!places.contains(field)) {
    const std::size_t dot = field.rfind('.');
    if (dot == std::string::npos) return nowhere;
    field.resize(dot);
  }
  return places.at(field);
}

Json to_json(const Document& d) {
  Json out;
  if (d.kind == Document::Kind::plain) return Json::parse(d.text);
  if (d.kind == Document::Kind::quoted) return d.text;
  if (d.kind == Document::Kind::list) out = Json::array();
  if (d.kind == Document::Kind::map) out = Json::object();
  for (const auto& item : d.items) out.push_back(to_json(item));
  for (const auto& entry : d.entries) out[entry.key] = to_json(entry.value);
  return out;
}

std::string default_log_directory(const RunConfig& c) {
  return "runs/" + c.name;
}
std::string default_checkpoint_directory(const RunConfig& c) {
  return c.log.directory + "/checkpoints";
}

/// So that a copy of the resolved file under another name writes to directories of that name.
RunConfig without_default_directories(RunConfig c) {
  if (c.checkpoint.directory == default_checkpoint_directory(c)) c.checkpoint.directory.clear();
  if (c.log.directory == default_log_directory(c)) c.log.directory.clear();
  return c;
}

std::vector<ReferenceSection> reference() {
  std::vector<ReferenceSection> sections;
  run_table()->reference(sections, "");
  return sections;
}

class Loader {
 public:
  Loader(std::string_view text, const std::string& file, std::span<const std::string> overrides) {
    out_.file = file;
    out_.overrides.assign(overrides.begin(), overrides.end());
    root_ = read_yaml(text, 1, problems_);
    if (root_.kind == Document::Kind::null && !problems_.empty()) readable_ = false;
    if (root_.kind == Document::Kind::null) {  // an empty file says nothing: what is required is reported as missing
      root_ = Document::map();
      root_.place = {1, 0, 0};
    } else if (root_.kind != Document::Kind::map) {
      problems_.push_back({root_.place, {}, fmt::format("got {}; expected a map of settings", root_.describe())});
      readable_ = false;
    }
    for (std::size_t i = 0; i < overrides.size(); ++i) read_override(overrides[i], static_cast<int>(i) + 2);
  }

  LoadedConfig load() {
    if (readable_) {
      for (const auto& section : reference())
        for (const auto& row : section.rows)
          if (!section.path.empty()) reader_.known_paths.push_back(section.path + '.' + row.name);
      run_table()->read(root_, out_.config, reader_);
      problems_.insert(problems_.end(), reader_.problems().begin(), reader_.problems().end());
      out_.remarks = reader_.remarks;
      for (const auto& [path, place] : reader_.places())
        if (place.source > 0) out_.places.emplace(path, located({place, path, {}}));
      expand_paths();
      check_config(
          out_.config, root_.find("model") != nullptr, [this](std::string_view path) { return sound(path); },
          [this](const std::string& field, const std::string& text) { problem(field, text); });
    }
    throw_problems();
    derive();
    const Document canonical = run_table()->write(without_default_directories(out_.config));
    out_.canonical = to_yaml(canonical);
    out_.hash = fmt::format("{:016x}", XXH3_64bits(out_.canonical.data(), out_.canonical.size()));
    for (auto& leaf : leaves(canonical)) out_.fields.emplace_back(std::move(leaf.path), std::move(leaf.value));
    return std::move(out_);
  }

 private:
  void read_override(const std::string& text, int source) {
    const Place place{source, 0, 0};
    const auto problem = [&](std::string what) { problems_.push_back({place, {}, std::move(what)}); };
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) return problem("expected key.sub=value");
    std::vector<std::string> parts;
    std::string_view key = std::string_view(text).substr(0, equals);
    while (true) {
      const std::size_t dot = key.find('.');
      parts.emplace_back(key.substr(0, dot));
      if (parts.back().empty()) return problem("an empty part in the key; expected key.sub=value");
      if (dot == std::string_view::npos) break;
      key.remove_prefix(dot + 1);
    }
    if (parts.size() > max_path_parts) return problem("too many parts in the key; expected key.sub=value");
    std::vector<FieldProblem> own;
    Document value = read_yaml(std::string_view(text).substr(equals + 1), source, own);
    if (equals + 1 == text.size()) return problem("there is no value behind \"=\"; key=null unsets a key");
    for (auto& p : own) problem(std::move(p.text));
    if (!own.empty() || !readable_) return;
    set_place(value, place);
    apply(root_, parts, std::move(value), problems_);
  }

  ConfigProblem located(const FieldProblem& p) const {
    ConfigProblem out;
    if (p.place.source == 1) {
      out.file = out_.file;
    } else if (p.place.source > 1) {
      std::string given = out_.overrides[static_cast<std::size_t>(p.place.source - 2)];
      if (given.size() > 100) given = given.substr(0, 97) + "...";
      for (char& c : given)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
      out.file = "command line: " + given;
    }
    out.line = p.place.line;
    out.column = p.place.column;
    out.field = p.path;
    out.text = p.text;
    return out;
  }

  bool sound(std::string_view path) const {
    return std::none_of(problems_.begin(), problems_.end(),
                        [&](const FieldProblem& p) { return std::string_view(p.path).starts_with(path); });
  }

  void problem(const std::string& field, const std::string& text) {
    problems_.push_back({nearest(reader_.places(), field, Place{1, 0, 0}), field, text});
  }

  void throw_problems() {
    if (problems_.empty()) return;
    std::stable_sort(problems_.begin(), problems_.end(),
                     [](const FieldProblem& a, const FieldProblem& b) { return a.place.before(b.place); });
    std::vector<ConfigProblem> out;
    for (const auto& p : problems_) out.push_back(located(p));
    throw ConfigError(std::move(out));
  }

  /// As the shell does it for other commands; without that a folder would get the name `~`.
  void expand_paths() {
    RunConfig& c = out_.config;
    const auto expand = [this](const char* field, std::string& path) {
      try {
        path = expand_path(path);
      } catch (const ConfigError& e) {
        problem(field, fmt::format("{}: {}", field, e.what()));
      }
    };
    for (std::string& file : c.data.train) expand("data.train", file);
    for (std::string& file : c.data.eval.files) expand("data.eval", file);
    expand("model.initialize_from", c.model.initialize_from.path);
    expand("log.directory", c.log.directory);
    expand("checkpoint.directory", c.checkpoint.directory);
    expand("checkpoint.resume", c.checkpoint.resume_directory);
  }

  void derive() {
    RunConfig& c = out_.config;
    // Earlier versions wrote such defaults into the resolved file.
    const std::string& log = c.log.directory;
    if (log.starts_with("runs/") && log != default_log_directory(c) && c.checkpoint.directory == log + "/checkpoints")
      out_.remarks.push_back(
          fmt::format("the name is {}, and log.directory and checkpoint.directory are those of {}: remove both lines "
                      "for {}",
                      c.name, log, default_log_directory(c)));
    if (c.log.directory.empty()) c.log.directory = default_log_directory(c);
    while (c.log.directory.size() > 1 && c.log.directory.ends_with('/')) c.log.directory.pop_back();
    if (c.checkpoint.directory.empty()) c.checkpoint.directory = default_checkpoint_directory(c);
    const bool elastic = c.deterministic == Deterministic::elastic;
    // oneDNN's sums depend on the number of threads.
    if (elastic && c.threads == 0) c.threads = 1;
    if (elastic || c.optimizer.shard || c.communication.gradient_dtype == DType::bf16)
      c.communication.algorithm = comm::Algorithm::fixed_order;
  }

  LoadedConfig out_;
  Document root_;
  Reader reader_;
  std::vector<FieldProblem> problems_;
  bool readable_ = true;
};

}  // namespace

ConfigProblem LoadedConfig::problem(std::string_view field, const std::string& text) const {
  ConfigProblem nowhere;
  nowhere.file = file;
  ConfigProblem out = nearest(places, std::string(field), nowhere);
  out.field = field;
  out.text = text;
  return out;
}

LoadedConfig parse_config(std::string_view text, const std::string& file, std::span<const std::string> overrides) {
  return Loader(text, file, overrides).load();
}

std::vector<std::pair<std::string, std::string>> fields_of(std::string_view canonical,
                                                           std::vector<std::pair<std::string, std::string>> recorded) {
  try {
    return parse_config(canonical, "checkpoint").fields;
  } catch (const ConfigError&) {
    return recorded;
  }
}

LoadedConfig load_config(const std::string& file, std::span<const std::string> overrides) {
  // One byte more than is allowed is enough to know.
  std::string text(YamlLimits{}.bytes + 1, '\0');
  std::ifstream in(file, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!in.is_open() || in.bad())
    throw ConfigError(fmt::format("{}: cannot read the configuration: {}", file, std::strerror(errno)));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return parse_config(text, file, overrides);
}

BatchSplit check_batch(const LoadedConfig& loaded, int ranks) {
  const std::int64_t global = loaded.config.batch.global, micro = loaded.config.batch.micro;
  if (ranks < 1) throw ConfigError(fmt::format("{} ranks; expected at least 1", ranks));
  if (loaded.config.deterministic == Deterministic::elastic && !std::has_single_bit(static_cast<unsigned>(ranks))) {
    throw ConfigError(std::vector<ConfigProblem>{loaded.problem(
        "deterministic", fmt::format("deterministic: elastic on {} ranks; expected 1, 2, 4, 8 or another "
                                     "power of two",
                                     ranks))});
  }
  const std::int64_t unit = (micro > 0 ? micro : 1) * ranks;
  if (global % unit == 0) {
    const std::int64_t all = loaded.config.batch.schedule().unit();  // equal to `global` without a warm-up
    if (all % unit != 0)
      throw ConfigError(std::vector<ConfigProblem>{loaded.problem(
          "batch.warmup", fmt::format("batch.warmup: batches that are multiples of {} cannot be divided among {} ranks "
                                      "in micro batches of {}; expected `from` and `increment` to be multiples of {}",
                                      all, ranks, micro > 0 ? micro : 1, unit))});
    const std::int64_t of_rank = micro > 0 ? micro : all / ranks;
    return {of_rank, global / ranks / of_rank};
  }
  const std::int64_t below = global / unit * unit, above = below + unit;
  const std::string numbers = below > 0 ? fmt::format("{} or {}", below, above) : fmt::format("{}", above);
  std::string what;
  if (micro > 0) {
    what = fmt::format(
        "batch.global: {} cannot be divided among {} ranks in micro batches of {}; expected a multiple of {}: {}",
        global, ranks, micro, unit, numbers);
    if (global % ranks == 0) what += "; or batch.micro: auto";
  } else {
    what = fmt::format("batch.global: {} cannot be divided among {} ranks; expected a multiple of {}: {}", global,
                       ranks, ranks, numbers);
  }
  throw ConfigError(std::vector<ConfigProblem>{loaded.problem("batch.global", what)});
}

std::int64_t total_steps(const RunConfig& c, std::uint64_t samples) {
  if (c.train.steps > 0) return c.train.steps;
  std::int64_t positions = 0;
  if (samples > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) ||
      __builtin_mul_overflow(c.train.epochs, static_cast<std::int64_t>(samples), &positions)) {
    throw ConfigError(fmt::format("train.epochs: {} of {} samples are too many", c.train.epochs, samples));
  }
  return c.batch.schedule().steps_for(positions);
}

std::string schedule_warning(const RunConfig& c, std::int64_t steps) {
  if (steps < 1 || c.schedule.warmup_steps <= steps) return {};
  return fmt::format(
      "schedule.warmup_steps is {}, and the run has {} steps: it ends before the learning rate has risen to its full "
      "value",
      c.schedule.warmup_steps, steps);
}

std::string show_config(const LoadedConfig& loaded) {
  const auto place = [](const ConfigProblem& p) {
    return p.line > 0 ? fmt::format("{}:{}:{}", p.file, p.line, p.column) : p.file;
  };
  const auto comment = [&](const std::string& path) {
    const auto it = loaded.places.find(path);
    std::string text = it == loaded.places.end() ? std::string() : place(it->second);
    // A line may hold several settings: those that came from elsewhere are named.
    for (auto below = loaded.places.lower_bound(path + '.'); below != loaded.places.end(); ++below) {
      if (!below->first.starts_with(path + '.')) break;
      if (below->second.line > 0 && !text.empty()) continue;
      text +=
          fmt::format("{}{}: {}", text.empty() ? "" : "; ", below->first.substr(path.size() + 1), place(below->second));
    }
    return text.empty() ? std::string("default") : text;
  };
  return to_yaml(run_table()->write(loaded.config), comment);
}

std::string to_json_text(const Document& document) {
  return to_json(document).dump(2) + "\n";
}

std::string config_schema() {
  Json schema{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", "dtrain configuration"}};
  schema.update(to_json(run_table()->schema()));
  return schema.dump(2) + "\n";
}

std::vector<std::string> may_change_on_resume() {
  std::vector<std::string> settings;
  for (const auto& section : reference())
    for (const auto& row : section.rows)
      if (row.may_change) settings.push_back(section.path.empty() ? row.name : section.path + '.' + row.name);
  return settings;
}

std::string config_reference() {
  std::string out =
      "# Configuration reference\n\n"
      "Made from the tables of fields by `dtrain config schema --markdown`; do not edit. Every key has a default "
      "except\n"
      "those marked *required*. Any key may be given on the command line as `key.sub=value`, where the value is YAML\n"
      "and replaces what stood there; list items count from 0 (`model.layers.0.dense.units=64`). `key.sub=null` unsets "
      "a "
      "key,\n"
      "so that its default counts.\n"
      "In paths of files and folders `~/`, `$NAME` and `${NAME}` are replaced as in a shell.\n"
      "A run that resumes from a checkpoint may change the keys marked `*`; to change others it needs "
      "`checkpoint.force: true`.\n";
  const auto cell = [](const std::string& text) {
    std::string safe;
    for (const char c : text) {
      if (c == '|') safe += '\\';
      safe += c;
    }
    return safe;
  };
  for (const auto& section : reference()) {
    out += fmt::format("\n## {}\n\n{}\n", section.path.empty() ? "Top level" : "`" + section.path + "`", section.help);
    if (section.rows.empty()) continue;
    out += "\n| key | expected | default | what |\n|---|---|---|---|\n";
    for (const auto& row : section.rows) {
      const std::string fallback = row.fallback.empty()         ? ""
                                   : row.fallback == "required" ? "*required*"
                                                                : "`" + row.fallback + "`";
      out += fmt::format("| `{}`{} | {} | {} | {} |\n", row.name, row.may_change ? " `*`" : "", cell(row.type),
                         cell(fallback), cell(row.help));
    }
  }
  return out;
}

}  // namespace dtrain::launch
