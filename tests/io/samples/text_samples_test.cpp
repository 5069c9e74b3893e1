// Samples of files of tokens against plain recomputation: windows, packs, labels, documents, and what is refused.
#include "io/samples/text_samples.hpp"

#include <chrono>
#include <numeric>

#include "runtime/tensor/error.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"
#include "tests/io/samples/token_files.hpp"
#include "tests/io/text/tokenizer_files.hpp"

namespace dtrain::io {
namespace {

using testing::Documents;
using testing::Folder;
using testing::message_of;
using testing::sample_of;
using testing::TextPorts;
using testing::write_tokens;
using Values = std::vector<std::int32_t>;

constexpr auto documents_packing = TextConfig::Packing::documents;

std::unique_ptr<Tokenizer> bytes() {
  return open_tokenizer("bytes");
}

/// Documents of these lengths, of tokens that all differ.
Documents counted(const std::vector<std::size_t>& lengths, std::uint16_t first = 0) {
  Documents documents;
  for (const std::size_t length : lengths) {
    documents.emplace_back(length);
    std::iota(documents.back().begin(), documents.back().end(), first);
    first = static_cast<std::uint16_t>(first + length);
  }
  return documents;
}
Values range(std::int32_t first, std::int32_t count) {
  Values values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

struct Sample {
  std::vector<Values> ports;
  bool operator==(const Sample&) const = default;
};
/// All samples, in the order of the files.
std::vector<Sample> all_of(const TextPorts& ports, const Dataset& set) {
  const auto loader = Loader::evaluation(set, ports.batch.of(1));
  std::vector<Sample> samples;
  for (std::uint64_t i = 0; i < set.count(); ++i) {
    const Batch& batch = loader->next();
    Sample& sample = samples.emplace_back();
    for (std::size_t p = 0; p < batch.ports.size(); ++p) sample.ports.push_back(sample_of<std::int32_t>(batch, p, 0));
    loader->release();
  }
  return samples;
}

TEST(TextSamples, WindowsOfTheStreamAndTheTokensBehindThem) {
  const Folder folder;
  write_tokens(folder / "a.h5", counted({10, 3, 9}), *bytes());
  write_tokens(folder / "b.h5", counted({4}, 100), *bytes());  // less than a window
  write_tokens(folder / "c.h5", counted({6}, 200), *bytes());
  const TextPorts ports({.length = 5});
  for (const double cache : {0.0, 1.0}) {
    const Dataset set = ports.open({folder / "a.h5", folder / "b.h5", folder / "c.h5"}, cache);
    ASSERT_EQ(set.count(), 5u);
    const auto samples = all_of(ports, set);
    for (std::int32_t i = 0; i < 4; ++i) {
      EXPECT_EQ(samples[static_cast<std::size_t>(i)].ports[0], range(5 * i, 5));
      EXPECT_EQ(samples[static_cast<std::size_t>(i)].ports[1], range(5 * i + 1, 5));
    }
    EXPECT_EQ(samples[4].ports[0], range(200, 5));
    EXPECT_EQ(samples[4].ports[1], range(201, 5));
    EXPECT_EQ(set.text()->text(), "32 tokens of 5 documents in 5 windows of 5; 7 at the end of files are in none");
  }
}

TEST(TextSamples, WindowsWithDocumentsHaveNoLabelOfAnother) {
  const Folder folder;
  write_tokens(folder / "a.h5", counted({7, 1, 0, 9, 4}), *bytes());
  const TextPorts ports({.length = 5}, true);
  const auto samples = all_of(ports, ports.open({folder / "a.h5"}));
  constexpr auto no = TextPorts::ignored;
  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0], (Sample{{range(0, 5), {0, 0, 0, 0, 0}, {1, 2, 3, 4, 5}}}));
  EXPECT_EQ(samples[1], (Sample{{range(5, 5), {0, 0, 2, 3, 3}, {6, no, no, 9, 10}}}));
  EXPECT_EQ(samples[2], (Sample{{range(10, 5), {0, 0, 0, 0, 0}, range(11, 5)}}));
  EXPECT_EQ(samples[3], (Sample{{range(15, 5), {0, 0, 2, 2, 2}, {16, no, 18, 19, 20}}}));
}

TEST(TextSamples, PacksOfWholeDocuments) {
  const Folder folder;
  write_tokens(folder / "a.h5", counted({4, 12, 3, 5}), *bytes());  // 4 + 5; 10; 2 + 3
  const TextPorts ports({.length = 10, .packing = documents_packing}, true);
  constexpr auto no = TextPorts::ignored;
  for (const double cache : {0.0, 1.0}) {
    const Dataset set = ports.open({folder / "a.h5"}, cache);
    const auto samples = all_of(ports, set);
    ASSERT_EQ(samples.size(), 3u);
    EXPECT_EQ(samples[0], (Sample{{{0, 1, 2, 3, 19, 20, 21, 22, 23, 0},
                                   {0, 0, 0, 0, 4, 4, 4, 4, 4, 9},
                                   {1, 2, 3, no, 20, 21, 22, 23, no, no}}}));
    EXPECT_EQ(samples[1], (Sample{{range(4, 10), Values(10), range(5, 10)}}));
    EXPECT_EQ(samples[2], (Sample{{{14, 15, 16, 17, 18, 0, 0, 0, 0, 0},
                                   {0, 0, 2, 2, 2, 5, 5, 5, 5, 5},
                                   {15, no, 17, 18, no, no, no, no, no, no}}}));
    EXPECT_EQ(set.text()->text(),
              "24 tokens of 4 documents in 3 packs of 10, 80.00 % full; 1 document is longer than that, and cut");
  }
}

TEST(TextSamples, AnOrderForAllRanks) {
  const Folder folder;
  write_tokens(folder / "a.h5", counted({300, 200, 100, 50, 77}), *bytes());
  for (const auto packing : {TextConfig::Packing::stream, documents_packing}) {
    TextPorts ports({.length = 10, .packing = packing}, true);
    ports.batch.options.shuffle = true;
    const Dataset set = ports.open({folder / "a.h5"});
    // Rows of steps 3 and 4 as one rank takes them, and two that begin there.
    const auto taken = [&](int ranks) {
      std::vector<Values> rows(16);
      for (int rank = 0; rank < ranks; ++rank) {
        const auto loader = Loader::training(set, ports.batch.of(2, 8, rank, ranks));
        loader->seek(3);
        for (int k = 0; k < 2 * 4 / ranks; ++k) {
          const Batch& batch = loader->next();
          for (std::int64_t i = 0; i < 2; ++i) {
            Values& row = rows[batch.positions.as<std::uint64_t>()[i] - 24];
            for (std::size_t p = 0; p < 3; ++p) {
              const Values part = sample_of<std::int32_t>(batch, p, i);
              row.insert(row.end(), part.begin(), part.end());
            }
          }
          loader->release();
        }
      }
      return rows;
    };
    EXPECT_EQ(taken(1), taken(2));
    EXPECT_EQ(taken(1), taken(4));
  }
}

TEST(TextSamples, APositionFarAwayIsFoundAsQuicklyAsTheFirst) {
  const Folder folder;
  write_tokens(folder / "a.h5", counted({300, 200, 100, 50, 77}), *bytes());
  TextPorts ports({.length = 10, .packing = documents_packing}, true);
  ports.batch.options.shuffle = true;
  const Dataset set = ports.open({folder / "a.h5"});
  const auto loader = Loader::training(set, ports.batch.of(4));
  const auto seconds_to = [&](std::uint64_t step) {
    double least = 1e9;
    for (int k = 0; k < 3; ++k) {
      const auto begin = std::chrono::steady_clock::now();
      loader->seek(step);
      EXPECT_EQ(loader->next().step, step);
      loader->release();
      least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return least;
  };
  const double first = seconds_to(0);
  EXPECT_LT(seconds_to(250'000'000), first + 0.05);  // position 10^9
}

TEST(TextSamples, OtherSamplesHaveAnotherFingerprint) {
  const Folder folder;
  write_tokens(folder / "a.h5", counted({60, 40}), *bytes());
  write_tokens(folder / "b.h5", counted({61, 39}), *bytes());
  const TextConfig config{.length = 10, .packing = documents_packing};
  const auto print = [&](const TextPorts& ports, const char* file) {
    return ports.open({folder / file}).fingerprint();
  };
  const std::string a = print(TextPorts(config, true), "a.h5");
  EXPECT_EQ(a, print(TextPorts(config, true), "a.h5"));
  EXPECT_NE(a, print(TextPorts(config, true), "b.h5"));
  EXPECT_NE(a, print(TextPorts({.length = 10}, true), "a.h5"));
  EXPECT_NE(print(TextPorts({.length = 10}), "a.h5"), print(TextPorts({.length = 5}), "a.h5"));
}

TEST(TextSamples, WhatIsRefused) {
  const Folder folder;
  write_tokens(folder / "empty.h5", {}, *bytes());
  write_tokens(folder / "short.h5", counted({3, 2}), *bytes());
  write_tokens(folder / "a.h5", counted({300}), *bytes());
  write_tokens(folder / "other.h5", counted({300}), *testing::golden_tokenizer("gpt2 rule"));
  testing::write_images(folder / "images.h5", 4);
  const TextPorts ports({.length = 5});
  const auto message = [&](const std::vector<std::string>& files, const TextPorts& of) {
    std::vector<std::string> paths;
    for (const std::string& file : files) paths.push_back(folder / file);
    return message_of([&] { of.open(paths); });
  };
  EXPECT_HAS(message({"empty.h5"}, ports), "empty.h5: /tokens is empty");
  EXPECT_HAS(message({"short.h5"}, ports),
             "short.h5: /tokens has 5 tokens, but a window of data.text.length: 5 takes 6");
  EXPECT_HAS(message({"images.h5"}, ports), "images.h5: is no file of tokens, which data.text needs");
  const std::string differ = message({"a.h5", "other.h5"}, ports);
  EXPECT_HAS(differ, "other.h5: /tokens has tokens of bpe-421, hash ");
  EXPECT_HAS(differ, "a.h5: /tokens has tokens of bytes, hash " + bytes()->hash());
  const Dataset train = ports.open({folder / "a.h5"});
  DatasetOptions eval;
  eval.ports = ports.batch.sources;
  eval.text = ports.text;
  eval.reference = train.descriptions();
  EXPECT_HAS(message_of([&] { Dataset(std::vector<std::string>{folder / "other.h5"}, eval); }),
             "other.h5: /tokens has tokens of bpe-421");
  EXPECT_HAS(message({"a.h5"}, TextPorts({.length = 5, .objective = TextConfig::Objective::masked})),
             "a.h5: its tokenizer (bytes) has no token [MASK] or <mask>");
}

TEST(TextSamples, TokensOutsideTheVocabularyAreNamed) {
  const Folder folder;
  Documents documents = counted({40, 50});
  documents[1][13] = 777;
  write_tokens(folder / "a.h5", documents, *bytes());
  for (const auto packing : {TextConfig::Packing::stream, documents_packing}) {
    const TextPorts ports({.length = 16, .packing = packing}, true, 256);
    const Dataset set = ports.open({folder / "a.h5"});  // in memory, where all are looked at
    EXPECT_HAS(message_of([&] { Loader::training(set, ports.batch.of(2)); }),
               "a.h5: /tokens, position 53: the token is 777, but the model's vocabulary has 256 (0 to 255)");
    const Dataset read = ports.open({folder / "a.h5"}, 0);
    EXPECT_HAS(message_of([&] { all_of(ports, read); }), "a.h5: /tokens, position 53: the value is 777, but the ");
  }
}

}  // namespace
}  // namespace dtrain::io
