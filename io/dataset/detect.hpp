// Which data sets of a file are the samples and the targets, and which one a port reads; internal to io/.
// A PortFinder borrows the file and keeps a listing of it, on the caller's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/dataset/dataset.hpp"
#include "io/hdf5/hdf5.hpp"

namespace dtrain::io {

/// What a model makes of targets. `automatic`: integers are labels, floats are values.
enum class TargetUse : std::uint8_t { automatic, none, labels, values };

/// Whether this is a usual name of samples (PortUse::input) or targets.
std::optional<PortUse> usual_use(std::string_view path);

/// Explicit keys win; else the first of the usual names that the file holds, at the root before in groups. Throws
/// DataError, with what the file holds, where nothing or more than one fits, or the choice cannot be read.
class PortFinder {
 public:
  /// `evaluation`: of the halves of a file, x_train and x_test or groups train and test, that of evaluation is meant.
  explicit PortFinder(const h5::File& file, bool evaluation = false) : file_(file), evaluation_(evaluation) {}
  h5::DatasetInfo samples(const std::string& key);
  /// Nothing where there is none and `automatic` is asked for.
  std::optional<h5::DatasetInfo> targets(const std::string& key, TargetUse);
  /// `usual`: the usual names may serve, where the port has the name of the short form; else it is the data set of its
  /// own name.
  h5::DatasetInfo of(const PortSource&, bool usual);
  h5::DatasetInfo of_key(const std::string& key) const;

 private:
  const h5::File::Listing& listing();
  const h5::DatasetInfo* find(std::span<const std::string_view> names, std::string_view what, std::string_view setting);

  /// Whether a path says that it is of the half that is meant (1), of the other (-1), or nothing (0).
  int half_of(std::string_view path) const;

  const h5::File& file_;
  bool evaluation_;
  std::optional<h5::File::Listing> listing_;
};

/// The samples and the targets of a file.
struct Detected {
  h5::DatasetInfo sample;
  std::optional<h5::DatasetInfo> target;
};
Detected detect(const h5::File&, const std::string& sample_key, const std::string& target_key, TargetUse);

}  // namespace dtrain::io
