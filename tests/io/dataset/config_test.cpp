// The data section: its short and long forms, what is written of them, and what is wrong with them.
#include "io/dataset/config.hpp"

#include <string>
#include <vector>

#include "io/dataset/tables.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

Document text(const std::string& value) {
  Document d = Document::string(value);
  d.kind = Document::Kind::plain;
  d.place = {1, 1, 1};
  return d;
}
Document map(std::vector<std::pair<std::string, Document>> entries) {
  Document d = Document::map();
  d.place = {1, 1, 1};
  for (auto& [key, value] : entries) d.entries.push_back({key, {1, 1, 1}, std::move(value)});
  return d;
}

struct Loaded {
  DataConfig data;
  std::vector<std::string> problems;
};
Loaded load(const Document& d) {
  Loaded out;
  Reader reader;
  const Reader::Scope scope(reader, "data");
  data_table()->read(d, out.data, reader);
  for (const auto& problem : reader.problems()) out.problems.push_back(problem.text);
  return out;
}
Document with(const std::string& field, Document value) {
  return map({{"train", text("a.h5")}, {field, std::move(value)}});
}

TEST(DataConfig, TheShortFormIsWrittenAsItWas) {
  const Loaded got = load(map({{"train", text("a.h5")}, {"eval", text("b.h5")}, {"target_key", text("price")}}));
  EXPECT_TRUE(got.problems.empty());
  EXPECT_EQ(got.data.eval.files, std::vector<std::string>{"b.h5"});
  EXPECT_EQ(
      to_flow(data_table()->write(got.data)),
      "{train: a.h5, eval: b.h5, sample_key: \"\", target_key: price, shuffle: true, normalize: {scale: 1, mean: [], "
      "standard_deviation: []}, augment: [], prefetch_threads: 1, prefetch_batches: 4, open_files: auto, "
      "device_cache_mib: 4096, cache_mib: 1024}");
  EXPECT_EQ(to_flow(data_table()->write(load(map({{"train", text("a.h5")}})).data)).substr(0, 24),
            "{train: a.h5, eval: [], ");
  const auto x = port_config(got.data, PortUse::input, "input", false);
  const auto y = port_config(got.data, PortUse::target, "target", true);
  EXPECT_EQ(x.key, "");
  EXPECT_EQ(y.key, "price");
  EXPECT_EQ(port_config(got.data, PortUse::weight, "w", false).key, "") << "the data set of that name";
}

TEST(DataConfig, PortsByNameReadAndWritten) {
  Document image = map({{"key", text("/x")},
                        {"layout", text("channels_last")},
                        {"normalize", map({{"scale", text("0.5")}})},
                        {"augment", Document::list({text("flip")})}});
  const Document given =
      map({{"train", text("a.h5")},
           {"eval", map({{"files", text("b.h5")},
                         {"inputs", map({{"image", map({{"key", text("/x_test")}})}, {"words", text("/w_test")}})}})},
           {"inputs", map({{"image", image}, {"words", map({{"key", text("/w")}, {"offsets", text("/o")}})}})},
           {"targets", map({{"map", map({{"key", text("/m")}, {"follow", text("image")}})}, {"price", text("/p")}})},
           {"weights", map({{"w", text("/weight")}})}});
  const Loaded got = load(given);
  EXPECT_TRUE(got.problems.empty()) << got.problems[0];
  ASSERT_EQ(got.data.inputs.size(), 2u);
  EXPECT_EQ(got.data.inputs[0].first + " " + got.data.inputs[1].first, "image words") << "in their order";
  const auto image_port = port_config(got.data, PortUse::input, "image", false);
  EXPECT_EQ(image_port.key, "/x");
  EXPECT_EQ(image_port.layout, StoredLayout::channels_last);
  EXPECT_EQ(image_port.normalize.scale, 0.5);
  EXPECT_EQ(image_port.augment.size(), 1u);
  const auto image_test = port_config(got.data, PortUse::input, "image", true);
  EXPECT_EQ(image_test.key, "/x_test");
  EXPECT_EQ(image_test.normalize.scale, 0.5) << "the rest is as in training";
  EXPECT_EQ(image_test.layout, StoredLayout::channels_last);
  const auto words_test = port_config(got.data, PortUse::input, "words", true);
  EXPECT_EQ(words_test.key, "/w_test");
  EXPECT_EQ(words_test.offsets, "/o");
  EXPECT_EQ(port_config(got.data, PortUse::target, "map", true).follow, "image");
  EXPECT_EQ(port_config(got.data, PortUse::weight, "w", true).key, "/weight");
  EXPECT_EQ(port_config(got.data, PortUse::input, "other", false).key, "") << "the data set of that name";

  const std::string written = to_flow(data_table()->write(got.data));
  EXPECT_HAS(written, "eval: {files: b.h5, inputs: {image: /x_test, words: /w_test}}");
  EXPECT_HAS(written, "words: {key: /w, offsets: /o}");
  EXPECT_HAS(written, "targets: {map: {key: /m, follow: image}, price: /p}, weights: {w: /weight}");
  EXPECT_EQ(written.find("sample_key"), std::string::npos);
  EXPECT_EQ(written.find("target_key"), std::string::npos);
  const Loaded again = load(data_table()->write(got.data));
  EXPECT_TRUE(again.problems.empty()) << again.problems[0];
  EXPECT_EQ(to_flow(data_table()->write(again.data)), written);
}

