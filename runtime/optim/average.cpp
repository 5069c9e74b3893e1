#include "runtime/optim/average.hpp"

#include <algorithm>

#include "runtime/ops/kernels.hpp"

namespace dtrain {

namespace {

constexpr std::size_t piece_floats = 256 * 1024;

}  // namespace

ParameterAverage::ParameterAverage(Device& device, double decay, const FlatLayout& layout)
    : device_(device),
      decay_(decay),
      average_(device, layout.total_floats() * sizeof(float)),
      piece_(device, std::min(piece_floats, layout.total_floats()) * sizeof(float)) {
  const auto stream = device.make_stream(StreamUse::compute);
  device.zero(average_.data(), average_.bytes(), *stream);
  stream->synchronize();
}

void ParameterAverage::update(const ParameterStore& store, std::size_t begin, std::size_t end, const StepState& step,
                              Stream& stream) {
  end = std::min(end, store.layout().param_floats);
  if (begin < end) device_.kernels().average(data() + begin, store.params() + begin, end - begin, decay_, step, stream);
}

void ParameterAverage::restart(const ParameterStore& store, Stream& stream) {
  device_.copy(data(), store.params(), store.layout().param_floats * sizeof(float), stream);
}

void ParameterAverage::exchange(const ParameterStore& store, Stream& stream) {
  const std::size_t floats = store.layout().param_floats;
  for (std::size_t at = 0; at < floats; at += piece_floats) {
    const std::size_t bytes = std::min(piece_floats, floats - at) * sizeof(float);
    device_.copy(piece_.data(), store.params() + at, bytes, stream);
    device_.copy(store.params() + at, data() + at, bytes, stream);
    device_.copy(data() + at, piece_.data(), bytes, stream);
  }
}

}  // namespace dtrain
