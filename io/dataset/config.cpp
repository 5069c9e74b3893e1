#include "io/dataset/config.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/augment/tables.hpp"
#include "io/dataset/tables.hpp"

namespace dtrain::io {

namespace {

TypePtr<Normalize> normalize_table() {
  Table<Normalize> table(
      "A stored value v becomes (v * scale - mean) / standard_deviation. In place of this table, `auto`: mean and "
      "standard deviation of the training set, a channel or a column each, computed at the start of a run, kept in its "
      "checkpoints and used by eval and predict.");
  table.add("scale", &Normalize::scale, number(), "0.00392156862745098 takes 0..255 to 0..1");
  table.add("mean", &Normalize::mean, one_or_list_of(number(), "numbers"),
            "subtracted after scaling: one number, or one for each channel");
  table
      .add("standard_deviation", &Normalize::standard_deviation,
           one_or_list_of(number({.least = 0, .above_least = true}), "numbers"),
           "the result is divided by it: one number, or one for each channel")
      .old_spelling("deviation");
  return word_or("auto", Normalize{.mean = {}, .standard_deviation = {}, .automatic = true}, shared(std::move(table)));
}

TypePtr<StoredLayout> stored_layout() {
  return choice<StoredLayout>({{"auto", StoredLayout::unknown},
                               {"channels_first", StoredLayout::channels_first},
                               {"channels_last", StoredLayout::channels_last}});
}

bool is_plain(const Normalize& n) {
  return n.scale == 1 && n.mean.empty() && n.standard_deviation.empty() && !n.automatic;
}

// What inputs, targets and weights have, each field written only where it says something.
void add_key(Table<PortConfig>& table) {
  table
      .add("key", &PortConfig::key, text_or_empty(),
           "HDF5 path of the data set; empty: the one of this name, or for `input` and `target` a usual name")
      .shown_if([](const PortConfig& p) { return !p.key.empty(); });
  table
      .add("offsets", &PortConfig::offsets, text_or_empty(),
           "HDF5 path of the offsets of samples of different lengths: sample i lies at offsets[i] to offsets[i + 1] in "
           "`key`; empty: a row a sample")
      .shown_if([](const PortConfig& p) { return !p.offsets.empty(); });
}
void add_values(Table<PortConfig>& table) {
  table
      .add("layout", &PortConfig::layout, stored_layout(),
           "how the file stores images, volumes and series; auto: by their shape")
      .shown_if([](const PortConfig& p) { return p.layout != StoredLayout::unknown; });
  table
      .add("normalize", &PortConfig::normalize, normalize_table(),
           "how stored values become the numbers that the model reads")
      .shown_if([](const PortConfig& p) { return !is_plain(p.normalize); });
}
void add_follow(Table<PortConfig>& table) {
  table
      .add("follow", &PortConfig::follow, text_or_empty(),
           "the input whose random crops, flips and rotations this one takes, too: the nearest pixel, and what is "
           "ignored (else 0) outside")
      .shown_if([](const PortConfig& p) { return !p.follow.empty(); });
}

TypePtr<PortConfig> port_type(Table<PortConfig> table) {
  return table_or_field<PortConfig, std::string>(
      std::move(table), "key", &PortConfig::key, text(), [](const PortConfig& p) {
        return !p.key.empty() && p.offsets.empty() && p.follow.empty() && p.layout == StoredLayout::unknown &&
               p.augment.empty() && is_plain(p.normalize);
      });
}

TypePtr<PortConfig> input_type() {
  Table<PortConfig> table("Where an input of the model comes from.");
  add_key(table);
  add_values(table);
  table.add("augment", &PortConfig::augment, augmentations(), "random changes of training images, in this order")
      .shown_if([](const PortConfig& p) { return !p.augment.empty(); })
      .may_change();
  add_follow(table);
  return port_type(std::move(table));
}
TypePtr<PortConfig> target_type() {
  Table<PortConfig> table("Where a target of the losses comes from.");
  add_key(table);
  add_values(table);
  add_follow(table);
  return port_type(std::move(table));
}
TypePtr<PortConfig> weight_type() {
  Table<PortConfig> table("Where weights of the losses come from: a number a sample, or a position of it.");
  add_key(table);
  add_follow(table);
  return port_type(std::move(table));
}

TypePtr<Named<EvalPortConfig>> eval_ports(const std::string& items) {
  Table<EvalPortConfig> table("What evaluation reads in place of what training does.");
  table.add("key", &EvalPortConfig::key, text_or_empty(), "HDF5 path of the data set; empty: as in training")
      .shown_if([](const EvalPortConfig& p) { return !p.key.empty(); });
  table.add("offsets", &EvalPortConfig::offsets, text_or_empty(), "HDF5 path of the offsets; empty: as in training")
      .shown_if([](const EvalPortConfig& p) { return !p.offsets.empty(); });
  table.add("layout", &EvalPortConfig::layout, stored_layout(), "how the file stores it; auto: as in training")
      .shown_if([](const EvalPortConfig& p) { return p.layout != StoredLayout::unknown; });
  return map_of(table_or_field<EvalPortConfig, std::string>(std::move(table), "key", &EvalPortConfig::key, text(),
                                                            [](const EvalPortConfig& p) {
                                                              return !p.key.empty() && p.offsets.empty() &&
                                                                     p.layout == StoredLayout::unknown;
                                                            }),
                items);
}

TypePtr<EvalConfig> eval_type() {
  const auto files = one_or_list_of(text(), "files");
  Table<EvalConfig> table("Data to evaluate on, where its data sets have other names than those of training.");
  table.add("files", &EvalConfig::files, files, "HDF5 files or globs; [] for none").required();
  table.add("inputs", &EvalConfig::inputs, eval_ports("inputs"), "the inputs that are elsewhere")
      .shown_if([](const EvalConfig& e) { return !e.inputs.empty(); });
  table.add("targets", &EvalConfig::targets, eval_ports("targets"), "the targets that are elsewhere")
      .shown_if([](const EvalConfig& e) { return !e.targets.empty(); });
  table.add("weights", &EvalConfig::weights, eval_ports("weights"), "the weights that are elsewhere")
      .shown_if([](const EvalConfig& e) { return !e.weights.empty(); });
  return table_or_field<EvalConfig, std::vector<std::string>>(
      std::move(table), "files", &EvalConfig::files, files,
      [](const EvalConfig& e) { return e.inputs.empty() && e.targets.empty() && e.weights.empty(); });
}

}  // namespace

TypePtr<DataConfig> data_table() {
  static const TypePtr<DataConfig> table = [] {
    Table<DataConfig> data("Where samples come from and how they are prepared.");
    // Other files may hold the same data: the fingerprint tells. (cache_mib may not change: it may decide the order.)
    data.add("train", &DataConfig::train, one_or_list_of(text(), "files", 1),
             "HDF5 files or globs; several are shards, in this order")
        .required()
        .may_change();
    data.add("eval", &DataConfig::eval, eval_type(), "HDF5 files or globs to evaluate on; [] for none").may_change();
    data.add("text", &DataConfig::text, text_table(), "samples of files of tokens").shown_if([](const DataConfig& d) {
      return bool(d.text);
    });
    for (const char* field :
         {"sample_key", "target_key", "inputs", "targets", "weights", "normalize", "augment", "mix"})
      data.exclusive("text", field);
    // The short form, for a model of one input and one target.
    const auto short_input = [](const DataConfig& d) { return d.inputs.empty() && !d.text; };
    data.add("sample_key", &DataConfig::sample_key, text_or_empty(),
             "HDF5 path of the samples; empty: the usual names are tried")
        .shown_if(short_input);
    data.add("target_key", &DataConfig::target_key, text_or_empty(),
             "HDF5 path of labels or targets; empty: the usual names are tried")
        .shown_if([](const DataConfig& d) { return d.targets.empty() && !d.text; });
    data.add("inputs", &DataConfig::inputs, map_of(input_type(), "inputs"),
             "by the model's names, in place of sample_key, normalize and augment")
        .shown_if([](const DataConfig& d) { return !d.inputs.empty(); });
    data.add("targets", &DataConfig::targets, map_of(target_type(), "targets"),
             "by the losses' names, in place of target_key")
        .shown_if([](const DataConfig& d) { return !d.targets.empty(); });
    data.add("weights", &DataConfig::weights, map_of(weight_type(), "weights"),
             "by the losses' names; a weight that is not named here is the data set of its name")
        .shown_if([](const DataConfig& d) { return !d.weights.empty(); });
    for (const char* field : {"sample_key", "normalize", "augment"}) data.exclusive("inputs", field);
    data.exclusive("targets", "target_key");
    data.add("shuffle", &DataConfig::shuffle, boolean(), "a new order in every epoch, drawn from the seed");
    data.add("normalize", &DataConfig::normalize, normalize_table(),
             "how stored values become the numbers that the model reads")
        .shown_if(short_input);
    data.add("augment", &DataConfig::augment, augmentations(), "random changes of training images, in this order")
        .shown_if(short_input)
        .may_change();
    data.add("mix", &DataConfig::mix, mix_table(), "pairs of training samples become one sample with both labels")
        .shown_if([](const DataConfig& d) { return d.mix.on(); })
        .may_change();
    data.add("prefetch_threads", &DataConfig::prefetch_threads, integer<int>({1, 256}),
             "threads of each rank that read ahead")
        .may_change();
    data.add("prefetch_batches", &DataConfig::prefetch_batches, integer<int>({2, 1024}),
             "micro batches that are read ahead")
        .may_change();
    data.add(
        "open_files", &DataConfig::open_files, word_or("auto", 0, integer({1, 1 << 20})),
        "how many files of a data set a rank has open at a time; auto: a quarter of the descriptors that it may have");
    data.add("device_cache_mib", &DataConfig::device_cache_mib, number({.least = 0}),
             "a data set of bytes that is not larger is kept whole in each GPU's memory; 0: never");
    data.add("cache_mib", &DataConfig::cache_mib, number({.least = 0}),
             "a data set that is not larger is kept in memory on each rank; 0: never");
    return shared(std::move(data));
  }();
  return table;
}

// ---- what holds for a port ------------------------------------------------------------------------------------------

PortConfig port_config(const DataConfig& data, PortUse use, const std::string& name, bool evaluation) {
  const auto pick = [use](const auto& section) -> const auto& {
    return use == PortUse::input ? section.inputs : use == PortUse::target ? section.targets : section.weights;
  };
  const Named<PortConfig>& named = pick(data);
  PortConfig port;
  const PortConfig* const given = find_named(named, name);
  if (given != nullptr) {
    port = *given;
  } else if (named.empty() && use == PortUse::input) {
    port.key = data.sample_key;
    port.normalize = data.normalize;
    port.augment = data.augment;
  } else if (named.empty() && use == PortUse::target) {
    port.key = data.target_key;
  }
  const EvalPortConfig* const other = evaluation ? find_named(pick(data.eval), name) : nullptr;
  if (other == nullptr) return port;
  if (!other->key.empty()) port.key = other->key;
  if (!other->offsets.empty()) port.offsets = other->offsets;
  if (other->layout != StoredLayout::unknown) port.layout = other->layout;
  return port;
}

namespace {

/// Reports names that are none of the model's.
template <class T>
void check_names(const Named<T>& given, const std::vector<std::string>& names, const std::string& section,
                 std::string_view what, std::vector<PortProblem>& problems) {
  for (const auto& [name, unused] : given) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const std::string near = nearest_name(name, names);
    problems.push_back(
        {section + '.' + name,
         fmt::format("{}.{}: the model has no {} of that name; expected {}{}", section, name, what,
                     names.empty() ? fmt::format("none, as it has no {}s", what) : fields::expected_choice(names),
                     near.empty() ? "" : fmt::format("; did you mean {}?", near))});
  }
}

/// The image at the end of a chain of inputs that follow each other; empty where it has none.
std::string followed_at_last(const Named<PortConfig>& inputs, std::string name) {
  for (std::size_t i = 0; i <= inputs.size(); ++i) {
    const PortConfig* const given = find_named(inputs, name);
    if (given == nullptr || given->follow.empty()) return name;
    name = given->follow;
  }
  return {};  // a circle
}

void check_follow(const Named<PortConfig>& ports, const Named<PortConfig>& inputs,
                  const std::vector<std::string>& names, const std::string& section,
                  std::vector<PortProblem>& problems) {
  for (const auto& [name, port] : ports) {
    if (port.follow.empty()) continue;
    const std::string field = fmt::format("{}.{}.follow", section, name);
    const auto report = [&, &field = field](const std::string& what, const std::string& expected) {
      problems.push_back({field, fmt::format("{}: {}; expected {}", field, what, expected)});
    };
    const bool itself = section == "data.inputs" && port.follow == name;
    if (itself) {
      report("an input cannot follow itself", fields::expected_choice(names));
    } else if (std::find(names.begin(), names.end(), port.follow) == names.end()) {
      const std::string near = nearest_name(port.follow, names);
      report(fmt::format("the model has no input {}", port.follow),
             fields::expected_choice(names) + (near.empty() ? "" : fmt::format("; did you mean {}?", near)));
    } else if (!port.augment.empty()) {
      report("an input with augment cannot follow another", "one of them");
    } else if (const PortConfig* const next = find_named(inputs, port.follow); next && !next->follow.empty()) {
      const std::string image = followed_at_last(inputs, port.follow);
      report(fmt::format("{} itself follows {}", port.follow, next->follow),
             image.empty() || image == name ? "an input that follows none" : image);
    }
  }
}

/// Settings of numbers where there are integers, which stay as they are.
void check_integers(const DataConfig& data, const PortNames& names, std::vector<PortProblem>& problems) {
  const auto report = [&problems](const std::string& field, const std::string& name, std::string_view what) {
    problems.push_back({field, fmt::format("{}: {} has {}, which are read as they are; expected this for numbers alone",
                                           field, name, what)});
  };
  const auto check = [&report](const Named<PortConfig>& given, const Named<EvalPortConfig>& other,
                               const std::vector<std::string>& integers, const std::string& use,
                               std::string_view what) {
    for (const std::string& name : integers) {
      const std::string section = fmt::format("data.{}.{}", use, name);
      if (const PortConfig* const port = find_named(given, name)) {
        if (!is_plain(port->normalize)) report(section + ".normalize", name, what);
        if (port->layout != StoredLayout::unknown) report(section + ".layout", name, what);
        if (!port->augment.empty()) report(section + ".augment", name, what);
      }
      if (const EvalPortConfig* const port = find_named(other, name); port && port->layout != StoredLayout::unknown)
        report(fmt::format("data.eval.{}.{}.layout", use, name), name, what);
    }
  };
  check(data.inputs, data.eval.inputs, names.index_inputs, "inputs", "index values");
  check(data.targets, data.eval.targets, names.label_targets, "targets", "labels");
  if (!data.inputs.empty() || names.inputs.size() != 1 || names.index_inputs.empty()) return;
  if (!is_plain(data.normalize)) report("data.normalize", names.inputs[0], "index values");
  if (!data.augment.empty()) report("data.augment", names.inputs[0], "index values");
}

/// A setting of the short form, which means the only one of its kind.
void check_short(bool given, const std::string& field, const std::string& setting,
                 const std::vector<std::string>& names, std::string_view what, std::vector<PortProblem>& problems) {
  if (!given || names.size() < 2) return;
  problems.push_back({field, fmt::format("{}: the model has {} {}s ({}); expected {} for each of them", field,
                                         names.size(), what, fmt::join(names, ", "), setting)});
}

}  // namespace

