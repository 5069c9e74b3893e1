#include "launch/data/token_bytes.hpp"

#include "io/hdf5/hdf5.hpp"
#include "io/text/token_file.hpp"

namespace dtrain::launch {

double bytes_per_token(std::span<const std::string> files) {
  for (const std::string& path : files) {
    const io::h5::File file(path);
    const auto tokens = io::find_tokens(file);
    if (!tokens || tokens->tokenizer != "bytes") return 0;
  }
  return files.empty() ? 0 : 1;
}

}  // namespace dtrain::launch
