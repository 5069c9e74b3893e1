#include "io/files/output.hpp"

#include <array>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {

namespace fs = std::filesystem;

namespace {

bool begins_as_hdf5(const std::string& path) {
  constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";
  std::array<char, signature.size()> head{};
  std::ifstream(path, std::ios::binary).read(head.data(), head.size());
  return std::string_view(head.data(), head.size()) == signature;
}

}  // namespace

void check_output(const std::string& output, std::span<const std::string> inputs, OutputKind kind) {
  std::error_code failed;
  const fs::file_status status = fs::status(output, failed);
  if (!fs::exists(status) || fs::is_directory(status)) return;
  if (!fs::is_regular_file(status))
    throw ConfigError(fmt::format("-o {}: this is not a regular file; name another file", output));
  for (const std::string& input : inputs)
    if (fs::equivalent(input, output, failed))
      throw ConfigError(fmt::format("-o {}: that is the input{}; name another file", output,
                                    input == output ? "" : fmt::format(" {} under another name", input)));
  if (kind == OutputKind::hdf5 && fs::file_size(output, failed) > 0 && !begins_as_hdf5(output))
    throw ConfigError(fmt::format(
        "-o {}: this file is there already, and it is not an HDF5 file; name another file, or remove it", output));
}

}  // namespace dtrain::io
