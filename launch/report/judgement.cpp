#include "launch/report/judgement.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace dtrain::launch {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::size_t most_rows = 10;  // classes that table_of() shows, where there are more than twice as many

double ratio(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::uint64_t predictions_of(const ClassCounts& c, std::size_t k) {
  std::uint64_t sum = 0;
  for (std::size_t label = 0; label < c.classes; ++label) sum += c.at(label, k);
  return sum;
}

/// From the worst recall on, of classes that are labels.
std::vector<std::size_t> by_recall(const std::vector<ClassScores>& scores) {
  std::vector<std::size_t> order;
  for (std::size_t k = 0; k < scores.size(); ++k)
    if (scores[k].labels > 0) order.push_back(k);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a].recall < scores[b].recall; });
  return order;
}

}  // namespace

std::string ClassCounts::name_of(std::size_t k) const {
  return k < names.size() ? names[k] : fmt::format("{}", k);
}

std::vector<ClassScores> scores_of(const ClassCounts& c) {
  std::vector<ClassScores> out(c.classes);
  for (std::size_t k = 0; k < c.classes; ++k) {
    const std::uint64_t right = c.at(k, k), predicted = predictions_of(c, k);
    ClassScores& s = out[k];
    for (std::size_t p = 0; p < c.classes; ++p) s.labels += c.at(k, p);
    s.precision = ratio(right, predicted);
    s.recall = ratio(right, s.labels);
    s.f1 = ratio(2 * right, s.labels + predicted);
  }
  return out;
}

MeanScores means_of(const ClassCounts& c) {
  MeanScores mean;
  const std::vector<ClassScores> scores = scores_of(c);
  double present = 0;
  for (std::size_t k = 0; k < c.classes; ++k) {
    if (scores[k].labels == 0 && predictions_of(c, k) == 0) continue;
    mean.precision += scores[k].precision;
    mean.recall += scores[k].recall;
    mean.f1 += scores[k].f1;
    ++present;
  }
  for (double* of : {&mean.precision, &mean.recall, &mean.f1}) *of = present > 0 ? *of / present : 0;
  return mean;
}

std::optional<std::size_t> worst_class(const ClassCounts& c) {
  const std::vector<ClassScores> scores = scores_of(c);
  const std::vector<std::size_t> order = by_recall(scores);
  if (order.empty() || scores[order[0]].recall == 1) return std::nullopt;
  return order[0];
}

std::optional<double> area_under_roc(std::vector<Scored>& scores) {
  std::uint64_t ones = 0;
  for (const Scored& s : scores) {
    if (!std::isfinite(s.score)) return std::nullopt;
    ones += s.second ? 1 : 0;
  }
  const std::uint64_t zeros = scores.size() - ones;
  if (ones == 0 || zeros == 0) return std::nullopt;
  std::sort(scores.begin(), scores.end(), [](const Scored& a, const Scored& b) { return a.score < b.score; });
  // Twice the pairs that are right: whole numbers, so that no order of adding matters.
  std::uint64_t twice = 0, zeros_below = 0;
  for (std::size_t begin = 0; begin < scores.size();) {
    std::size_t end = begin;
    std::uint64_t ones_here = 0;
    for (; end < scores.size() && scores[end].score == scores[begin].score; ++end)
      ones_here += scores[end].second ? 1 : 0;
    const std::uint64_t zeros_here = end - begin - ones_here;
    twice += ones_here * (2 * zeros_below + zeros_here);
    zeros_below += zeros_here;
    begin = end;
  }
  return static_cast<double>(twice) / 2 / static_cast<double>(ones) / static_cast<double>(zeros);
}

void ErrorSums::add(double value, double target) {
  const double error = value - target, from_mean = target - mean;
  ++count;
  absolute += std::abs(error);
  squared += error * error;
  mean += from_mean / count;
  around += from_mean * (target - mean);
}

void ErrorSums::add(const ErrorSums& other) {
  if (other.count == 0) return;
  const double all = count + other.count, apart = other.mean - mean;
  around += other.around + apart * apart * count * other.count / all;
  mean += apart * other.count / all;
  count = all;
  absolute += other.absolute;
  squared += other.squared;
}

std::optional<ErrorMetrics> errors_of(const std::string& loss, std::span<const ErrorSums> columns) {
  ErrorMetrics m{.loss = loss};
  double count = 0, r2 = 0;
  bool varies = true;
  for (const ErrorSums& c : columns) {
    count += c.count;
    m.mae += c.absolute;
    m.rmse += c.squared;
    varies = varies && c.around > 0;
    r2 += varies ? 1 - c.squared / c.around : 0;
  }
  if (count == 0) return std::nullopt;
  m.mae /= count;
  m.rmse = std::sqrt(m.rmse / count);
  if (varies) m.r2 = r2 / static_cast<double>(columns.size());
  return m;
}

