// Data sets with several ports: what is read, refused and hashed.
#include <algorithm>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "io/dataset/dataset.hpp"
#include "tests/io/dataset/port_files.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io {
namespace {

using testing::add;
using testing::Folder;
using testing::H5File;
using testing::message_of;
using testing::write_images;

PortSource input(const std::string& name, const std::string& key = "", bool index = false) {
  return {name, PortUse::input, index, key, {}, {}};
}
PortSource target(const std::string& name, const std::string& key = "", bool index = false) {
  return {name, PortUse::target, index, key, {}, {}};
}
PortSource ragged(PortSource source, const std::string& offsets) {
  source.offsets = offsets;
  return source;
}

Dataset open(const std::vector<std::string>& files, const std::vector<PortSource>& ports, double cache_mib = 1024) {
  DatasetOptions options;
  options.ports = ports;
  options.cache_mib = cache_mib;
  return Dataset(files, options);
}

/// images u8 [n, 1, 4, 4], words u16 [n, 5], table f32 [n, 3], label u8 [n], map u8 [n, 4, 4], price f64 [n],
/// weight f32 [n], text u16 [...] + starts i64 [n + 1]; values tell sample and position.
void write_all(const std::string& path, std::size_t n, std::size_t first = 0, testing::Spec storage = {}) {
  std::vector<std::uint8_t> images, labels, maps;
  std::vector<std::uint16_t> words, text;
  std::vector<std::int64_t> starts{0};
  std::vector<float> table, weights;
  std::vector<double> prices;
  for (std::size_t i = first; i < first + n; ++i) {
    for (std::size_t j = 0; j < 16; ++j) images.push_back(testing::pixel(i, j));
    for (std::size_t j = 0; j < 16; ++j) maps.push_back(static_cast<std::uint8_t>((i + j) % 4));
    for (std::size_t j = 0; j < 5; ++j) words.push_back(static_cast<std::uint16_t>(i * 10 + j));
    for (std::size_t j = 0; j < 3; ++j) table.push_back(static_cast<float>(i) + 0.25f * static_cast<float>(j));
    for (std::size_t j = 0; j < i % 6; ++j) text.push_back(static_cast<std::uint16_t>(i * 100 + j));
    starts.push_back(static_cast<std::int64_t>(text.size()));
    labels.push_back(static_cast<std::uint8_t>(i % 7));
    prices.push_back(static_cast<double>(i) * 0.5);
    weights.push_back(static_cast<float>(i % 3));
  }
  H5File file(path);
  add(file, "images", {n, 1, 4, 4}, images, storage);
  add(file, "map", {n, 4, 4}, maps);
  add(file, "words", {n, 5}, words);
  add(file, "table", {n, 3}, table);
  add(file, "text", {text.size()}, text, storage);
  add(file, "starts", {n + 1}, starts);
  add(file, "label", {n}, labels);
  add(file, "price", {n}, prices);
  add(file, "weight", {n}, weights);
}

const std::vector<PortSource>& everything() {
  static const std::vector<PortSource> ports{
      input("image", "images"),       input("words", "", true),
      input("table", "/table"),       ragged(input("text", "text", true), "starts"),
      target("label", "label", true), target("map", "map", true),
      target("price", "price"),       {"weight", PortUse::weight, false, "weight", {}, {}},
  };
  return ports;
}

TEST(Ports, EachReadsItsDataSet) {
  const Folder folder;
  testing::Spec chunks;
  chunks.chunk = {4};
  chunks.gzip = 1;
  for (const bool compressed : {false, true}) {
    // In one file, and in two: text is compressed in bands that samples cross.
    testing::Spec spec = compressed ? chunks : testing::Spec{};
    write_all(folder / "a.h5", 20, 0, spec);
    write_all(folder / "b-1.h5", 13, 0, spec);
    write_all(folder / "b-2.h5", 7, 13, spec);
    std::string fingerprint;
    for (const auto& files : {std::vector<std::string>{folder / "a.h5"}, {folder / "b-1.h5", folder / "b-2.h5"}}) {
      for (const double cache : {0.0, 1024.0}) {
        const Dataset set = open(files, everything(), cache);
        ASSERT_EQ(set.count(), 20u);
        EXPECT_EQ(set.in_memory(), cache > 0);
        ASSERT_EQ(set.ports().size(), 8u);
        EXPECT_EQ(set.port(1).key, "/words") << "by its name";
        EXPECT_EQ(set.port(1).row, (Shape{5}));
        EXPECT_EQ(set.port(1).type, StoredType::u16);
        EXPECT_TRUE(set.port(3).ragged());
        EXPECT_EQ(set.port(3).row, Shape{});
        EXPECT_EQ(set.port(3).longest, 5);
        EXPECT_TRUE(set.port(4).labels);
        EXPECT_EQ(set.port(4).class_count, 7);
        EXPECT_FALSE(set.port(5).labels) << "a map is read where it is used";
        std::vector<std::byte> scratch(1024);
        for (std::uint64_t k = 0; k < 20; ++k) {
          const std::uint64_t i = k * 7 % 20;
          const auto* pixels = reinterpret_cast<const std::uint8_t*>(set.row(0, i, scratch.data()).data);
          for (std::uint64_t j = 0; j < 16; ++j) ASSERT_EQ(pixels[j], testing::pixel(i, j));
          std::uint16_t words[5];
          std::memcpy(words, set.row(1, i, scratch.data()).data, sizeof words);
          ASSERT_EQ(words[4], i * 10 + 4);
          const Dataset::Row text = set.row(3, i, scratch.data());
          ASSERT_EQ(text.length, static_cast<std::int64_t>(i % 6));
          for (std::uint64_t j = 0; j < i % 6; ++j) {
            std::uint16_t word = 0;
            std::memcpy(&word, text.data + j * sizeof word, sizeof word);
            ASSERT_EQ(word, i * 100 + j);
          }
          ASSERT_EQ(set.label(4, i), static_cast<std::int32_t>(i % 7));
          double price = 0;
          std::memcpy(&price, set.row(6, i, scratch.data()).data, sizeof price);
          ASSERT_EQ(price, static_cast<double>(i) * 0.5);
        }
        if (fingerprint.empty()) fingerprint = set.fingerprint();
        EXPECT_EQ(set.fingerprint(), fingerprint) << "neither shards nor memory matter";
      }
    }
    EXPECT_EQ(open({folder / "b-1.h5", folder / "b-2.h5"}, everything()).where(3, 14),
              (folder / "b-2.h5") + ": /text, row 1");
  }
}

/// Of each row, over all ports but labels.
std::vector<std::uint64_t> row_hashes(const Dataset& set) {
  std::vector<std::byte> scratch(1024);
  std::vector<std::uint64_t> hashes(set.count());
  for (std::uint64_t i = 0; i < set.count(); ++i)
    for (std::size_t p = 0; p < set.ports().size(); ++p)
      if (!set.port(p).labels) hashes[i] += set.row_hash(p, i, set.row(p, i, scratch.data()));
  return hashes;
}

TEST(Ports, HashesOfRowsSeeEveryPortAndNoStorage) {
  const Folder folder;
  testing::Spec chunks;
  chunks.chunk = {4};
  chunks.gzip = 1;
  write_all(folder / "a.h5", 20);
  write_all(folder / "packed.h5", 20, 0, chunks);
  write_all(folder / "b-1.h5", 13);
  write_all(folder / "b-2.h5", 7, 13);
  const auto hashes = row_hashes(open({folder / "a.h5"}, everything()));
  for (const double cache : {0.0, 1024.0}) {
    EXPECT_EQ(row_hashes(open({folder / "packed.h5"}, everything(), cache)), hashes);
    EXPECT_EQ(row_hashes(open({folder / "b-1.h5", folder / "b-2.h5"}, everything(), cache)), hashes);
  }
  // Rows in another order have other hashes, and each port has a part in its row's.
  const auto turned = row_hashes(open({folder / "b-2.h5", folder / "b-1.h5"}, everything()));
  for (std::size_t i = 0; i < hashes.size(); ++i) EXPECT_NE(turned[i], hashes[i]) << i;
  for (std::size_t left_out = 0; left_out < everything().size(); ++left_out) {
    std::vector<PortSource> ports = everything();
    if (ports[left_out].name == "label") continue;
    ports.erase(ports.begin() + static_cast<std::ptrdiff_t>(left_out));
    EXPECT_NE(row_hashes(open({folder / "a.h5"}, ports))[7], hashes[7]) << everything()[left_out].name;
  }
  EXPECT_EQ(open({folder / "b-1.h5", folder / "b-2.h5"}, everything()).rows_text(10, 15),
            fmt::format("rows 10 to 12 of {}, rows 0 to 1 of {}", folder / "b-1.h5", folder / "b-2.h5"));
}

TEST(Ports, OnlyTheUsedPartOfASetIsInMemory) {
  const Folder folder;
  write_all(folder / "b-1.h5", 13);
  write_all(folder / "b-2.h5", 7, 13);
  constexpr std::uint64_t begins[] = {0, 6, 12, 20};  // seven batches of three, the last one not full
  for (int part = 0; part < 3; ++part) {
    DatasetOptions options;
    options.ports = everything();
    options.part = {part, 3, 3};
    const Dataset set(std::vector<std::string>{folder / "b-1.h5", folder / "b-2.h5"}, options);
    std::vector<std::byte> scratch(1024);
    for (std::uint64_t i = 0; i < 20; ++i) {
      const bool kept = i >= begins[static_cast<std::size_t>(part)] && i < begins[static_cast<std::size_t>(part) + 1];
      const Dataset::Row row = set.row(3, i, scratch.data());
      EXPECT_EQ(row.data != scratch.data(), kept) << i;
      if (row.length == 0) continue;
      std::uint16_t word = 0;
      std::memcpy(&word, row.data, sizeof word);
      EXPECT_EQ(word, i * 100);
    }
  }
}

// What checkpoints of before this had ports hold.
TEST(Ports, FingerprintsOfOneInputAndOneTargetStay) {
  const Folder folder;
  write_images(folder / "a.h5", 100);
  std::vector<float> x(36), y(24);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) * 0.25f;
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(i);
  {
    H5File file(folder / "b.h5");
    add(file, "x", {12, 3}, x);
    add(file, "y", {12, 2}, y);
  }
  {
    H5File file(folder / "c.h5");
    add(file, "x", {12, 3}, x);
  }
  for (const double cache : {0.0, 10.0}) {
    EXPECT_EQ(open({folder / "a.h5"}, {}, cache).fingerprint(), "43ef6b9937deff9e");
    EXPECT_EQ(open({folder / "b.h5"}, {}, cache).fingerprint(), "f5572e46d917dc4d");
    EXPECT_EQ(open({folder / "c.h5"}, {}, cache).fingerprint(), "b6ca155d5cc58c99");
    const auto named = open({folder / "a.h5"}, {input("input"), target("target", "", true)}, cache);
    EXPECT_EQ(named.fingerprint(), "43ef6b9937deff9e") << "the short form, as ports";
    EXPECT_EQ(open({folder / "b.h5"}, {input("image", "x"), target("y")}, cache).fingerprint(), "f5572e46d917dc4d");
  }
}

