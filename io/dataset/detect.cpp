#include "io/dataset/detect.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::array<std::string_view, 17> samples{
    "images",  "image",  "samples", "sample",  "data",         "x",      "inputs", "input",      "features",
    "feature", "tokens", "x_train", "train_x", "train_images", "x_test", "test_x", "test_images"};
constexpr std::array<std::string_view, 15> targets{"labels",  "label",        "targets", "target", "y",
                                                   "outputs", "output",       "classes", "class",  "y_train",
                                                   "train_y", "train_labels", "y_test",  "test_y", "test_labels"};

std::string_view last_component(std::string_view path) {
  return path.substr(path.rfind('/') + 1);
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

/// The data set to take for `what`, or null; more than one of the same name and depth is an error.
const h5::DatasetInfo* find(const h5::File& file, const h5::File::Listing& listing,
                            std::span<const std::string_view> names, std::string_view what, std::string_view setting) {
  for (const bool at_root : {true, false}) {
    for (const auto name : names) {
      const h5::DatasetInfo* found = nullptr;
      for (const h5::DatasetInfo& d : listing.datasets) {
        if ((d.path.rfind('/') == 0) != at_root || !same_name(last_component(d.path), name)) continue;
        if (found != nullptr) {
          throw DataError(fmt::format("{}: {} and {} could both be the {}; choose one with {}", file.path(),
                                      found->path, d.path, what, setting));
        }
        found = &d;
      }
      if (found != nullptr) return found;
    }
  }
  return nullptr;
}

void check(const h5::File& file, const h5::DatasetInfo& info) {
  if (!info.refused.empty()) throw DataError(fmt::format("{}: {} {}", file.path(), info.path, info.refused));
}

}  // namespace

Detected detect(const h5::File& file, const std::string& sample_key, const std::string& target_key, TargetUse use) {
  Detected result;
  std::optional<h5::File::Listing> listing;
  const auto listed = [&]() -> const h5::File::Listing& {
    if (!listing) listing = file.list();
    return *listing;
  };
  if (!sample_key.empty()) {
    result.sample = file.info(sample_key);
  } else {
    const auto* found = find(file, listed(), samples, "samples", "data.sample_key");
    if (found == nullptr) {
      throw DataError(
          fmt::format("{}: no data set has a usual name for samples ({}, ...); name it with data.sample_key; "
                      "the file holds {}",
                      file.path(), fmt::join(samples.begin(), samples.begin() + 6, ", "), listed().text()));
    }
    result.sample = *found;
  }
  check(file, result.sample);
  if (use == TargetUse::none) return result;
  if (!target_key.empty()) {
    result.target = file.info(target_key);
  } else {
    const auto* found = find(file, listed(), targets, "targets", "data.target_key");
    if (found != nullptr) {
      result.target = *found;
    } else if (use != TargetUse::automatic) {
      throw DataError(
          fmt::format("{}: no data set has a usual name for {} ({}, ...); name it with data.target_key; the "
                      "file holds {}",
                      file.path(), use == TargetUse::labels ? "labels" : "targets",
                      fmt::join(targets.begin(), targets.begin() + 5, ", "), listed().text()));
    }
  }
  if (result.target) check(file, *result.target);
  return result;
}

}  // namespace dtrain::io
