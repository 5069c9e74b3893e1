// Small image files of every kind with the pixels that Pillow reads from them (tests/golden/images.json).
// Free functions; the parsed file is made once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/import/image_decoder.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::io::testing {

using Json = nlohmann::json;
using Bytes = std::vector<char>;

inline const Json& goldens() {
  static const Json json = Json::parse(std::ifstream("tests/golden/images.json"));
  return json;
}

inline Bytes bytes_of(const Json& hex) {
  const auto& text = hex.get_ref<const std::string&>();
  Bytes bytes;
  for (std::size_t i = 0; i < text.size(); i += 2)
    bytes.push_back(static_cast<char>(std::strtol(text.substr(i, 2).c_str(), nullptr, 16)));
  return bytes;
}
inline Bytes file_of(const std::string& name) {
  return bytes_of(goldens().at(name).at("file"));
}

inline int largest_difference(const std::uint8_t* a, const Bytes& b) {
  int worst = 0;
  for (std::size_t i = 0; i < b.size(); ++i) worst = std::max(worst, std::abs(a[i] - static_cast<std::uint8_t>(b[i])));
  return worst;
}

inline std::string decode(ImageDecoder& decoder, const Bytes& file) {
  return decoder.decode(std::as_bytes(std::span(file)));
}

inline void put(const std::string& path, const Bytes& bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  spill(path, bytes);
}

}  // namespace dtrain::io::testing
