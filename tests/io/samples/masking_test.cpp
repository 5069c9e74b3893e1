// Masked tokens: how many, which, and that place alone decides.
#include "io/samples/masking.hpp"

#include <map>

#include "tests/io/hdf5/hdf5_files.hpp"
#include "tests/io/samples/token_files.hpp"
#include "tests/io/text/tokenizer_files.hpp"

namespace dtrain::io {
namespace {

using testing::Documents;
using testing::Folder;
using testing::sample_of;
using testing::TextPorts;
using testing::write_tokens;
using Values = std::vector<std::int32_t>;

constexpr std::int64_t length = 64;
constexpr TokenId mask = 4, separator = 3;

/// Documents of ids that are no special ones, each with [SEP] behind it.
Documents some_documents(std::size_t count) {
  Documents documents(count);
  std::uint32_t seed = 1;
  for (auto& document : documents) {
    for (std::size_t i = 0; i < 20 + count % 7; ++i) {
      seed = seed * 1664525 + 1013904223;
      document.push_back(static_cast<std::uint16_t>(5 + seed % 595));
    }
    document.push_back(separator);
  }
  return documents;
}

struct Hidden {
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::pair<Values, Values>> samples;  // by epoch and index
  bool operator==(const Hidden&) const = default;
};
Hidden epochs_of(const Dataset& set, const TextPorts& ports, std::uint64_t steps, int ranks = 1,
                 std::uint64_t seed = 1) {
  Hidden hidden;
  for (int rank = 0; rank < ranks; ++rank) {
    LoaderOptions options = ports.batch.of(2, 8, rank, ranks);
    options.shuffle = true;
    options.seed = seed;
    const auto loader = Loader::training(set, options);
    for (std::uint64_t k = 0; k < steps * 4 / static_cast<std::uint64_t>(ranks); ++k) {
      const Batch& batch = loader->next();
      for (std::int64_t i = 0; i < 2; ++i) {
        const std::uint64_t position = batch.positions.as<std::uint64_t>()[i];
        hidden.samples[{position / set.count(), batch.indices[static_cast<std::size_t>(i)]}] = {
            sample_of<std::int32_t>(batch, 0, i), sample_of<std::int32_t>(batch, ports.batch.sources.size() - 1, i)};
      }
      loader->release();
    }
  }
  return hidden;
}

TextConfig masked(TextConfig::Packing packing = TextConfig::Packing::stream, bool whole_words = false) {
  return {length, packing, TextConfig::Objective::masked, whole_words};
}

TEST(Masking, FifteenPercentOfWhichEightyTenTen) {
  const Folder folder;
  const auto tokenizer = testing::golden_tokenizer("uncased");
  write_tokens(folder / "a.h5", some_documents(3000), *tokenizer);
  for (const auto packing : {TextConfig::Packing::stream, TextConfig::Packing::documents}) {
    const TextPorts ports(masked(packing), packing == TextConfig::Packing::documents);
    const Dataset set = ports.open({folder / "a.h5"});
    double tokens = 0, hidden = 0, masks = 0, kept = 0;
    for (const auto& [place, sample] : epochs_of(set, ports, 100).samples) {
      const auto& [seen, labels] = sample;
      for (std::size_t p = 0; p < seen.size(); ++p) {
        tokens += seen[p] > 4 || labels[p] != TextPorts::ignored;
        if (labels[p] == TextPorts::ignored) {
          EXPECT_NE(seen[p], static_cast<std::int32_t>(mask));
          continue;
        }
        EXPECT_GT(labels[p], 4);  // no special token is hidden
        ++hidden;
        masks += seen[p] == static_cast<std::int32_t>(mask);
        kept += seen[p] == labels[p];
      }
    }
    EXPECT_NEAR(hidden / tokens, 0.15, 0.01);
    EXPECT_NEAR(masks / hidden, 0.8, 0.02);
    EXPECT_NEAR(kept / hidden, 0.1, 0.015);
  }
}

TEST(Masking, IsDecidedByPlaceAlone) {
  const Folder folder;
  write_tokens(folder / "a.h5", some_documents(60), *testing::golden_tokenizer("uncased"));
  const TextPorts ports(masked());
  const Dataset set = ports.open({folder / "a.h5"}), read = ports.open({folder / "a.h5"}, 0);
  const Hidden one = epochs_of(set, ports, 8);
  EXPECT_EQ(one, epochs_of(set, ports, 8, 2));
  EXPECT_EQ(one, epochs_of(read, ports, 8, 4));
  EXPECT_NE(one, epochs_of(set, ports, 8, 1, 2));
  std::size_t same = 0;
  for (std::uint64_t i = 0; i < set.count(); ++i) same += one.samples.at({0, i}) == one.samples.at({1, i});
  EXPECT_EQ(same, 0u);  // another epoch hides others
  // The weights of a step, which are counted in the step before, are those of its labels.
  LoaderOptions options = ports.batch.of(2, 8);
  options.counts.push_back({1, -1, TextPorts::ignored, "next"});
  const auto loader = Loader::training(set, options);
  std::uint64_t counted = 0;
  for (const auto step = loader->loss_weights(1); const std::uint64_t units : step) counted += units;
  std::uint64_t labels = 0;
  loader->seek(1);
  for (int k = 0; k < 4; ++k) {
    const Batch& batch = loader->next();
    for (std::int64_t i = 0; i < 2; ++i)
      for (const std::int32_t label : sample_of<std::int32_t>(batch, 1, i)) labels += label != TextPorts::ignored;
    loader->release();
  }
  EXPECT_EQ(counted, labels << 32);
}

TEST(Masking, OfEvaluationsIsTheSameForAllSeeds) {
  const Folder folder;
  write_tokens(folder / "a.h5", some_documents(20), *testing::golden_tokenizer("uncased"));
  const TextPorts ports(masked());
  const Dataset set = ports.open({folder / "a.h5"});
  const auto first = [&](std::uint64_t seed) {
    LoaderOptions options = ports.batch.of(1);
    options.seed = seed;
    const auto loader = Loader::evaluation(set, options);
    const Values labels = sample_of<std::int32_t>(loader->next(), 1, 0);
    loader->release();
    return labels;
  };
  EXPECT_EQ(first(1), first(2));
}

TEST(Masking, OfWholeWordsHidesAllTheirTokens) {
  const auto tokenizer = testing::golden_tokenizer("uncased");
  const MaskTokens words = MaskTokens::of(*tokenizer, true, "test");
  std::vector<TokenId> begins, continues;
  for (TokenId id = 5; id < tokenizer->vocabulary(); ++id) (words.continues[id] ? continues : begins).push_back(id);
  ASSERT_FALSE(begins.empty());
  ASSERT_FALSE(continues.empty());
  std::vector<TokenId> ids;
  for (std::size_t i = 0; i < 20'000; ++i) {
    const auto& of = i % 3 == 0 ? begins : continues;
    ids.push_back(of[i * 7 % of.size()]);
  }
  double hidden = 0;
  std::vector<bool> chosen;
  Masking(words, 3).apply(ids.data(), static_cast<std::int64_t>(ids.size()), 5, 0, [&](std::int64_t, bool is, TokenId) {
    chosen.push_back(is);
    hidden += is;
  });
  for (std::size_t i = 0; i < chosen.size(); ++i) EXPECT_EQ(chosen[i], chosen[i / 3 * 3]);
  EXPECT_NEAR(hidden / static_cast<double>(ids.size()), 0.15, 0.015);
}

}  // namespace
}  // namespace dtrain::io
