// Data sets of any number type in the files of tests.
// A function that owns nothing, on the test's thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io::testing {

inline hid_t memory_type(std::uint8_t) {
  return H5T_NATIVE_UINT8;
}
inline hid_t memory_type(std::int8_t) {
  return H5T_NATIVE_INT8;
}
inline hid_t memory_type(std::uint16_t) {
  return H5T_NATIVE_UINT16;
}
inline hid_t memory_type(std::int32_t) {
  return H5T_NATIVE_INT32;
}
inline hid_t memory_type(std::int64_t) {
  return H5T_NATIVE_INT64;
}
inline hid_t memory_type(float) {
  return H5T_NATIVE_FLOAT;
}
inline hid_t memory_type(double) {
  return H5T_NATIVE_DOUBLE;
}

/// `storage`: chunks are completed by the extents of a row.
template <class T>
void add(H5File& file, const std::string& name, const std::vector<std::size_t>& dims, const std::vector<T>& values,
         Spec storage = {}) {
  storage.dims.assign(dims.begin(), dims.end());
  storage.file_type = storage.memory_type = memory_type(T{});
  for (std::size_t i = storage.chunk.size(); !storage.chunk.empty() && i < dims.size(); ++i)
    storage.chunk.push_back(dims[i]);
  file.add(name, storage, values.data());
}

}  // namespace dtrain::io::testing