TEST(DataConfig, WhatStoodAloneStaysWhereAnOverrideGoesBelowIt) {
  // `image: /x` and data.inputs.image.layout=channels_last
  Document image = map({{"layout", text("channels_last")}});
  image.entries.insert(image.entries.begin(), {"/x", {1, 1, 1}, Document::map(), true});
  const Loaded got = load(with("inputs", map({{"image", image}})));
  EXPECT_TRUE(got.problems.empty());
  EXPECT_EQ(got.data.inputs[0].second.key, "/x");
  EXPECT_EQ(got.data.inputs[0].second.layout, StoredLayout::channels_last);
  // `eval: b.h5` and data.eval.inputs.image=/x_test
  Document eval = map({{"inputs", map({{"image", text("/x_test")}})}});
  eval.entries.insert(eval.entries.begin(), {"b.h5", {1, 1, 1}, Document::map(), true});
  const Loaded other = load(with("eval", eval));
  EXPECT_TRUE(other.problems.empty()) << other.problems[0];
  EXPECT_EQ(other.data.eval.files, std::vector<std::string>{"b.h5"});
  EXPECT_EQ(other.data.eval.inputs[0].second.key, "/x_test");
}

TEST(DataConfig, WrongKeysAndValuesAreNamedWithTheirPlace) {
  const auto problem = [](const Document& d) {
    const Loaded got = load(d);
    EXPECT_EQ(got.problems.size(), 1u);
    return got.problems.empty() ? std::string() : got.problems[0];
  };
  EXPECT_HAS(problem(with("inptus", map({}))), "data: unknown key \"inptus\"");
  EXPECT_HAS(problem(with("inptus", map({}))), "did you mean inputs?");
  EXPECT_HAS(
      problem(with("inputs", map({{"image", map({{"offests", text("/x")}})}}))),
      "data.inputs.image: unknown key \"offests\"; expected one of key, offsets, layout, normalize, augment, follow; "
      "did you mean offsets?");
  EXPECT_HAS(problem(with("targets", map({{"y", map({{"augment", Document::list()}})}}))),
             "data.targets.y: unknown key \"augment\"; expected one of key, offsets, layout, normalize, follow");
  EXPECT_HAS(problem(with("weights", map({{"w", map({{"normalize", map({})}})}}))),
             "expected one of key, offsets, follow");
  EXPECT_HAS(problem(with("inputs", map({{"image", map({{"layout", text("channels_frist")}})}}))),
             "data.inputs.image.layout: ");
  EXPECT_HAS(problem(with("inputs", map({{"image", map({{"layout", text("channels_frist")}})}}))),
             "did you mean channels_first?");
  EXPECT_HAS(problem(with("inputs", text("/x"))), "data.inputs: got /x; expected a map of inputs by name");
  EXPECT_HAS(problem(with("inputs", map({{"a.b", text("/x")}}))),
             "data.inputs: the name \"a.b\"; expected letters, digits, _ and - in a name");
  EXPECT_HAS(problem(with("inputs", map({{"a", Document::list()}}))), "data.inputs.a: got a list; expected text");
  EXPECT_HAS(problem(with("eval", map({{"inputs", map({})}}))), "data.eval: files is missing");
  EXPECT_HAS(problem(map({{"train", text("a.h5")}, {"inputs", map({{"x", text("/x")}})}, {"sample_key", text("x")}})),
             "both inputs and sample_key are given");
  EXPECT_HAS(problem(map({{"train", text("a.h5")}, {"targets", map({{"y", text("/y")}})}, {"target_key", text("y")}})),
             "both targets and target_key are given");
}

