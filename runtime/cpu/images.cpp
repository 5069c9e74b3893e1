// The CPU's way to load images: a plain loop over bodies that it shares with io's Augmenter. A run on a CPU does
// not come here, as its loader's threads leave nothing to do.
#include <algorithm>

#include "runtime/cpu/kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/device/device.hpp"
#include "runtime/input/image_math.hpp"
#include "runtime/tensor/bf16.hpp"

namespace dtrain::cpu {

namespace {

/// Calls put(pixel, channel, value) for every value of one sample, channels last.
template <class Put>
void load_sample(const ImageFormat& f, const StoredImage<std::uint8_t>& image, const ImageDraw* draw, Put put) {
  const auto each = [&](auto visit) {
    for (int y = 0; y < f.height; ++y)
      for (int x = 0; x < f.width; ++x) visit(static_cast<std::ptrdiff_t>(y) * f.width + x, x, y);
  };
  if (draw == nullptr || draw->recolored == 0) {
    each([&](std::ptrdiff_t i, int x, int y) {
      for (int c = 0; c < f.channels; ++c) put(i, c, plain_pixel(f, image, draw, x, y, c));
    });
    return;
  }
  double sum = 0;
  each([&](std::ptrdiff_t, int x, int y) {
    const Rgb p = brightened_pixel(image, *draw, x, y);
    sum += static_cast<double>(gray(p.r, p.g, p.b));
  });
  const auto mean = static_cast<float>(sum / (static_cast<double>(f.height) * static_cast<double>(f.width)));
  each([&](std::ptrdiff_t i, int x, int y) {
    const Rgb p = recolored_pixel(f, *draw, brightened_pixel(image, *draw, x, y), mean);
    put(i, 0, p.r);
    put(i, 1, p.g);
    put(i, 2, p.b);
  });
}

template <class T>
void put_sample(const ImageFormat& f, const ImageBatch& b, std::int64_t i) {
  const std::int64_t values = static_cast<std::int64_t>(f.channels) * f.height * f.width;
  T* const to = static_cast<T*>(b.out) + i * values;
  const std::uint64_t row = b.rows != nullptr ? b.rows[i] : static_cast<std::uint64_t>(i);
  if (row == ImageBatch::none) {
    std::fill_n(to, values, T{});
    return;
  }
  load_sample(f, stored_image(f, b.stored + row * f.sample_bytes()), b.draws != nullptr ? b.draws + i : nullptr,
              [&](std::ptrdiff_t pixel, int c, float v) { to[pixel * f.channels + c] = from_float<T>(v); });
}

}  // namespace

void CpuKernels::load_images(const ImageFormat& format, const ImageBatch& batch, Stream& stream) {
  stream.host(HostTask::of([&format, batch, threads = threads_] {
    const auto put = batch.out_type == DType::bf16 ? put_sample<Bf16> : put_sample<float>;
    parallel_chunks(batch.n, 1, threads, [&](std::int64_t i, std::int64_t) { put(format, batch, i); });
  }));
}

}  // namespace dtrain::cpu