TEST(Ports, FingerprintsSeeEveryPort) {
  const Folder folder;
  write_all(folder / "a.h5", 20);
  std::vector<PortSource> ports = everything();
  std::vector<std::string> seen{open({folder / "a.h5"}, ports).fingerprint()};
  while (ports.size() > 1) {
    ports.pop_back();
    seen.push_back(open({folder / "a.h5"}, ports).fingerprint());
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()), seen.end());
}

TEST(Ports, NamesThatTheFileDoesNotHave) {
  const Folder folder;
  write_all(folder / "a.h5", 6);
  const auto text = message_of([&] { open({folder / "a.h5"}, {input("image", "images"), input("words", "/wrods")}); });
  EXPECT_HAS(text, "a.h5: /wrods does not exist; the file holds ");
  EXPECT_HAS(text, "; did you mean /words?");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("image", "images"), input("wordz")});
             }),
             "did you mean /words?");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("image", "images"), ragged(input("text"), "begins")});
             }),
             "begins does not exist");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("table"), input("picture")});
             }),
             "picture does not exist");
}

// Whatever else the file holds under a usual name: a model that names its inputs and targets means those.
TEST(Ports, OnlyTheNamesOfTheShortFormStandForTheUsualOnes) {
  const Folder folder;
  write_all(folder / "a.h5", 6);
  EXPECT_EQ(open({folder / "a.h5"}, {input("input")}).port(0).key, "/images");
  EXPECT_EQ(open({folder / "a.h5"}, {input("input"), target("target", "", true)}).port(1).key, "/label");
  const auto text = message_of([&] { open({folder / "a.h5"}, {input("image")}); });
  EXPECT_HAS(text, "a.h5: image does not exist; the file holds ");
  EXPECT_HAS(text, "; did you mean /images? (data.inputs.image says which one is read)");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("words", "", true), target("labels", "", true)});
             }),
             "did you mean /label? (data.targets.labels says which one is read)");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("words", "", true), {"weights", PortUse::weight, false, {}, {}, {}}});
             }),
             "did you mean /weight? (data.weights.weights says which one is read)");
}

