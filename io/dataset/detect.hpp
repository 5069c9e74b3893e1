// Which data sets of a file are the samples and the targets; internal to io/.
// A function on the caller's thread.
#pragma once

#include <optional>
#include <string>

#include "io/dataset/dataset.hpp"
#include "io/hdf5/hdf5.hpp"

namespace dtrain::io {

struct Detected {
  h5::DatasetInfo sample;
  std::optional<h5::DatasetInfo> target;
};

/// Explicit keys win; else the first of the usual names that the file holds, at the root before in groups. Throws
/// DataError, with what the file holds, where nothing or more than one fits, or the choice cannot be read.
Detected detect(const h5::File&, const std::string& sample_key, const std::string& target_key, TargetUse);

}  // namespace dtrain::io
