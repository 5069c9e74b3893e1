// The file that a command's -o names, looked at before the command reads anything at length.
// A free function without state.
#pragma once

#include <span>
#include <string>

namespace dtrain::io {

enum class OutputKind : unsigned char { hdf5, other };

/// Throws ConfigError where `output` is one of `inputs`, under whatever path, link or hard link; and, of HDF5, where it
/// is another file already, which is not HDF5: no data set or model was to be replaced, so it was a slip.
void check_output(const std::string& output, std::span<const std::string> inputs, OutputKind = OutputKind::hdf5);

}  // namespace dtrain::io
