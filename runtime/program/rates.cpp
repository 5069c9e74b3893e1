#include "runtime/program/rates.hpp"

#include <algorithm>
#include <chrono>
#include <functional>

#include "runtime/ops/kernels.hpp"
#include "runtime/program/step_memory.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

double quickest(double seconds, const std::function<void()>& work) {
  work();  // warm
  double best = 1e30;
  const auto begin = Clock::now();
  for (int i = 0; i < 3 || since(begin) < seconds; ++i) {
    const auto t = Clock::now();
    work();
    best = std::min(best, since(t));
  }
  return best;
}

double product_rate(Device& device, DType dtype, std::int64_t n, double seconds) {
  const TensorDesc matrix{dtype, Shape{n, n}}, weights{DType::f32, Shape{n, n}};
  const auto kernel = device.kernels().prepare(Dense{.units = n, .bias = false}, std::span(&matrix, 1), {});
  const auto stream = device.make_stream(StreamUse::compute);
  const Needs needs = kernel->needs();
  const Buffer in(device, matrix.bytes()), out(device, matrix.bytes()), params(device, weights.bytes());
  const Buffer packed(device, std::max<std::size_t>(needs.packed, 64));
  const Buffer workspace(device, std::max<std::size_t>(needs.workspace, 64));
  device.zero(in.data(), in.bytes(), *stream);
  device.zero(params.data(), params.bytes(), *stream);
  const auto bytes_of = [](const Buffer& b) {
    return Tensor{{DType::u8, Shape{static_cast<std::int64_t>(b.bytes())}}, b.data()};
  };
  const Tensor x{matrix, in.data()}, y{matrix, out.data()}, w{weights, params.data()};
  StepMemory memory(device);
  memory.reset({}, *stream);
  OpArgs args{.in = {&x, 1},
              .out = {&y, 1},
              .params = {&w, 1},
              .state = {},
              .saved = {},
              .state_sums = {},
              .positions = {},
              .packed = {},
              .workspace = {},
              .pass = {},
              .step = memory.state()};
  if (needs.packed > 0) {
    args.packed = bytes_of(packed);
    kernel->pack(args.params, args.packed, *stream);
  }
  if (needs.workspace > 0) args.workspace = bytes_of(workspace);
  const double once = quickest(seconds, [&] {
    kernel->forward(args, *stream);
    stream->synchronize();
  });
  const auto size = static_cast<double>(n);
  return 2 * size * size * size / once;
}

}  // namespace

double measure_matrix_rate(Device& device, DType dtype, double seconds) {
  double best = 0;
  try {
    for (const std::int64_t n : {256, 512, 1024}) {
      const auto size = static_cast<double>(n);
      if (best > 0 && 4 * 2 * size * size * size / best > seconds) break;  // a slow device, or a busy one
      best = std::max(best, product_rate(device, dtype, n, seconds / 3));
    }
  } catch (const DeviceError&) {
    return 0;
  }
  return best;
}

double measure_memory_rate(Device& device, double seconds) {
  constexpr std::size_t bytes = std::size_t{32} << 20;
  const Buffer from(device, bytes), to(device, bytes);
  const auto stream = device.make_stream(StreamUse::compute);
  device.zero(from.data(), bytes, *stream);
  device.zero(to.data(), bytes, *stream);
  return 2.0 * static_cast<double>(bytes) / quickest(seconds, [&] {
           device.copy(to.data(), from.data(), bytes, *stream);
           stream->synchronize();
         });
}

}  // namespace dtrain
