// The kernel that gathers, augments and normalizes stored images (image_load.hpp): what starts it, and its body. A
// struct of arguments; see grid.hpp.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/input/image_math.hpp"

namespace dtrain::cuda {

void load_images(const Launch&, Element out, const ImageFormat&, const ImageBatch&);

/// Several blocks for an image, each with a slice of the result's pixels. Where colours change each block goes over the
/// whole image for its mean gray value, in the same order.
template <class T>
struct LoadImagesBody {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  ImageFormat format;
  ImageBatch batch;
  std::int64_t slices, slice;  // of an image; pixels of one
  T* out;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const Split block = split(t.block(), slices);
    const std::int64_t i = block.quotient, pixels = static_cast<std::int64_t>(format.height) * format.width;
    const std::int64_t begin = block.rest * slice, end = begin + slice < pixels ? begin + slice : pixels;
    T* to = out + i * pixels * format.channels;
    const std::uint64_t row = batch.rows != nullptr ? batch.rows[i] : static_cast<std::uint64_t>(i);
    if (row == ImageBatch::none) {
      for (std::int64_t e = begin * format.channels + t.index(); e < end * format.channels; e += threads)
        to[e] = from_float<T>(0.0f);
      return;
    }
    const StoredImage<std::uint8_t> image = stored_image(format, batch.stored + row * format.sample_bytes());
    const ImageDraw* draw = batch.draws != nullptr ? batch.draws + i : nullptr;
    if (draw == nullptr || draw->recolored == 0) {
      for (std::int64_t e = begin * format.channels + t.index(); e < end * format.channels; e += threads) {
        const Split pixel = split(e, format.channels), place = split(pixel.quotient, format.width);
        to[e] = from_float<T>(plain_pixel(format, image, draw, static_cast<int>(place.rest),
                                          static_cast<int>(place.quotient), static_cast<int>(pixel.rest)));
      }
      return;
    }
    double grays = 0;
    for (std::int64_t p = t.index(); p < pixels; p += threads) {
      const Rgb v = brightened(image, *draw, p);
      grays += static_cast<double>(gray(v.r, v.g, v.b));
    }
    const auto mean = static_cast<float>(group_sum<threads>(t, shared, grays) / static_cast<double>(pixels));
    for (std::int64_t p = begin + t.index(); p < end; p += threads) {
      const Rgb v = recolored_pixel(format, *draw, brightened(image, *draw, p), mean);
      to[3 * p] = from_float<T>(v.r);
      to[3 * p + 1] = from_float<T>(v.g);
      to[3 * p + 2] = from_float<T>(v.b);
    }
  }
  DTRAIN_HOST_DEVICE Rgb brightened(const StoredImage<std::uint8_t>& image, const ImageDraw& draw,
                                    std::int64_t p) const {
    const Split place = split(p, format.width);
    return brightened_pixel(image, draw, static_cast<int>(place.rest), static_cast<int>(place.quotient));
  }
};

}  // namespace dtrain::cuda
