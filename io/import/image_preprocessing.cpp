#include "io/import/image_preprocessing.hpp"

#include <sstream>

#include <fmt/format.h>

namespace dtrain::io {

std::string to_text(const ImagePreprocessing& how) {
  const ImageSize& size = how.size;
  std::string resize = size.resize ? " --resize" : "";
  if (size.shorter > 0) resize += fmt::format(" {}", size.shorter);
  return fmt::format("--size {} {}{} --channels {}", size.height, size.width, resize, how.channels);
}

std::optional<ImagePreprocessing> preprocessing_in(const std::string& text) {
  ImagePreprocessing how;
  std::istringstream words(text);
  std::string word;
  if (!(words >> word >> how.size.height >> how.size.width) || word != "--size") return {};
  while (words >> word) {
    if (word == "--resize") {
      how.size.resize = true;
      const auto before = words.tellg();
      if (words >> how.size.shorter) continue;
      how.size.shorter = 0;
      words.clear();
      words.seekg(before);
    } else if (word != "--channels" || !(words >> how.channels)) {
      return {};
    }
  }
  // Only what to_text() writes, within the bounds of an import.
  constexpr std::int64_t most = 1 << 16;
  const ImageSize& s = how.size;
  const bool bounded = s.height > 0 && s.width > 0 && s.height <= most && s.width <= most && s.shorter >= 0 &&
                       s.shorter <= most && (how.channels == 1 || how.channels == 3) &&
                       (s.shorter == 0 || (s.height <= s.shorter && s.width <= s.shorter));
  return bounded && to_text(how) == text ? std::optional(how) : std::nullopt;
}

}  // namespace dtrain::io
