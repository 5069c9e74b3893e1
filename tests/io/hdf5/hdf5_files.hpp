// Makes small HDF5 files of every kind for the tests of io/, with the C library itself.
// A Folder owns a temporary directory and what is in it; everything runs on the test's thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <hdf5.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io::testing {

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "dtrain-io-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

struct Spec {
  std::vector<hsize_t> dims;
  hid_t file_type = H5T_STD_U8LE;
  hid_t memory_type = H5T_NATIVE_UINT8;
  std::vector<hsize_t> chunk;  // empty: contiguous
  int gzip = -1;
  bool shuffle = false;
  bool fletcher = false;
  bool compact = false;
  std::string external;  // external storage in this file
};

class H5File {
 public:
  explicit H5File(const std::string& path) : id_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~H5File() { H5Fclose(id_); }
  hid_t id() const { return id_; }
  void group(const std::string& name) {
    H5Gclose(H5Gcreate2(id_, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  }
  void add(const std::string& name, const Spec& spec, const void* data) {
    const hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    if (!spec.chunk.empty()) H5Pset_chunk(plist, static_cast<int>(spec.chunk.size()), spec.chunk.data());
    if (spec.shuffle) H5Pset_shuffle(plist);
    if (spec.gzip >= 0) H5Pset_deflate(plist, static_cast<unsigned>(spec.gzip));
    if (spec.fletcher) H5Pset_fletcher32(plist);
    if (spec.compact) H5Pset_layout(plist, H5D_COMPACT);
    if (!spec.external.empty()) H5Pset_external(plist, spec.external.c_str(), 0, H5F_UNLIMITED);
    const hid_t space = spec.dims.empty()
                            ? H5Screate(H5S_SCALAR)
                            : H5Screate_simple(static_cast<int>(spec.dims.size()), spec.dims.data(), nullptr);
    const hid_t set = H5Dcreate2(id_, name.c_str(), spec.file_type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    if (data != nullptr) H5Dwrite(set, spec.memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data);
    H5Dclose(set);
    H5Sclose(space);
    H5Pclose(plist);
  }

 private:
  hid_t id_;
};

/// Byte j of sample i.
inline std::uint8_t pixel(std::uint64_t i, std::uint64_t j) {
  return static_cast<std::uint8_t>((i * 37 + j * 11 + (i >> 5) * 3) & 0xff);
}
inline std::uint8_t label_of(std::uint64_t i) {
  return static_cast<std::uint8_t>((i * 7 + i / 10) % 10);
}

/// images u8 [n, sample...] and labels u8 [n], samples numbered from `first`.
inline void write_images(const std::string& path, std::uint64_t n, const std::vector<hsize_t>& sample = {1, 6, 5},
                         Spec storage = {}, std::uint64_t first = 0) {
  std::uint64_t bytes = 1;
  for (const auto d : sample) bytes *= d;
  std::vector<std::uint8_t> images(n * bytes), labels(n);
  for (std::uint64_t i = 0; i < n; ++i) {
    for (std::uint64_t j = 0; j < bytes; ++j) images[i * bytes + j] = pixel(first + i, j);
    labels[i] = label_of(first + i);
  }
  storage.dims = {n};
  storage.dims.insert(storage.dims.end(), sample.begin(), sample.end());
  H5File file(path);
  file.add("images", storage, images.data());
  Spec plain;
  plain.dims = {n};
  file.add("labels", plain, labels.data());
}

inline std::vector<char> slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void spill(const std::string& path, const std::vector<char>& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The text of the DataError (or other Error E) that f throws; fails the test where it does not.
template <class E = DataError, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << "text: " << (text)

}  // namespace dtrain::io::testing
