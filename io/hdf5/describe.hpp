// What an open data set is and whether it may be read, decided before any of its data is touched; internal to io/hdf5.
// Free functions on ids of the HDF5 library, which the caller owns; they are called under h5::Lock.
#pragma once

#include <cstdint>
#include <string>

#include "io/hdf5/hdf5.hpp"

namespace dtrain::io::h5 {

/// `file`: its path and its bytes.
DatasetInfo describe(Id dataset, std::string path, const std::string& file, std::uint64_t file_bytes);

/// The library's type for numbers in memory, and little-endian ones in files.
Id native_type(StoredType) noexcept;
Id file_type(StoredType) noexcept;

/// A command that writes the file again as dtrain reads it, for the end of a message. `plugins`: of filters.
std::string rewrite_advice(const std::string& file, bool plugins);

}  // namespace dtrain::io::h5
