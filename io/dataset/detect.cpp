#include "io/dataset/detect.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <span>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::array<std::string_view, 11> sample_names{"images", "image", "samples",  "sample",  "data",  "x",
                                                        "inputs", "input", "features", "feature", "tokens"};
constexpr std::array<std::string_view, 9> target_names{"labels",  "label",  "targets", "target", "y",
                                                       "outputs", "output", "classes", "class"};
// A file may hold both halves: x_train and x_test, train_labels and test_labels, or groups of these names.
constexpr std::array<std::string_view, 2> training_words{"train", "training"};
constexpr std::array<std::string_view, 7> evaluation_words{"test", "val",        "valid", "validation",
                                                           "eval", "evaluation", "dev"};

std::string_view last_component(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

bool is_any(std::string_view word, std::span<const std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [word](std::string_view w) { return same_name(word, w); });
}

/// "x_train" as "x" and "train"; the second is empty where the name says nothing of a half.
std::pair<std::string_view, std::string_view> split_half(std::string_view name) {
  const auto half = [](std::string_view word) {
    return is_any(word, training_words) || is_any(word, evaluation_words);
  };
  if (const auto at = name.find('_'); at != name.npos && half(name.substr(0, at)))
    return {name.substr(at + 1), name.substr(0, at)};
  if (const auto at = name.rfind('_'); at != name.npos && half(name.substr(at + 1)))
    return {name.substr(0, at), name.substr(at + 1)};
  return {name, {}};
}

h5::DatasetInfo checked(const h5::File& file, h5::DatasetInfo info) {
  if (!info.refused.empty()) throw DataError(fmt::format("{}: {} {}", file.path(), info.path, info.refused));
  return info;
}

}  // namespace

std::optional<PortUse> usual_use(std::string_view path) {
  const std::string_view name = split_half(last_component(path)).first;
  if (is_any(name, sample_names)) return PortUse::input;
  return is_any(name, target_names) ? std::optional(PortUse::target) : std::nullopt;
}

const h5::File::Listing& PortFinder::listing() {
  if (!listing_) listing_ = file_.list();
  return *listing_;
}

int PortFinder::half_of(std::string_view path) const {
  const auto says = [this](std::string_view word) {
    if (is_any(word, training_words)) return evaluation_ ? -1 : 1;
    return is_any(word, evaluation_words) ? (evaluation_ ? 1 : -1) : 0;
  };
  if (const int half = says(split_half(last_component(path)).second); half != 0) return half;
  for (std::size_t begin = 1; begin < path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    if (const int half = says(path.substr(begin, end - begin)); half != 0 && end < path.size()) return half;
    begin = end + 1;
  }
  return 0;
}

/// The data set to take for `what`, or null; more than one of the same name, half and depth is an error. Where a file
/// says nothing of halves, its root comes before its groups.
const h5::DatasetInfo* PortFinder::find(std::span<const std::string_view> names, std::string_view what,
                                        std::string_view setting) {
  struct Place {
    int half;
    bool root;
  };
  constexpr Place of_training[] = {{0, true}, {1, true}, {1, false}, {0, false}, {-1, true}, {-1, false}};
  constexpr Place of_evaluation[] = {{1, true}, {1, false}, {0, true}, {0, false}, {-1, true}, {-1, false}};
  for (const Place place : evaluation_ ? of_evaluation : of_training) {
    for (const auto name : names) {
      const h5::DatasetInfo* found = nullptr;
      for (const h5::DatasetInfo& d : listing().datasets) {
        if ((d.path.rfind('/') == 0) != place.root || half_of(d.path) != place.half ||
            !same_name(split_half(last_component(d.path)).first, name))
          continue;
        if (found != nullptr && (found->link == d.path || d.link == found->path)) continue;
        if (found != nullptr) {
          throw DataError(fmt::format("{}: {} and {} could both be the {}; choose one with {}", file_.path(),
                                      found->path, d.path, what, setting));
        }
        found = &d;
      }
      if (found != nullptr) return found;
    }
  }
  return nullptr;
}

h5::DatasetInfo PortFinder::of_key(const std::string& key) const {
  return checked(file_, file_.info(key));
}

h5::DatasetInfo PortFinder::samples(const std::string& key) {
  if (!key.empty()) return of_key(key);
  const auto* found = find(sample_names, "samples", "data.sample_key");
  if (found == nullptr) {
    throw DataError(
        fmt::format("{}: no data set has a usual name for samples ({}, ...); name it with data.sample_key, or make a "
                    "file with `dtrain data repack --rename OLD=x`; the file holds {}",
                    file_.path(), fmt::join(sample_names.begin(), sample_names.begin() + 6, ", "), listing().text()));
  }
  return checked(file_, *found);
}

std::optional<h5::DatasetInfo> PortFinder::targets(const std::string& key, TargetUse use) {
  if (!key.empty()) return of_key(key);
  const auto* found = find(target_names, "targets", "data.target_key");
  if (found != nullptr) return checked(file_, *found);
  if (use == TargetUse::automatic) return std::nullopt;
  throw DataError(
      fmt::format("{}: no data set has a usual name for {} ({}, ...); name it with data.target_key; the "
                  "file holds {}",
                  file_.path(), use == TargetUse::labels ? "labels" : "targets",
                  fmt::join(target_names.begin(), target_names.begin() + 5, ", "), listing().text()));
}

h5::DatasetInfo PortFinder::of(const PortSource& port, bool usual) {
  if (!port.key.empty()) return of_key(port.key);
  const auto& held = listing().datasets;
  const auto own = std::find_if(held.begin(), held.end(), [&](const auto& d) { return d.path == '/' + port.name; });
  // Only the names of the short form say nothing about the file.
  const bool any = usual && port.name == (port.use == PortUse::input ? "input" : "target");
  if (own != held.end() && !any) return checked(file_, *own);
  if (any && port.use == PortUse::input) return samples({});
  if (any && port.use == PortUse::target) return *targets({}, port.index ? TargetUse::labels : TargetUse::values);
  try {
    return of_key(port.name);
  } catch (const DataError& e) {  // which tells what the file holds instead
    const std::string_view section = port.use == PortUse::input    ? "inputs"
                                     : port.use == PortUse::target ? "targets"
                                                                   : "weights";
    throw DataError(fmt::format("{} (data.{}.{} says which one is read)", e.what(), section, port.name));
  }
}

Detected detect(const h5::File& file, const std::string& sample_key, const std::string& target_key, TargetUse use) {
  PortFinder finder(file);
  Detected result{finder.samples(sample_key), {}};
  if (use != TargetUse::none) result.target = finder.targets(target_key, use);
  return result;
}

}  // namespace dtrain::io
