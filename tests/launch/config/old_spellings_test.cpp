// Old spellings of configuration keys go on working, in files, on the command line and in checkpoints.
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"

namespace dtrain::launch {
namespace {

constexpr std::string_view small = R"(name: small
model:
  input: [4]
  layers:
    - dense: {units: 3, activation: relu}
    - dense: {units: 2}
data:
  train: a.h5
)";

std::string with(std::string_view more) {
  return std::string(small) + std::string(more);
}

TEST(OldSpellings, AreReadAndNeverWritten) {
  const std::string old = with("  normalize: {scale: 0.5, deviation: 3}\n");
  const std::string now = with("  normalize: {scale: 0.5, standard_deviation: 3}\n");
  const LoadedConfig loaded = parse_config(old, "c.yaml");
  EXPECT_EQ(loaded.config.data.normalize.standard_deviation, std::vector<double>{3});
  EXPECT_EQ(loaded.hash, parse_config(now, "c.yaml").hash);
  EXPECT_EQ(loaded.canonical.find(" deviation"), std::string::npos) << loaded.canonical;
  EXPECT_NE(show_config(loaded).find("standard_deviation: 3"), std::string::npos) << show_config(loaded);
  EXPECT_EQ(loaded.places.at("data.normalize.standard_deviation").line, 9);
  EXPECT_EQ(config_schema().find("\"deviation\""), std::string::npos);
  EXPECT_EQ(config_reference().find("`deviation`"), std::string::npos);

  // The command line wins whichever spelling it uses; beside each other they are one field given twice.
  const auto deviation = [](const std::string& text, const std::string& key) {
    return parse_config(text, "c.yaml", std::vector<std::string>{"data.normalize." + key + "=7"})
        .config.data.normalize.standard_deviation;
  };
  for (const std::string& text : {old, now, std::string(small)}) {
    EXPECT_EQ(deviation(text, "deviation"), std::vector<double>{7});
    EXPECT_EQ(deviation(text, "standard_deviation"), std::vector<double>{7});
  }
  const auto complaint = [](const std::string& text) -> std::string {
    try {
      parse_config(text, "c.yaml");
      return "";
    } catch (const ConfigError& e) {
      return e.what();
    }
  };
  EXPECT_EQ(complaint(with("  normalize: {standard_deviation: 2, deviation: 3}\n")),
            "c.yaml:9:49: data.normalize: both standard_deviation and deviation (its old name) are given; expected one "
            "of them");
  EXPECT_EQ(complaint(with("  normalize: {deviation: 0}\n")),
            "c.yaml:9:26: data.normalize.standard_deviation: got 0; expected a number above 0");
}

TEST(OldSpellings, OfAnOlderCheckpointAreReadInTheWordsOfToday) {
  const std::string then = with("  normalize: {scale: 0.5, deviation: 3}\n");
  const std::vector<std::pair<std::string, std::string>> saved = {{"data.normalize.deviation", "3"}};
  EXPECT_EQ(fields_of(then, saved), parse_config(then, "c.yaml").fields);
  EXPECT_EQ(fields_of("model: 3\n", saved), saved);
}

}  // namespace
}  // namespace dtrain::launch