Normalize& normalize_of(DataConfig& data, PortUse use, const std::string& name) {
  Named<PortConfig>& ports = use == PortUse::input ? data.inputs : data.targets;
  for (auto& [port, config] : ports)
    if (port == name) return config.normalize;
  return data.normalize;
}

std::vector<PortProblem> port_problems(const DataConfig& data, const PortNames& names) {
  std::vector<PortProblem> problems;
  check_names(data.inputs, names.inputs, "data.inputs", "input", problems);
  check_names(data.targets, names.targets, "data.targets", "target", problems);
  check_names(data.weights, names.weights, "data.weights", "weight", problems);
  check_names(data.eval.inputs, names.inputs, "data.eval.inputs", "input", problems);
  check_names(data.eval.targets, names.targets, "data.eval.targets", "target", problems);
  check_names(data.eval.weights, names.weights, "data.eval.weights", "weight", problems);
  check_follow(data.inputs, data.inputs, names.inputs, "data.inputs", problems);
  check_follow(data.targets, data.inputs, names.inputs, "data.targets", problems);
  check_follow(data.weights, data.inputs, names.inputs, "data.weights", problems);
  check_integers(data, names, problems);
  check_short(!data.sample_key.empty(), "data.sample_key", "data.inputs.NAME.key", names.inputs, "input", problems);
  check_short(!is_plain(data.normalize), "data.normalize", "data.inputs.NAME.normalize", names.inputs, "input",
              problems);
  check_short(!data.augment.empty(), "data.augment", "data.inputs.NAME.augment", names.inputs, "input", problems);
  check_short(!data.target_key.empty(), "data.target_key", "data.targets.NAME.key", names.targets, "target", problems);
  return problems;
}

}  // namespace dtrain::io
