// What a configuration's words mean beyond their fields: directories of a name, settings of the command line, and what
// other libraries call a key.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

constexpr std::string_view small =
    "name: small\nmodel: {input: [4], layers: [dense: {units: 2}]}\ndata: {train: a.h5}\n";

std::string with(const std::string& more) {
  return std::string(small) + more;
}

TEST(ConfigWords, AResolvedFileUnderAnotherNameHasDirectoriesOfThatName) {
  const LoadedConfig once = parse_config(small, "c.yaml");
  const std::vector<std::string> renamed{"name=other"};
  const LoadedConfig other = parse_config(once.canonical, "config.yaml", renamed);
  EXPECT_EQ(other.config.log.directory, "runs/other");
  EXPECT_EQ(other.config.checkpoint.directory, "runs/other/checkpoints");
  EXPECT_TRUE(other.remarks.empty());
  // What was said stays.
  const std::vector<std::string> said{"log.directory=here"};
  const LoadedConfig kept = parse_config(parse_config(small, "c.yaml", said).canonical, "config.yaml", renamed);
  EXPECT_EQ(kept.config.log.directory, "here");
  EXPECT_TRUE(kept.remarks.empty());
  // Of a file that an earlier version wrote.
  const std::vector<std::string> earlier{"name=other", "log.directory=runs/small",
                                         "checkpoint.directory=runs/small/checkpoints"};
  const LoadedConfig warned = parse_config(small, "c.yaml", earlier);
  ASSERT_EQ(warned.remarks.size(), 1u);
  EXPECT_EQ(warned.remarks[0],
            "the name is other, and log.directory and checkpoint.directory are those of runs/small: remove both lines "
            "for runs/other");
}

TEST(ConfigWords, NullOfTheCommandLineUnsetsAKey) {
  const auto loaded = [](const std::string& more, const std::vector<std::string>& overrides) {
    return parse_config(with(more), "c.yaml", overrides);
  };
  EXPECT_EQ(loaded("seed: 3\n", {"seed=null"}).config.seed, 1u);
  EXPECT_EQ(loaded("seed: 3\n", {"seed=null"}).places.count("seed"), 0u);
  EXPECT_EQ(loaded("optimizer: {sgd: {momentum: 0.5}}\n", {"optimizer.sgd.momentum=~"}).canonical,
            loaded("optimizer: sgd\n", {}).canonical);
  EXPECT_EQ(loaded("train: {epochs: 3}\n", {"train.epochs=null", "train.steps=5"}).config.train.steps, 5);
  EXPECT_EQ(loaded("train: {epochs: 3}\n", {"train=null"}).config.train.epochs, 1);
  for (const auto& [override, text] :
       {std::pair("sed=null", "did you mean seed?"), std::pair("data=null", "data is missing"),
        std::pair("seed=", "there is no value behind \"=\"; key=null unsets a key")}) {
    try {
      loaded("", {override});
      ADD_FAILURE() << override;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(text), std::string::npos) << e.what();
    }
  }
}

TEST(ConfigWords, OfTwoThatExcludeEachOtherTheLaterOneOfTheCommandLineCounts) {
  const std::vector<std::string> steps{"train.epochs=2", "train.steps=5"}, epochs{"train.steps=5", "train.epochs=2"},
      at_once{"train={epochs: 2, steps: 5}"};
  const LoadedConfig later = parse_config(small, "c.yaml", steps);
  EXPECT_EQ(later.config.train.steps, 5);
  ASSERT_EQ(later.remarks.size(), 1u);
  EXPECT_EQ(later.remarks[0],
            "train.steps and train.epochs are both on the command line: train.steps counts, the later one");
  EXPECT_EQ(parse_config(small, "c.yaml", epochs).config.train.steps, 0);
  EXPECT_EQ(parse_config(small, "c.yaml", epochs).config.train.epochs, 2);
  EXPECT_THROW(parse_config(small, "c.yaml", at_once), ConfigError);
}

TEST(ConfigWords, WordsOfOtherLibrariesAreUnderstood) {
  for (const auto& [more, hint] :
       {std::pair("optimizer: {sgd: {lr: 0.1}}\n", "learning_rate"),
        std::pair("lr: 0.1\n", "optimizer.sgd.learning_rate"), std::pair("precision: bf16\n", "bfloat16"),
        std::pair("device: gpu\n", "cuda"), std::pair("batch_size: 4\n", "batch"),
        std::pair("batch: {batch_size: 4}\n", "global")}) {
    try {
      parse_config(with(more), "c.yaml");
      ADD_FAILURE() << more;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(fmt::format("did you mean {}", hint)), std::string::npos) << e.what();
    }
  }
  for (const auto& [layer, hint] :
       {std::pair("linear: {units: 3}", "dense"), std::pair("conv_transpose2d: {filters: 3}", "conv2d_transpose"),
        std::pair("max_pool2d", "maxpool2d"), std::pair("batchnorm", "batch_norm")}) {
    try {
      parse_config(fmt::format("model: {{input: [4], layers: [{}]}}\ndata: {{train: a.h5}}\n", layer), "c.yaml");
      ADD_FAILURE() << layer;
    } catch (const ConfigError& e) {
      EXPECT_NE(std::string(e.what()).find(fmt::format("did you mean {}?", hint)), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace dtrain::launch