TEST(DataConfig, NamesThatTheModelDoesNotHave) {
  DataConfig data;
  data.inputs = {{"image", {}}, {"wrods", {}}};
  data.targets = {{"map", {}}};
  data.targets[0].second.follow = "imgae";
  data.weights = {{"w", {}}};
  data.eval.targets = {{"mapp", {}}};
  data.inputs[0].second.follow = "image";
  const auto problems = port_problems(data, {{"image", "words"}, {"map"}, {}});
  const auto text_at = [&](const std::string& field) {
    for (const auto& p : problems)
      if (p.field == field) return p.text;
    ADD_FAILURE() << field;
    return std::string();
  };
  EXPECT_EQ(problems.size(), 5u);
  EXPECT_EQ(text_at("data.inputs.wrods"),
            "data.inputs.wrods: the model has no input of that name; expected image or words; did you mean words?");
  EXPECT_HAS(text_at("data.weights.w"), "the model has no weight of that name; expected none, as it has no weights");
  EXPECT_HAS(text_at("data.eval.targets.mapp"), "did you mean map?");
  EXPECT_HAS(text_at("data.targets.map.follow"), "the model has no input imgae; expected image or words; did you mean");
  EXPECT_HAS(text_at("data.inputs.image.follow"), "an input cannot follow itself");

  DataConfig brief;
  brief.sample_key = "x";
  brief.normalize.scale = 0.5;
  EXPECT_TRUE(port_problems(brief, {{"input"}, {"target"}, {"weight"}}).empty());
  const auto two = port_problems(brief, {{"a", "b"}, {"target"}, {}});
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].text,
            "data.normalize: the model has 2 inputs (a, b); expected data.inputs.NAME.normalize for each of them");
}

/// The text of the problem at a field; there are so many in all.
std::string problem_at(const DataConfig& data, const PortNames& names, const std::string& field,
                       std::size_t count = 1) {
  const auto problems = port_problems(data, names);
  EXPECT_EQ(problems.size(), count);
  for (const auto& p : problems)
    if (p.field == field) return p.text;
  ADD_FAILURE() << field;
  return "";
}

TEST(DataConfig, WhatIsFollowedFollowsNoOther) {
  const PortNames names{{"image", "depth", "mask"}, {"map"}, {"w"}};
  DataConfig data;
  data.inputs = {{"image", {}}, {"depth", {}}, {"mask", {}}};
  data.targets = {{"map", {}}};
  data.weights = {{"w", {}}};
  PortConfig &image = data.inputs[0].second, &depth = data.inputs[1].second, &mask = data.inputs[2].second;
  image.augment = {Flip{}};
  depth.follow = "image";
  EXPECT_TRUE(port_problems(data, names).empty());
  data.targets[0].second.follow = "depth";
  EXPECT_EQ(problem_at(data, names, "data.targets.map.follow"),
            "data.targets.map.follow: depth itself follows image; expected image");
  data.targets[0].second.follow = "image";
  data.weights[0].second.follow = "mask";
  mask.follow = "depth";
  EXPECT_HAS(problem_at(data, names, "data.weights.w.follow", 2), "mask itself follows depth; expected image");
  EXPECT_HAS(problem_at(data, names, "data.inputs.mask.follow", 2), "depth itself follows image; expected image");
  mask.follow.clear();
  data.weights.clear();
  depth.augment = {Flip{}};
  EXPECT_EQ(problem_at(data, names, "data.inputs.depth.follow"),
            "data.inputs.depth.follow: an input with augment cannot follow another; expected one of them");
  depth.augment.clear();
  image.augment.clear();
  image.follow = "depth";
  data.targets.clear();
  EXPECT_HAS(problem_at(data, names, "data.inputs.image.follow", 2),
             "depth itself follows image; expected an input that follows none");
}

