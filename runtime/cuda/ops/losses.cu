// Starts the kernels of the losses.
#include "runtime/cuda/ops/loss_bodies.hpp"

namespace dtrain::cuda {

namespace {

template <int size>
struct GroupSize {
  static constexpr int value = size;
};
/// A warp for short rows, a block for long ones.
template <class F>
void with_group(std::int64_t row, const F& f) {
  constexpr std::int64_t long_row = 1024;
  if (row > long_row) return f(GroupSize<block_threads>{});
  f(GroupSize<static_cast<int>(warp_size)>{});
}

template <class Body>
void launch_samples(const Launch& where, std::int64_t samples, const Body& body) {
  launch(where, divide_up(samples, Body::groups), body);
}

void add_losses(const Launch& where, std::int64_t samples, bool add, float* out, void* workspace) {
  launch(where, 1, LossSumsBody{samples, static_cast<const SampleLoss*>(workspace), add, out});
}

}  // namespace

std::size_t loss_bytes(std::int64_t samples) {
  return static_cast<std::size_t>(samples) * sizeof(SampleLoss);
}

void cross_entropy(const Launch& where, const CrossEntropyPlace& place, bool add, float* out, void* workspace) {
  auto* losses = static_cast<SampleLoss*>(workspace);
  with_group(place.classes, [&](auto g) {
    launch_samples(where, place.samples, CrossEntropyBody<g.value>{{}, place, losses});
  });
  add_losses(where, place.samples, add, out, workspace);
}
void cross_entropy_gradient(const Launch& where, const CrossEntropyPlace& place, const StepState* step, Slot gradient) {
  with_group(place.classes, [&](auto g) {
    launch_samples(where, place.samples, CrossEntropyGradientBody<g.value>{{}, place, step, gradient});
  });
}

void squared_error(const Launch& where, const SquaredErrorPlace& place, bool add, float* out, void* workspace) {
  auto* losses = static_cast<SampleLoss*>(workspace);
  with_group(place.values, [&](auto g) {
    launch_samples(where, place.samples, SquaredErrorBody<g.value>{{}, place, losses});
  });
  add_losses(where, place.samples, add, out, workspace);
}
void squared_error_gradient(const Launch& where, const SquaredErrorPlace& place, const StepState* step, Slot gradient) {
  with_group(place.values, [&](auto g) {
    launch_samples(where, place.samples, SquaredErrorGradientBody<g.value>{{}, place, step, gradient});
  });
}

}  // namespace dtrain::cuda
