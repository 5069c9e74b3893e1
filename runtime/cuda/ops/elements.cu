// Starts the kernels of the small ops that go element by element: one file, as each costs seconds of compilation.
#include "runtime/cuda/ops/activate.hpp"
#include "runtime/cuda/ops/add.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/class_token.hpp"
#include "runtime/cuda/ops/concat.hpp"
#include "runtime/cuda/ops/dropout.hpp"
#include "runtime/cuda/ops/gated.hpp"
#include "runtime/cuda/ops/multiply.hpp"
#include "runtime/cuda/ops/positions.hpp"
#include "runtime/cuda/ops/sequence_pool.hpp"
#include "runtime/cuda/ops/soft_cap.hpp"

namespace dtrain::cuda {

void activate(const Launch& where, Element element, Activation kind, const void* x, void* y, std::int64_t n) {
  for_elements<ActivateBody>(where, element, n, aligned(x, y), kind, x, y);
}
void activation_gradient(const Launch& where, Element element, Activation kind, const void* seen, const void* gy,
                         Slot gx, std::int64_t n) {
  for_elements<ActivationGradientBody>(where, element, n, aligned(seen, gy, gx.to), kind, seen, gy, gx);
}

void soft_cap(const Launch& where, Element element, const SoftCapMath& math, const void* x, void* y, std::int64_t n) {
  for_elements<SoftCapBody>(where, element, n, aligned(x, y), math, x, y);
}
void soft_cap_gradient(const Launch& where, Element element, const SoftCapMath& math, const void* y, const void* gy,
                       Slot gx, std::int64_t n) {
  for_elements<SoftCapGradientBody>(where, element, n, aligned(y, gy, gx.to), math, y, gy, gx);
}

void add(const Launch& where, Element element, Activation kind, float factor, const void* a, const void* b, void* y,
         std::int64_t n) {
  for_elements<AddBody>(where, element, n, aligned(a, b, y), kind, factor, a, b, y);
}
void add_gradient(const Launch& where, Element element, Activation kind, float factor, const void* y, const void* gy,
                  Slot ga, Slot gb, std::int64_t n) {
  for_elements<AddGradientBody>(where, element, n, aligned(y, gy, ga.to, gb.to), kind, factor, y, gy, ga, gb);
}

void multiply(const Launch& where, Element element, const void* a, const void* b, void* y, std::int64_t n) {
  for_elements<MultiplyBody>(where, element, n, aligned(a, b, y), a, b, y);
}
void multiply_gradient(const Launch& where, Element element, const void* a, const void* b, const void* gy, Slot ga,
                       Slot gb, std::int64_t n) {
  for_elements<MultiplyGradientBody>(where, element, n, aligned(a, b, gy, ga.to, gb.to), a, b, gy, ga, gb);
}
void scale_channels(const Launch& where, Element element, const Images& images, const void* a, const void* b, void* y) {
  for_channels<ScaleChannelsBody>(where, element, images.samples * images.pixels, images.channels, aligned(a, b, y),
                                  images, a, b, y);
}
void scale_channels_gradient(const Launch& where, Element element, const Images& images, const void* a, const void* b,
                             const void* gy, Slot ga, Slot gb) {
  sum_samples<ScaleChannelsGradientTerms>(where, element, images, aligned(a, b, gy, ga.to), a, b, gy, ga, gb);
}

void gated(const Launch& where, Element element, const Matrix& shape, Activation gate, const void* x, void* y) {
  for_channels<GatedBody>(where, element, shape.rows, shape.channels, aligned(x, y), shape.channels, gate, x, y);
}
void gated_gradient(const Launch& where, Element element, const Matrix& shape, Activation gate, const void* x,
                    const void* gy, Slot gx) {
  for_channels<GatedGradientBody>(where, element, shape.rows, shape.channels, aligned(x, gy, gx.to), shape.channels,
                                  gate, x, gy, gx);
}

void add_positions_behind(const Launch& where, Element element, std::int64_t samples, const PositionsBehind& p,
                          const void* x, const float* weight, void* y) {
  with_element(element, [&](auto tag) {
    for_count(where, samples * p.positions * p.channels,
              AddPositionsBehindBody<decltype(tag)>{p, typed(x), weight, typed(y)});
  });
}

void add_positions(const Launch& where, Element element, const Matrix& shape, const void* x, const float* weight,
                   void* y) {
  for_channels<AddPositionsBody>(where, element, shape.rows, shape.channels, aligned(x, weight, y), shape.channels, x,
                                 weight, y);
}
void positions_gradient(const Launch& where, Element element, const Matrix& shape, std::int64_t weights, const void* gy,
                        Slot weight) {
  with_element(element, [&](auto tag) {
    for_count(where, weights, PositionsGradientBody<decltype(tag)>{shape, typed(gy), weight});
  });
}

void prepend_row(const Launch& where, Element element, const Matrix& shape, std::int64_t channels, const void* x,
                 const float* row, void* y) {
  const bool suits = aligned(x, row, y) && channels % width_of_element(element) == 0;
  for_channels<PrependRowBody>(where, element, shape.rows, channels + shape.channels, suits, shape.channels, channels,
                               x, row, y);
}

void sequence_pool(const Launch& where, Element element, const Images& images, bool first,
                   const std::int32_t* documents, const void* x, void* y) {
  for_channels<SequencePoolBody>(where, element, images.samples, images.channels, aligned(x, y), images, first,
                                 documents, x, y);
}
void sequence_pool_gradient(const Launch& where, Element element, const Images& images, bool first,
                            const std::int32_t* documents, const void* gy, Slot gx) {
  for_channels<SequencePoolGradientBody>(where, element, images.samples * images.pixels, images.channels,
                                         aligned(gy, gx.to), images, first, documents, gy, gx);
}

void cast(const Launch& where, Element from_type, Element to_type, const void* from, Slot to, std::int64_t n) {
  with_element(from_type, [&](auto from_tag) {
    with_element(to_type, [&](auto to_tag) {
      using Body = CastBody<decltype(from_tag), decltype(to_tag)>;
      for_elements(where, n, aligned(from, to.to), Body{typed(from), to});
    });
  });
}

void copy_rows(const Launch& where, Element element, const Rows& rows, const void* from, Slot to) {
  const bool suits = aligned(from, to.to) && (rows.from_step | rows.to_step) % width_of_element(element) == 0;
  for_channels<CopyRowsBody>(where, element, rows.rows, rows.columns, suits, rows, from, to);
}

void dropout(const Launch& where, Element element, const DropoutShape& shape, const StepState* step,
             const std::uint64_t* positions, const void* x, void* y, std::uint8_t* mask) {
  const bool vectors = shape.features % width_of_element(element) == 0 && aligned(x, y, mask);
  for_elements<DropoutBody>(where, element, shape.samples * shape.features, vectors, shape, step, positions, x, y,
                            mask);
}
void dropout_gradient(const Launch& where, Element element, const DropoutShape& shape, const std::uint8_t* mask,
                      const void* gy, Slot gx) {
  const bool vectors = shape.features % width_of_element(element) == 0 && aligned(gy, gx.to, mask);
  for_elements<DropoutGradientBody>(where, element, shape.samples * shape.features, vectors, shape, mask, gy, gx);
}

}  // namespace dtrain::cuda
