#include "io/import/split.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <sstream>

#include <fmt/format.h>

#include "io/dataset/stream.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {

std::vector<std::pair<std::string, double>> parse_parts(const std::string& text) {
  const auto wrong = [&text](const std::string& what) {
    return ConfigError(
        fmt::format("--split {}: {}; expected names and shares that add up to 1, such as "
                    "train=0.8,eval=0.2",
                    text, what));
  };
  std::vector<std::pair<std::string, double>> parts;
  std::istringstream items(text);
  double sum = 0;
  for (std::string item; std::getline(items, item, ',');) {
    const auto at = item.find('=');
    const std::string name = item.substr(0, at);
    if (at == item.npos || name.empty()) throw wrong(fmt::format("\"{}\" is not NAME=SHARE", item));
    if (name.find('/') != name.npos) throw wrong(fmt::format("the name {} has a /", name));
    double share = 0;
    const char* const end = item.data() + item.size();
    const auto [stop, error] = std::from_chars(item.data() + at + 1, end, share);
    if (error != std::errc() || stop != end || !(share > 0 && share <= 1))
      throw wrong(fmt::format("{} is no share above 0 and at most 1", item.substr(at + 1)));
    if (std::any_of(parts.begin(), parts.end(), [&](const auto& p) { return p.first == name; }))
      throw wrong(fmt::format("the part {} is there twice", name));
    parts.emplace_back(name, share);
    sum += share;
  }
  if (std::abs(sum - 1) > 1e-6) throw wrong(fmt::format("the shares add up to {:.6g}", sum));
  return parts;
}

std::vector<std::uint64_t> shares_of(std::uint64_t n, std::span<const double> shares) {
  std::vector<std::uint64_t> counts;
  std::vector<double> remainders;
  std::uint64_t given = 0;
  for (const double share : shares) {
    const double exact = share * static_cast<double>(n);
    // 0.7 * 10 is a little below 7.
    const auto count = static_cast<std::uint64_t>(std::floor(exact + 1e-9 * static_cast<double>(n)));
    counts.push_back(std::min(count, n - given));
    remainders.push_back(exact - static_cast<double>(counts.back()));
    given += counts.back();
  }
  for (; given < n; ++given) {
    const auto largest = std::max_element(remainders.begin(), remainders.end());
    ++counts[static_cast<std::size_t>(largest - remainders.begin())];
    *largest -= 1;
  }
  return counts;
}

std::vector<SplitPart> split(std::uint64_t count, const SplitOptions& options, std::span<const std::int64_t> labels) {
  std::map<std::int64_t, std::vector<std::uint64_t>> groups;  // by label, or all
  for (std::uint64_t i = 0; i < count; ++i)
    groups[options.stratify ? labels[static_cast<std::size_t>(i)] : 0].push_back(i);
  std::vector<double> shares;
  for (const auto& [name, share] : options.parts) shares.push_back(share);
  for (int f = 0; f < options.folds; ++f) shares.push_back(1.0 / options.folds);
  std::vector<std::vector<std::uint64_t>> cut(shares.size());
  std::uint64_t turn = 0;
  std::size_t next = 0;  // fold that gets one more
  for (const auto& [label, rows] : groups) {
    const IndexPermutation order(rows.size(), options.seed, turn, 0, OrderVersion::second);
    std::vector<std::uint64_t> counts = shares_of(rows.size(), shares);
    if (options.folds > 0) {
      // What does not divide goes on from the fold where the class before ended, so that folds are of one size.
      std::fill(counts.begin(), counts.end(), rows.size() / counts.size());
      for (std::size_t rest = rows.size() % counts.size(); rest > 0; --rest) ++counts[next++ % counts.size()];
    }
    std::uint64_t at = 0;
    for (std::size_t p = 0; p < cut.size(); ++p)
      for (std::uint64_t i = 0; i < counts[p]; ++i) cut[p].push_back(rows[static_cast<std::size_t>(order(at++))]);
    ++turn;
  }
  std::vector<SplitPart> parts;
  for (std::size_t p = 0; p < cut.size(); ++p) {
    std::sort(cut[p].begin(), cut[p].end());
    if (cut[p].empty())
      throw DataError(fmt::format("{} samples are too few: {} gets none", count,
                                  options.folds > 0 ? fmt::format("fold {}", p + 1) : options.parts[p].first));
    if (options.folds == 0) parts.push_back({options.parts[p].first, cut[p]});
  }
  for (std::size_t f = 0; f < cut.size() && options.folds > 0; ++f) {
    SplitPart train{fmt::format("fold-{}-train", f + 1), {}};
    for (std::size_t p = 0; p < cut.size(); ++p)
      if (p != f) train.rows.insert(train.rows.end(), cut[p].begin(), cut[p].end());
    std::sort(train.rows.begin(), train.rows.end());
    parts.push_back(std::move(train));
    parts.push_back({fmt::format("fold-{}-eval", f + 1), cut[f]});
  }
  return parts;
}

std::string part_path(const std::string& out, const std::string& part) {
  const std::filesystem::path path(out);
  return (path.parent_path() / fmt::format("{}-{}{}", path.stem().string(), part, path.extension().string())).string();
}

}  // namespace dtrain::io
