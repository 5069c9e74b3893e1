// How image files become samples of one size: the options of an import, as its data set keeps them for whoever reads
// more images for the same model. Plain values and pure functions; for any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace dtrain::io {

/// How an image becomes one of the wanted size. The centre of what is left over is kept.
struct ImageSize {
  std::int64_t height = 0, width = 0;  // 0: as the first image
  bool resize = false;                 // else an image of another size is an error
  std::int64_t shorter = 0;  // resize: pixels of the shorter side before the crop; 0: as few as cover the size
};

struct ImagePreprocessing {
  ImageSize size;
  int channels = 3;  // red, green, blue; 1: grey
};

/// The attribute of a data set of images: "--size 224 224 --resize 256 --channels 3", as `dtrain data import images`
/// takes it.
inline constexpr const char* preprocessing_attribute = "preprocessing";
std::string to_text(const ImagePreprocessing&);
/// Nothing where the text is another one.
std::optional<ImagePreprocessing> preprocessing_in(const std::string& text);

}  // namespace dtrain::io
