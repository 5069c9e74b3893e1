// Classes and errors of an evaluation against scikit-learn's figures (tests/golden/make_judgement_goldens.py).
#include "launch/report/judgement.hpp"

#include <algorithm>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace dtrain::launch {
namespace {

using Json = nlohmann::ordered_json;

Json golden(const char* part) {
  return Json::parse(std::ifstream("tests/golden/judgement.json")).at(part);
}

ClassCounts counts_of(std::size_t classes, const std::vector<std::size_t>& labels,
                      const std::vector<std::size_t>& predicted) {
  ClassCounts c{.loss = "y", .names = {}, .classes = classes};
  c.counts.resize(classes * classes);
  for (std::size_t i = 0; i < labels.size(); ++i) ++c.counts[labels[i] * classes + predicted[i]];
  return c;
}

TEST(Judgement, classes_have_the_scores_of_scikit_learn) {
  int compared = 0;
  for (const Json& of : golden("classes")) {
    const auto c = counts_of(of["classes"], of["labels"], of["predicted"]);
    const auto scores = scores_of(c);
    for (std::size_t k = 0; k < c.classes; ++k) {
      EXPECT_DOUBLE_EQ(scores[k].precision, of["precision"][k].get<double>()) << k;
      EXPECT_DOUBLE_EQ(scores[k].recall, of["recall"][k].get<double>()) << k;
      EXPECT_DOUBLE_EQ(scores[k].f1, of["f1"][k].get<double>()) << k;
      EXPECT_EQ(scores[k].labels, of["support"][k].get<std::uint64_t>()) << k;
      for (std::size_t p = 0; p < c.classes; ++p) EXPECT_EQ(c.at(k, p), of["confusion"][k][p].get<std::uint64_t>());
      ++compared;
    }
    const MeanScores mean = means_of(c);
    EXPECT_NEAR(mean.precision, of["mean"][0].get<double>(), 1e-12);
    EXPECT_NEAR(mean.recall, of["mean"][1].get<double>(), 1e-12);
    EXPECT_NEAR(mean.f1, of["mean"][2].get<double>(), 1e-12);
  }
  EXPECT_EQ(compared, 10);
}

TEST(Judgement, the_area_under_the_curve_is_scikit_learns_with_equal_scores_too) {
  for (const Json& of : golden("scores")) {
    std::vector<Scored> scores;
    for (std::size_t i = 0; i < of["labels"].size(); ++i)
      scores.push_back({of["scores"][i].get<double>(), of["labels"][i] == 1});
    const auto auc = area_under_roc(scores);
    ASSERT_TRUE(auc);
    EXPECT_NEAR(*auc, of["auc"].get<double>(), 1e-12);
  }
  std::vector<Scored> one_class{{1, true}, {2, true}},
      no_number{{std::numeric_limits<double>::quiet_NaN(), true}, {1, false}};
  EXPECT_FALSE(area_under_roc(one_class));
  EXPECT_FALSE(area_under_roc(no_number));
}

TEST(Judgement, errors_are_scikit_learns_however_the_rows_are_shared) {
  for (const Json& of : golden("values")) {
    const std::size_t rows = of["target"].size(), columns = of["target"][0].size();
    for (const std::size_t part : {rows, std::size_t{1}, std::size_t{5}}) {
      std::vector<ErrorSums> total(columns);
      for (std::size_t begin = 0; begin < rows; begin += part) {
        std::vector<ErrorSums> batch(columns);
        for (std::size_t r = begin; r < std::min(begin + part, rows); ++r)
          for (std::size_t c = 0; c < columns; ++c) batch[c].add(of["value"][r][c], of["target"][r][c]);
        for (std::size_t c = 0; c < columns; ++c) total[c].add(batch[c]);
      }
      const auto e = errors_of("y", total);
      ASSERT_TRUE(e && e->r2);
      EXPECT_NEAR(e->mae, of["mae"].get<double>(), 1e-12);
      EXPECT_NEAR(e->rmse, of["rmse"].get<double>(), 1e-12);
      EXPECT_NEAR(*e->r2, of["r2"].get<double>(), 1e-9);
    }
  }
}

TEST(Judgement, a_target_that_does_not_vary_has_no_r2_and_nothing_compared_no_errors) {
  ErrorSums same;
  for (int i = 0; i < 3; ++i) same.add(2.0 + i, 2.0);
  const auto e = errors_of("y", std::span(&same, 1));
  ASSERT_TRUE(e);
  EXPECT_FALSE(e->r2);
  EXPECT_DOUBLE_EQ(e->mae, 1);
  const ErrorSums none;
  EXPECT_FALSE(errors_of("y", std::span(&none, 1)));
}

TEST(Judgement, the_worst_class_is_named) {
  Judgement judged;
  judged.classes.push_back(counts_of(3, {0, 0, 1, 1, 2}, {0, 1, 1, 1, 2}));
  judged.classes[0].names = {"ant", "bee", "cat"};
  EXPECT_EQ(worst_text(judged), "; worst class ant: 1 of 2 right");
  judged.classes[0].names.clear();
  EXPECT_EQ(worst_text(judged), "; worst class 0: 1 of 2 right");
  judged.classes[0] = counts_of(3, {0, 1}, {0, 1});  // all are right, and one class is no label
  EXPECT_EQ(worst_text(judged), "");
  judged.classes[0] = counts_of(2, {0, 1}, {1, 1});  // of two, precision and recall say it
  EXPECT_EQ(worst_text(judged), "");
}

TEST(Judgement, people_read_a_table_of_few_classes_and_the_worst_of_many) {
  Judgement judged;
  judged.classes.push_back(counts_of(3, {0, 0, 1, 1, 2}, {0, 1, 1, 1, 2}));
  judged.classes[0].names = {"ant", "bumblebee", "cat"};
  const std::string text = table_of(judged);
  EXPECT_NE(text.find("means over classes: precision 0.8889, recall 0.8333, F1 0.8222\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  ant               2     1.0000  0.5000  0.6667  bumblebee (1)\n"), std::string::npos) << text;
  std::vector<std::size_t> labels, predicted;
  for (std::size_t k = 0; k < 30; ++k) {
    labels.insert(labels.end(), {k, k});
    predicted.insert(predicted.end(), {k, k == 17 ? 3 : k});
  }
  judged.classes[0] = counts_of(30, labels, predicted);
  const std::string worst = table_of(judged);
  EXPECT_NE(worst.find("the 10 classes with the lowest recall, of 30; --json has all of them\n"), std::string::npos);
  EXPECT_NE(worst.find("\n  17            2     1.0000  0.5000  0.6667  3 (1)\n"), std::string::npos) << worst;
  EXPECT_EQ(std::count(worst.begin(), worst.end(), '\n'), 13);
}

}  // namespace
}  // namespace dtrain::launch
