// How many bytes of text a token of a set stands for.
// A function that owns nothing and reads the headers of files; for any thread.
#pragma once

#include <span>
#include <string>

#include "launch/config/config.hpp"

namespace dtrain::launch {

/// The mean over these files, of which each says it; a token of the tokenizer `bytes` is one byte, also the end of a
/// document. 0: not known, or the loss is of hidden tokens alone. Throws DataError.
double bytes_per_token(const RunConfig&, std::span<const std::string> files);

}  // namespace dtrain::launch