TEST(Ports, NumbersOfRowsThatDiffer) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "x", {10, 3}, std::vector<float>(30));
    add(file, "t", {9, 2}, std::vector<float>(18));
    add(file, "w", {4}, std::vector<std::uint8_t>(4));
    add(file, "o", {9}, std::vector<std::int64_t>(9));
  }
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("x"), input("t")});
             }),
             "a.h5: /t has 9 rows, but /x has 10");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("x"), ragged(input("w"), "o")});
             }),
             "a.h5: /o gives 8 rows, but /x has 10");
}

TEST(Ports, OffsetsThatAreNone) {
  const Folder folder;
  const auto text_of = [&](const std::vector<std::int64_t>& offsets) {
    {
      H5File file(folder / "a.h5");
      add(file, "w", {4}, std::vector<std::uint8_t>(4));
      add(file, "o", {offsets.size()}, offsets);
      add(file, "f", {5}, std::vector<float>(5));
    }
    return message_of([&] { open({folder / "a.h5"}, {ragged(input("w"), "o")}); });
  };
  EXPECT_HAS(text_of({0, 2, 1, 4}), "a.h5: /o, row 2: the offset is 1; offsets must not fall");
  EXPECT_HAS(text_of({0, 2, 5}), "/o, row 2: the offset is 5");
  EXPECT_HAS(text_of({-1, 2}), "/o, row 0: the offset is -1");
  EXPECT_HAS(text_of({0}), "holds no samples");
  EXPECT_HAS(message_of([&] { open({folder / "a.h5"}, {ragged(input("w"), "f")}); }),
             "/f float32 [5] cannot be the offsets of /w; expected one integer more than there are samples");
}