TEST(DataConfig, SettingsOfNumbersForIntegersAreReported) {
  const PortNames names{{"words", "image"}, {"y", "price"}, {}, {"words"}, {"y"}};
  DataConfig data;
  data.inputs = {{"words", {}}, {"image", {}}};
  data.targets = {{"y", {}}, {"price", {}}};
  data.eval.targets = {{"y", {}}, {"price", {}}};
  PortConfig &image = data.inputs[1].second, &price = data.targets[1].second;
  image.normalize.scale = price.normalize.scale = 0.5;
  image.layout = price.layout = StoredLayout::channels_first;
  image.augment = {Flip{}};
  data.eval.targets[1].second.layout = StoredLayout::channels_last;
  EXPECT_TRUE(port_problems(data, names).empty());
  data.inputs[0].second.normalize.mean = {1};
  EXPECT_EQ(problem_at(data, names, "data.inputs.words.normalize"),
            "data.inputs.words.normalize: words has index values, which are read as they are; expected this for "
            "numbers alone");
  data.inputs[0].second = {};
  data.inputs[0].second.layout = StoredLayout::channels_first;
  problem_at(data, names, "data.inputs.words.layout");
  data.inputs[0].second = {};
  data.inputs[0].second.augment = {Flip{}};
  problem_at(data, names, "data.inputs.words.augment");
  data.inputs[0].second = {};
  data.targets[0].second.normalize.scale = 2;
  EXPECT_HAS(problem_at(data, names, "data.targets.y.normalize"), "y has labels, which are read as they are");
  data.targets[0].second = {};
  data.targets[0].second.layout = StoredLayout::channels_last;
  problem_at(data, names, "data.targets.y.layout");
  data.targets[0].second = {};
  data.eval.targets[0].second.layout = StoredLayout::channels_last;
  problem_at(data, names, "data.eval.targets.y.layout");

  DataConfig brief;
  brief.normalize.scale = 0.5;
  brief.augment = {Flip{}};
  const PortNames one{{"text"}, {"target"}, {}, {"text"}, {"target"}};
  EXPECT_HAS(problem_at(brief, one, "data.normalize", 2), "data.normalize: text has index values");
  EXPECT_HAS(problem_at(brief, one, "data.augment", 2), "data.augment: text has index values");
  EXPECT_TRUE(port_problems(brief, {{"input"}, {"target"}, {}, {}, {"target"}}).empty());
}

TEST(DataConfig, TheReferencePageAndTheSchemaKnowThePorts) {
  std::vector<ReferenceSection> sections;
  data_table()->reference(sections, "data");
  std::vector<std::string> paths;
  for (const auto& section : sections) paths.push_back(section.path);
  for (const char* path : {"data.eval", "data.eval.inputs.NAME", "data.inputs.NAME", "data.inputs.NAME.normalize",
                           "data.inputs.NAME.augment.flip", "data.targets.NAME", "data.weights.NAME"})
    EXPECT_NE(std::find(paths.begin(), paths.end(), path), paths.end()) << path;
  const Document schema = data_table()->schema();
  EXPECT_NE(schema.find("properties")->find("inputs")->find("additionalProperties"), nullptr);
}

}  // namespace
}  // namespace dtrain::io
