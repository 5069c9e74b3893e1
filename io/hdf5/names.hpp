// Reads text in HDF5 files: lists of names, and attributes; internal to io/.
// Free functions on an open file, whose content is trusted in nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/hdf5/hdf5.hpp"

namespace dtrain::io::h5 {

// In all, each as long as the longest: of classes or columns, and of the files that samples were made of.
inline constexpr std::size_t max_bytes_of_names = std::size_t{64} << 20;
inline constexpr std::size_t max_bytes_of_file_names = std::size_t{1} << 30;
inline constexpr std::uint64_t max_names = std::uint64_t{1} << 20;

/// A list of text, of fixed or variable length as h5py writes both. Empty where there is no such data set. Throws
/// DataError where it cannot be read, or there are more of them.
std::vector<std::string> read_names(const File&, const std::string& path, std::uint64_t most = max_names,
                                    std::size_t most_bytes = max_bytes_of_names);

/// The one number of an attribute of a data set; nothing where there is none.
std::optional<double> read_number_attribute(const File&, const std::string& dataset, const std::string& name);

/// The text of an attribute of a data set; empty where there is none.
std::string read_text_attribute(const File&, const std::string& dataset, const std::string& name);

}  // namespace dtrain::io::h5