void add_numbers(Json& json, const Judgement& judged, const std::string& loss) {
  for (const ClassCounts& c : judged.classes) {
    if (c.loss != loss) continue;
    const MeanScores mean = means_of(c);
    json["precision"] = mean.precision;
    json["recall"] = mean.recall;
    json["f1"] = mean.f1;
    if (c.auc) json["auc"] = *c.auc;
  }
  for (const ErrorMetrics& e : judged.errors) {
    if (e.loss != loss) continue;
    json["mae"] = e.mae;
    json["rmse"] = e.rmse;
    if (e.r2) json["r2"] = *e.r2;
  }
}

Json details_of(const Judgement& judged) {
  Json out = Json::object();
  for (const ClassCounts& c : judged.classes) {
    Json rows = Json::array(), confusion = Json::array();
    const std::vector<ClassScores> scores = scores_of(c);
    for (std::size_t k = 0; k < c.classes; ++k) {
      const ClassScores& s = scores[k];
      rows.push_back({{"name", c.name_of(k)},
                      {"labels", s.labels},
                      {"right", c.at(k, k)},
                      {"precision", s.precision},
                      {"recall", s.recall},
                      {"f1", s.f1}});
      const auto row = c.counts.begin() + static_cast<std::ptrdiff_t>(k * c.classes);
      confusion.push_back(std::vector<std::uint64_t>(row, row + static_cast<std::ptrdiff_t>(c.classes)));
    }
    out[c.loss] = {{"classes", std::move(rows)}, {"confusion", std::move(confusion)}};
  }
  return out;
}

std::string table_of(const Judgement& judged) {
  std::string text;
  const bool single = judged.errors.size() + judged.classes.size() == 1;
  for (const ErrorMetrics& e : judged.errors) {
    if (!single) text += e.loss + ": ";
    text += fmt::format("mean absolute error {:.6g}, root mean squared error {:.6g}", e.mae, e.rmse);
    text += e.r2 ? fmt::format(", R^2 {:.6g}\n", *e.r2) : std::string("\n");
  }
  for (const ClassCounts& c : judged.classes) {
    const MeanScores mean = means_of(c);
    if (!single) text += c.loss + ": ";
    text += fmt::format("means over classes: precision {:.4f}, recall {:.4f}, F1 {:.4f}", mean.precision, mean.recall,
                        mean.f1);
    text += c.auc ? fmt::format("; area under the ROC curve {:.4f}\n", *c.auc) : std::string("\n");
    const std::vector<ClassScores> scores = scores_of(c);
    std::vector<std::size_t> shown(c.classes);
    std::iota(shown.begin(), shown.end(), std::size_t{0});
    if (c.classes > 2 * most_rows) {
      shown = by_recall(scores);
      shown.resize(std::min(shown.size(), most_rows));
      text += fmt::format("the {} classes with the lowest recall, of {}; --json has all of them\n", shown.size(),
                          c.classes);
    }
    std::size_t width = 5;
    for (const std::size_t k : shown) width = std::max(width, c.name_of(k).size());
    text += fmt::format("  {:{}}    labels  precision  recall      F1  most often taken for\n", "class", width);
    for (const std::size_t k : shown) {
      const ClassScores& s = scores[k];
      std::size_t other = k == 0 ? 1 : 0;
      for (std::size_t p = 0; p < c.classes; ++p)
        if (p != k && c.at(k, p) > c.at(k, other)) other = p;
      const std::uint64_t wrong = other < c.classes ? c.at(k, other) : 0;
      text += fmt::format("  {:{}}  {:8}  {:9.4f}  {:6.4f}  {:6.4f}", c.name_of(k), width, s.labels, s.precision,
                          s.recall, s.f1);
      text += wrong > 0 ? fmt::format("  {} ({})\n", c.name_of(other), wrong) : std::string("\n");
    }
  }
  return text;
}

std::string worst_text(const Judgement& judged) {
  std::string text;
  for (const ClassCounts& c : judged.classes) {
    const auto worst = worst_class(c);
    if (c.classes < 3 || !worst) continue;
    text += fmt::format("; worst class{} {}: {} of {} right",
                        judged.classes.size() > 1 ? fmt::format(" of {}", c.loss) : std::string(), c.name_of(*worst),
                        c.at(*worst, *worst), scores_of(c)[*worst].labels);
  }
  return text;
}

}  // namespace dtrain::launch
