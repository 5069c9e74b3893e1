// Thousands of damaged recipes: each either loads or is refused with problems, and never takes long.
#include <ctime>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "launch/config/config_file.hpp"

namespace dtrain::launch {
namespace {

constexpr int mutations = 3000;
constexpr double seconds_each = 0.5;  // of the processor: a sanitizer build is slow, an explosion is slower

std::string mutate(std::string text, std::mt19937& random) {
  static const std::vector<std::string> pieces{"&a ", "*a",   "!!x ", "{",   "}",    "[",     "]",   ": ",  "- ",
                                               "? ",  "|\n",  ">\n",  "\"",  "'",    "#",     "---", "...", "%",
                                               "\t",  "\r",   "\n",   "0",   "-",    "1e999", "~",   "010", "null",
                                               "\\x", "\xc3", "\0",   "<<:", "9999", "@x",    "`"};
  const auto pick = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  const std::size_t edits = 1 + pick(5);
  for (std::size_t i = 0; i < edits && !text.empty(); ++i) {
    const std::size_t at = pick(text.size());
    switch (pick(6)) {
      case 0:
        text[at] = static_cast<char>(pick(256));
        break;
      case 1:
        text.insert(at, pieces[pick(pieces.size())]);
        break;
      case 2:
        text.erase(at, 1 + pick(20));
        break;
      case 3:  // a line or part of one twice
        text.insert(at, text.substr(pick(text.size()), 1 + pick(60)));
        break;
      case 4:
        text.resize(at);
        break;
      default:
        for (std::size_t k = 0, n = pick(200); k < n; ++k) text.insert(at, pieces[3 + pick(5)]);
    }
  }
  return text;
}

TEST(ConfigFuzz, LoadsOrExplains) {
  std::ifstream in("models/recipes/mnist-cnn.yaml");
  const std::string recipe((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  ASSERT_GT(recipe.size(), 100u);
  std::mt19937 random(1);
  int loaded = 0;
  for (int i = 0; i < mutations; ++i) {
    const std::string text = mutate(recipe, random);
    const std::clock_t begin = std::clock();
    try {
      const LoadedConfig c = parse_config(text, "c.yaml");
      // What loads has a canonical form that loads, too.
      EXPECT_EQ(parse_config(c.canonical, "config.yaml").canonical, c.canonical) << text;
      ++loaded;
    } catch (const ConfigError& e) {
      ASSERT_FALSE(e.problems().empty());
      for (const auto& problem : e.problems()) {
        EXPECT_EQ(problem.file, "c.yaml");
        EXPECT_FALSE(problem.text.empty());
        EXPECT_EQ(problem.text.find('\n'), std::string::npos) << problem.text;
      }
    } catch (const std::exception& e) {
      FAIL() << e.what() << "\n" << text;
    }
    ASSERT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, seconds_each) << text;
  }
  EXPECT_GT(loaded, 0);
  EXPECT_LT(loaded, mutations);
}

TEST(ConfigFuzz, OverridesLoadOrExplain) {
  std::ifstream in("models/recipes/mnist-cnn.yaml");
  const std::string recipe((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::mt19937 random(2);
  const std::vector<std::string> seeds{"optimizer={sgd: {learning_rate: 0.05}}",
                                       "model.layers.0.conv2d.filters=3",
                                       "train.steps=5",
                                       "data.train=[a, b]",
                                       "log={}",
                                       "model=1"};
  for (int i = 0; i < mutations / 3; ++i) {  // short texts: fewer changes are new
    const std::vector<std::string> overrides{mutate(seeds[static_cast<std::size_t>(i) % seeds.size()], random)};
    try {
      parse_config(recipe, "c.yaml", overrides);
    } catch (const ConfigError& e) {
      EXPECT_FALSE(e.problems().empty());
    } catch (const std::exception& e) {
      FAIL() << e.what() << "\n" << overrides[0];
    }
  }
}

}  // namespace
}  // namespace dtrain::launch
