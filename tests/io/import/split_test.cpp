// Parts of a data set: every sample in one, exact counts, the same on any machine.
#include "io/import/split.hpp"

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

SplitOptions by(const std::string& parts, bool stratify = false, std::uint64_t seed = 1) {
  SplitOptions o;
  o.parts = parse_parts(parts);
  o.stratify = stratify;
  o.seed = seed;
  return o;
}

std::string problem(const std::string& text) {
  try {
    parse_parts(text);
    return "";
  } catch (const ConfigError& e) {
    return e.what();
  }
}

TEST(Split, shares_are_counts_that_add_up) {
  const double thirds[] = {1.0 / 3, 1.0 / 3, 1.0 / 3}, tenths[] = {0.7, 0.2, 0.1};
  EXPECT_EQ(shares_of(10, thirds), (std::vector<std::uint64_t>{4, 3, 3}));
  EXPECT_EQ(shares_of(10, tenths), (std::vector<std::uint64_t>{7, 2, 1}));
  EXPECT_EQ(shares_of(7, tenths), (std::vector<std::uint64_t>{5, 1, 1}));
  EXPECT_EQ(shares_of(0, tenths), (std::vector<std::uint64_t>{0, 0, 0}));
  EXPECT_EQ(shares_of(1, tenths), (std::vector<std::uint64_t>{1, 0, 0}));
}

TEST(Split, every_sample_is_in_one_part_and_the_seed_says_in_which) {
  const auto parts = split(20, by("train=0.7,eval=0.2,test=0.1"), {});
  ASSERT_EQ(parts.size(), 3u);
  EXPECT_EQ(parts[1].name, "eval");
  std::vector<std::uint64_t> all;
  for (const SplitPart& part : parts) all.insert(all.end(), part.rows.begin(), part.rows.end());
  EXPECT_TRUE(std::is_sorted(parts[0].rows.begin(), parts[0].rows.end()));
  std::sort(all.begin(), all.end());
  std::vector<std::uint64_t> expected(20);
  std::iota(expected.begin(), expected.end(), std::uint64_t{0});
  EXPECT_EQ(all, expected);
  // On any machine, and in any later dtrain.
  EXPECT_EQ(parts[2].rows, (std::vector<std::uint64_t>{1, 4}));
  EXPECT_EQ(split(20, by("train=0.7,eval=0.2,test=0.1"), {})[0].rows, parts[0].rows);
  EXPECT_NE(split(20, by("train=0.7,eval=0.2,test=0.1", false, 2), {})[0].rows, parts[0].rows);
}

TEST(Split, stratified_parts_have_their_share_of_each_class_exactly) {
  std::vector<std::int64_t> labels(50, 0);
  labels.insert(labels.end(), 30, 7);
  labels.insert(labels.end(), 20, 255);
  labels.push_back(3);  // a class of one
  const auto parts = split(labels.size(), by("train=0.8,eval=0.2", true), labels);
  const auto count = [&](const SplitPart& part, std::int64_t label) {
    return std::count_if(part.rows.begin(), part.rows.end(), [&](std::uint64_t i) { return labels[i] == label; });
  };
  for (const auto& [label, train, eval] : {std::tuple{0, 40, 10}, {7, 24, 6}, {255, 16, 4}, {3, 1, 0}}) {
    EXPECT_EQ(count(parts[0], label), train) << label;
    EXPECT_EQ(count(parts[1], label), eval) << label;
  }
}

TEST(Split, folds_share_the_samples_and_train_on_all_others) {
  SplitOptions o;
  o.folds = 3;
  o.stratify = true;
  const std::vector<std::int64_t> labels{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2};  // four of each in three folds
  const auto parts = split(12, o, labels);
  ASSERT_EQ(parts.size(), 6u);
  std::vector<std::uint64_t> evaluated;
  for (std::size_t f = 0; f < 3; ++f) {
    const SplitPart &train = parts[2 * f], &eval = parts[2 * f + 1];
    EXPECT_EQ(train.name, "fold-" + std::to_string(f + 1) + "-train");
    EXPECT_EQ(eval.rows.size(), 4u);
    EXPECT_EQ(train.rows.size(), 8u);
    for (const std::uint64_t row : eval.rows)
      EXPECT_FALSE(std::binary_search(train.rows.begin(), train.rows.end(), row));
    evaluated.insert(evaluated.end(), eval.rows.begin(), eval.rows.end());
  }
  std::sort(evaluated.begin(), evaluated.end());
  EXPECT_EQ(std::unique(evaluated.begin(), evaluated.end()), evaluated.end());
}

TEST(Split, stratified_folds_are_of_one_size_whatever_the_classes_leave_over) {
  SplitOptions o;
  o.folds = 2;
  o.stratify = true;
  std::vector<std::int64_t> labels;
  for (int c = 0; c < 20; ++c) labels.insert(labels.end(), c % 2 == 0 ? 3 : 4, c);
  const auto parts = split(labels.size(), o, labels);
  EXPECT_EQ(parts[1].rows.size(), 35u);
  EXPECT_EQ(parts[3].rows.size(), 35u);
}

TEST(Split, bad_parts_are_one_clear_error) {
  EXPECT_EQ(problem("train=0.8,eval=0.2"), "");
  EXPECT_EQ(problem("a=0.1,b=0.2,c=0.7"), "");
  EXPECT_EQ(problem("train=0.8,eval=0.1"),
            "--split train=0.8,eval=0.1: the shares add up to 0.9; expected names and shares that add up to 1, such as "
            "train=0.8,eval=0.2");
  EXPECT_NE(problem("train=80,eval=20").find("80 is no share above 0 and at most 1"), std::string::npos);
  EXPECT_NE(problem("train=1,eval=0").find("0 is no share above 0"), std::string::npos);
  EXPECT_NE(problem("train=0.5,train=0.5").find("the part train is there twice"), std::string::npos);
  EXPECT_NE(problem("a/b=1").find("the name a/b has a /"), std::string::npos);
  EXPECT_NE(problem("train").find("\"train\" is not NAME=SHARE"), std::string::npos);
  EXPECT_THROW(split(3, by("train=0.99,eval=0.01"), {}), DataError);
}

TEST(Split, parts_lie_beside_the_output) {
  EXPECT_EQ(part_path("data/photos.h5", "train"), "data/photos-train.h5");
  EXPECT_EQ(part_path("photos", "eval"), "photos-eval");
}

}  // namespace
}  // namespace dtrain::io
