// How many bytes of text a token of a set stands for.
// A function that owns nothing and reads the headers of files; for any thread.
#pragma once

#include <span>
#include <string>

namespace dtrain::launch {

/// 1 where all files hold tokens of the tokenizer `bytes`; 0: not known. Throws DataError.
double bytes_per_token(std::span<const std::string> files);

}  // namespace dtrain::launch
