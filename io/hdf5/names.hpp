// Reads text in HDF5 files: lists of names, and attributes; internal to io/.
// Free functions on an open file, whose content is trusted in nothing.
#pragma once

#include <string>
#include <vector>

#include "io/hdf5/hdf5.hpp"

namespace dtrain::io::h5 {

/// A list of text, of fixed or variable length as h5py writes both. Empty where there is no such data set. Throws
/// DataError where it cannot be read.
std::vector<std::string> read_names(const File&, const std::string& path);

/// The text of an attribute of a data set; empty where there is none.
std::string read_text_attribute(const File&, const std::string& dataset, const std::string& name);

}  // namespace dtrain::io::h5
