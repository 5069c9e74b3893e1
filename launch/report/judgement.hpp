// What an evaluation counts beside its losses: which classes are taken for which, and how far values are off.
// Plain values that own their counts, and what is made of them for people and files; for any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace dtrain::launch {

/// Of the labels that one loss compares; positions that weigh nothing or are ignored do not count.
struct ClassCounts {
  std::string loss;
  std::vector<std::string> names;  // of classes; empty: they have none
  std::size_t classes = 0;
  std::vector<std::uint64_t> counts{};  // [label, prediction]: the confusion matrix
  std::optional<double> auc{};          // of two classes, see area_under_roc()

  std::uint64_t at(std::size_t label, std::size_t prediction) const { return counts[label * classes + prediction]; }
  /// "cat", or "class 3".
  std::string name_of(std::size_t k) const;
};

/// As scikit-learn's precision_recall_fscore_support; 0 where a ratio has no denominator.
struct ClassScores {
  std::uint64_t labels = 0;  // positions with this label
  double precision = 0, recall = 0, f1 = 0;
};
std::vector<ClassScores> scores_of(const ClassCounts&);
/// Means over the classes that are a label or a prediction somewhere (scikit-learn: average="macro").
struct MeanScores {
  double precision = 0, recall = 0, f1 = 0;
};
MeanScores means_of(const ClassCounts&);
/// The class with the lowest recall of those that are labels, the first of these; nothing where all are right, or
/// nothing was compared.
std::optional<std::size_t> worst_class(const ClassCounts&);

/// Of one sample of two classes: how much more its second class is predicted, and whether that is the label.
struct Scored {
  double score = 0;  // exact: a rounded difference would make scores equal that are not
  bool second = false;
};
/// The area under the ROC curve: the share of pairs of one sample of each class in which that of the second class has
/// the larger score, where equal scores count half (Mann and Whitney's U). Nothing where a class has no sample or a
/// score is not finite. Sorts what it is given.
std::optional<double> area_under_roc(std::vector<Scored>& scores);

/// Of the values that one squared error compares, in the units of the target.
struct ErrorMetrics {
  std::string loss;
  double mae = 0;              // mean absolute error
  double rmse = 0;             // root of the mean squared error
  std::optional<double> r2{};  // 1 - squared errors / squares around the mean, mean over the columns (scikit-learn's
                               // r2_score); nothing where a column does not vary or there are too many
};

/// Sums of one column over some positions, of which others can be added; the same bits in the same order.
struct ErrorSums {
  double count = 0, absolute = 0, squared = 0;  // of errors
  double mean = 0, around = 0;                  // of targets: their mean, and squares around it

  void add(double value, double target);
  /// Chan, Golub and LeVeque's formula for the squares.
  void add(const ErrorSums&);
};
/// `columns`: one each. Nothing where nothing was compared.
std::optional<ErrorMetrics> errors_of(const std::string& loss, std::span<const ErrorSums> columns);

struct Judgement {
  std::vector<ClassCounts> classes;
  std::vector<ErrorMetrics> errors;
};
/// Adds the numbers of this loss: "precision", "recall", "f1" (means over classes), "auc"; "mae", "rmse", "r2".
void add_numbers(nlohmann::ordered_json&, const Judgement&, const std::string& loss);
/// By loss: the classes with their counts and scores, and the confusion matrix.
nlohmann::ordered_json details_of(const Judgement&);
/// Lines for people, each with a newline: the means, and the classes, of many the worst ten.
std::string table_of(const Judgement&);
/// "; worst class cat: 812 of 1000 right"; empty where there is none.
std::string worst_text(const Judgement&);

}  // namespace dtrain::launch
