// Speed of the CPU's memory-bound kernels beside a plain copy: bytes that a pass has to move, over its time.
//   bench_ops [THREADS]      [64, 64, 32, 32] and the shapes around it, float32 and bfloat16
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>

#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/bf16.hpp"

namespace {

using namespace dtrain;

/// Of this thread, so that others on the machine cost less of the truth.
double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double best_seconds(const std::function<void()>& body, const std::function<void()>& prepare = {}) {
  double best = 1e30;
  for (int i = 0; i < 25; ++i) {
    if (prepare) prepare();
    const double start = cpu_seconds();
    body();
    best = std::min(best, cpu_seconds() - start);
  }
  return best;
}

struct Filled {
  Filled(Device& d, const TensorDesc& desc) : buffer(d, std::max<std::size_t>(desc.bytes(), 64)) {
    tensor = {desc, buffer.data()};
    std::memset(buffer.data(), 0, buffer.bytes());
  }
  void fill(float centre) {
    std::uint32_t state = 1;
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      const float v = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f + centre;
      if (tensor.desc.dtype == DType::f32) tensor.as<float>()[i] = v;
      if (tensor.desc.dtype == DType::bf16) tensor.as<Bf16>()[i] = to_bf16(v);
    }
  }
  Buffer buffer;
  Tensor tensor;
};

/// Times both passes; `forward` and `backward` are the tensors of the input's size that each has to read or write.
void measure(Device& device, const char* name, const OpSpec& op, const std::vector<TensorDesc>& in, double forward,
             double backward, double copy) {
  const OpShape shape = infer(op, in);
  const auto kernel = device.kernels().prepare(op, in, {});
  const auto stream = device.make_stream(StreamUse::compute);
  std::vector<std::vector<Filled>> memory(8);
  std::vector<std::vector<Tensor>> views(8);
  const auto add = [&](std::size_t group, const TensorDesc& desc, float centre) {
    memory[group].emplace_back(device, desc);
    memory[group].back().fill(centre);
    views[group].push_back(memory[group].back().tensor);
  };
  for (const auto& d : in) add(0, d, 0.1f);
  for (const auto& d : shape.out) add(1, d, 0);
  for (const auto& p : shape.params) add(2, p.desc, 0.5f);
  for (const auto& s : shape.state) add(3, s.desc, 1), add(4, s.desc, 0);
  for (const auto& d : shape.saved) add(5, d, 0);
  add(6, shape.out[0], 0);
  add(7, {DType::u8, Shape{static_cast<std::int64_t>(std::max<std::size_t>(kernel->needs().workspace, 64))}}, 0);
  Filled positions(device, {DType::u64, Shape{in[0].shape[0]}});
  StepState step;
  const OpArgs args{views[0], views[1],    views[2], views[3], views[5], views[4], {&positions.tensor, 1},
                    {},       views[7][0], Pass{},   step};
  std::vector<Filled> gradients;
  std::vector<GradSlot> slots, no_slots(in.size()), params, no_params(shape.params.size());
  for (const auto& d : in) {
    gradients.emplace_back(device, d);
    slots.push_back({gradients.back().tensor, Write::overwrite});
  }
  for (const Alias& alias : shape.may_share)  // as the plan does
    if (alias.kind == Alias::Kind::grad_over_grad && alias.from == 0) slots[0].grad.data = views[6][0].data;
  for (const auto& p : shape.params) {
    gradients.emplace_back(device, p.desc);
    params.push_back({gradients.back().tensor, Write::overwrite});
  }
  const double gigabytes = static_cast<double>(in[0].bytes()) / 1e9;
  const double f = best_seconds([&] { kernel->forward(args, *stream); });
  const std::vector<std::byte> gradient(static_cast<const std::byte*>(views[6][0].data),
                                        static_cast<const std::byte*>(views[6][0].data) + views[6][0].bytes());
  const double b = best_seconds(
      [&] {
        if (shape.backward_at_once) {
          kernel->backward(args, {views[6], slots, params}, *stream);
          return;
        }
        if (!params.empty()) kernel->backward(args, {views[6], no_slots, params}, *stream);
        kernel->backward(args, {views[6], slots, no_params}, *stream);
      },
      [&] { std::memcpy(views[6][0].data, gradient.data(), gradient.size()); });  // it may be overwritten
  std::printf("%-26s %-9s forward %7.3f ms %6.1f GB/s %5.2f of copy   backward %7.3f ms %6.1f GB/s %5.2f of copy\n",
              name, in[0].dtype == DType::f32 ? "float32" : "bfloat16", f * 1e3, forward * gigabytes / f,
              forward * gigabytes / f / copy, b * 1e3, backward * gigabytes / b, backward * gigabytes / b / copy);
}

}  // namespace

int main(int argc, char** argv) {
  const auto device = make_cpu_device(argc > 1 ? std::atoi(argv[1]) : 1);
  std::printf("%s\n", device->name().c_str());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto image = [&](std::int64_t n, std::int64_t c, std::int64_t h) {
      return TensorDesc{dtype, Shape{n, h, h, c}};
    };
    const TensorDesc x = image(64, 64, 32);
    Filled from(*device, x), to(*device, x);
    const double copy = 2 * static_cast<double>(x.bytes()) / 1e9 /
                        best_seconds([&] { std::memcpy(to.tensor.data, from.tensor.data, x.bytes()); });
    std::printf("memcpy of %zu MiB: %.1f GB/s read and written\n", x.bytes() >> 20, copy);
    const BatchNorm plain{}, relu{1e-5, 0.1, Activation::relu};
    measure(*device, "batch_norm 64x32x32", plain, {x}, 3, 5, copy);
    measure(*device, "batch_norm relu 64x32x32", relu, {x}, 3, 5, copy);
    measure(*device, "batch_norm relu 512x4x4", relu, {image(64, 512, 4)}, 3, 5, copy);
    measure(*device, "batch_norm relu 24x56x56", relu, {image(32, 24, 56)}, 3, 5, copy);
    measure(*device, "layer_norm 64x32x32", LayerNorm{}, {x}, 2, 5, copy);
    measure(*device, "add relu", Add{Activation::relu}, {x, x}, 3, 4, copy);
    measure(*device, "multiply broadcast", Multiply{}, {x, image(64, 64, 1)}, 2, 3, copy);
    measure(*device, "max_pool 2", MaxPool{}, {x}, 1.25, 1.25, copy);
    measure(*device, "max_pool 3 stride 2", MaxPool{{3, 3}, {2, 2}, {1, 1}}, {x}, 1.25, 1.25, copy);
    measure(*device, "average_pool 2", AveragePool{}, {x}, 1.25, 1.25, copy);
    measure(*device, "global_average_pool", GlobalAveragePool{}, {x}, 1, 1, copy);
    measure(*device, "concat", Concat{}, {x, x}, 4, 4, copy);
    for (const auto kind : {Activation::relu, Activation::gelu, Activation::gelu_tanh, Activation::silu,
                            Activation::tanh, Activation::sigmoid, Activation::hard_swish})
      measure(*device, std::string(name_of(kind)).c_str(), Activate{kind}, {x}, 2, 3, copy);
    measure(*device, "dropout", Dropout{0.3}, {x}, 2, 2, copy);
  }
  return 0;
}
