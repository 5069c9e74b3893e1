// Times the op attention by itself on the CPU, causal, once for each line that it reads: attention.py asks it in turn
// with PyTorch. Usage: bench_attention SAMPLES POSITIONS HEADS SIZE float32|bfloat16 THREADS. It prints the norms of
// the output and of the three gradients first, so that who compares knows that both compute the same.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/bf16.hpp"

namespace {

using namespace dtrain;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Filled {
  Filled(Device& device, const TensorDesc& desc) : buffer(device, desc.bytes()), tensor{desc, buffer.data()} {}
  /// signed(D(1, item, 0)) of tests/golden/generator.py.
  void fill(std::uint64_t item) {
    const RandomKey key = random_key(1, Purpose::test);
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      const Random4 r = draw4(key, item, 0, static_cast<std::uint32_t>(i / 4));
      const float v = 2.0f * to_unit(r.v[i % 4]) - 1.0f;
      if (tensor.desc.dtype == DType::f32) tensor.as<float>()[i] = v;
      if (tensor.desc.dtype == DType::bf16) tensor.as<Bf16>()[i] = to_bf16(v);
    }
  }
  double norm() const {
    double sum = 0;
    for (std::int64_t i = 0; i < tensor.elements(); ++i) {
      const float v = tensor.desc.dtype == DType::f32 ? tensor.as<float>()[i] : to_float(tensor.as<Bf16>()[i]);
      sum += static_cast<double>(v) * static_cast<double>(v);
    }
    return std::sqrt(sum);
  }
  Buffer buffer;
  Tensor tensor;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7)
    return std::fputs("bench_attention SAMPLES POSITIONS HEADS SIZE float32|bfloat16 THREADS\n", stderr), 2;
  const std::int64_t samples = std::atoll(argv[1]), positions = std::atoll(argv[2]), heads = std::atoll(argv[3]);
  const TensorDesc desc{dtype_from_name(argv[5]), Shape{samples, positions, heads * std::atoll(argv[4])}};
  const auto device = make_cpu_device(std::atoi(argv[6]));
  const auto stream = device->make_stream(StreamUse::compute);
  const OpSpec op = Attention{.heads = heads};
  const std::vector<TensorDesc> in(3, desc);
  const OpShape shape = infer(op, in);
  const auto kernel = device->kernels().prepare(op, in, {});
  std::vector<Filled> memory;
  memory.reserve(10);
  std::vector<Tensor> inputs, gradients;
  std::vector<GradSlot> slots;
  const auto add = [&](const TensorDesc& d) -> const Tensor& { return memory.emplace_back(*device, d).tensor; };
  for (std::uint64_t i = 0; i < 3; ++i) {
    inputs.push_back(add(desc));
    memory.back().fill(i);
  }
  const Tensor gy = add(desc);
  memory.back().fill(3);
  const Tensor y = add(desc), saved = add(shape.saved[0]);
  const Tensor workspace = add({DType::u8, Shape{static_cast<std::int64_t>(kernel->needs().workspace)}});
  for (int i = 0; i < 3; ++i) slots.push_back({add(desc), Write::overwrite});
  const StepState step;
  const OpArgs args{inputs, {&y, 1}, {}, {}, {&saved, 1}, {}, {}, {}, workspace, Pass{}, step};
  std::printf("%zu bytes of workspace and saved\n", workspace.bytes() + saved.bytes());
  for (bool first = true; first || std::getchar() == '\n'; first = false) {
    const double start = seconds();
    kernel->forward(args, *stream);
    const double middle = seconds();
    kernel->backward(args, {{&gy, 1}, slots, {}}, *stream);
    stream->synchronize();
    if (first)
      std::printf("%.9g %.9g %.9g %.9g\n", memory[4].norm(), memory[7].norm(), memory[8].norm(), memory[9].norm());
    else
      std::printf("%.9g %.9g\n", middle - start, seconds() - middle);
    std::fflush(stdout);
  }
  return 0;
}
