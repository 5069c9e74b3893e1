#include "launch/data/token_bytes.hpp"

#include "io/hdf5/hdf5.hpp"
#include "io/text/token_file.hpp"

namespace dtrain::launch {

double bytes_per_token(const RunConfig& config, std::span<const std::string> files) {
  if (config.data.text && config.data.text.objective == io::TextConfig::Objective::masked) return 0;
  double tokens = 0, bytes = 0;
  for (const std::string& path : files) {
    const io::h5::File file(path);
    const auto found = io::find_tokens(file);
    if (!found) return 0;
    const auto count = static_cast<double>(found->tokens.rows());
    tokens += count;
    if (found->tokenizer == "bytes")
      bytes += count;
    else if (found->text_bytes && *found->text_bytes > 0)
      bytes += *found->text_bytes;
    else
      return 0;
  }
  return tokens > 0 ? bytes / tokens : 0;
}

}  // namespace dtrain::launch
