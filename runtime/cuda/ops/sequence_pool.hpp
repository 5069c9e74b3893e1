// One row for a sequence: what starts the kernels, and their bodies. Structs of arguments; see grid.hpp.
// Pointers are device memory that the caller owns until the stream was there.
#pragma once

#include "runtime/cuda/vector.hpp"
#include "runtime/ops/attention_math.hpp"

namespace dtrain::cuda {

/// `first`: of the first position alone. documents [samples, pixels] may be null.
void sequence_pool(const Launch&, Element, const Images&, bool first, const std::int32_t* documents, const void* x,
                   void* y);
void sequence_pool_gradient(const Launch&, Element, const Images&, bool first, const std::int32_t* documents,
                            const void* gy, Slot gx);

DTRAIN_HOST_DEVICE inline std::int64_t pooled_positions(const Images& images, bool first, const std::int32_t* documents,
                                                        std::int64_t sample) {
  if (first) return 1;
  return first_document(documents == nullptr ? nullptr : documents + sample * images.pixels, images.pixels);
}

template <class T, int width>
struct SequencePoolBody {
  Images images;
  bool first;
  const std::int32_t* documents;
  const T* x;
  T* y;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, images.channels / width);
    const std::int64_t count = pooled_positions(images, first, documents, at.quotient);
    const T* from = x + at.quotient * images.pixels * images.channels + at.rest * width;
    double sums[width] = {};
    for (std::int64_t t = 0; t < count; ++t) {
      const Floats<width> v = load_floats<width>(from + t * images.channels);
      for (int j = 0; j < width; ++j) sums[j] += static_cast<double>(v.v[j]);
    }
    Floats<width> mean;
    for (int j = 0; j < width; ++j) mean.v[j] = static_cast<float>(sums[j] / static_cast<double>(count));
    store_floats<width>(y + i * width, mean);
  }
};

template <class T, int width>
struct SequencePoolGradientBody {
  Images images;
  bool first;
  const std::int32_t* documents;
  const T* gy;
  Slot gx;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split in_row = split(i, images.channels / width), row = split(in_row.quotient, images.pixels);
    const std::int64_t count = pooled_positions(images, first, documents, row.quotient);
    Floats<width> g = load_floats<width>(gy + row.quotient * images.channels + in_row.rest * width);
    for (int j = 0; j < width; ++j) g.v[j] = row.rest < count ? g.v[j] / static_cast<float>(count) : 0.0f;
    write_slot<width, T>(gx, i * width, g);
  }
};

}  // namespace dtrain::cuda