TEST(Ports, TypesThatDoNotSuit) {
  const Folder folder;
  write_all(folder / "a.h5", 6);
  EXPECT_HAS(message_of([&] { open({folder / "a.h5"}, {input("table", "", true)}); }),
             "a.h5: /table is float32, but the model's input table takes integers");
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("table"), target("price", "", true)});
             }),
             "/price, row 1: the label is 0.5, but the loss needs integer class labels");
  write_all(folder / "b.h5", 6);
  {
    H5File file(folder / "c.h5");
    add(file, "table", {6, 3}, std::vector<float>(18));
    add(file, "words", {6, 4}, std::vector<std::uint16_t>(24));
  }
  EXPECT_HAS(message_of([&] {
               open({folder / "b.h5", folder / "c.h5"}, {input("table"), input("words", "", true)});
             }),
             "c.h5: /words uint16 [6, 4] differs from");
}

TEST(Ports, AnIgnoredLabelMayLieOutsideOfEveryRange) {
  const Folder folder;
  {
    H5File file(folder / "a.h5");
    add(file, "x", {4, 1}, std::vector<float>(4));
    add(file, "y", {4}, std::vector<std::int32_t>{0, -100, 2, 1});
  }
  PortSource labels = target("y", "", true);
  EXPECT_HAS(message_of([&] {
               open({folder / "a.h5"}, {input("x"), labels});
             }),
             "/y, row 1: the label is -100; labels count from 0; with ignore: -100 the loss leaves such labels out");
  labels.ignore = -100;
  const Dataset set = open({folder / "a.h5"}, {input("x"), labels});
  EXPECT_EQ(set.port(1).class_count, 3);
  EXPECT_EQ(set.label(1, 1), -100);
  set.check_labels(1, 3);
  EXPECT_HAS(message_of([&] { set.check_labels(1, 2); }),
             "row 2: the label is 2, but the model has 2 classes (labels 0 to 1, or -100, which is ignored)");
}

}  // namespace
}  // namespace dtrain::io
