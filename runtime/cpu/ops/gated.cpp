// Gated channels: each row's first half, through an activation, times its second half.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class GatedKernel final : public Kernel {
 public:
  GatedKernel(const Gated& op, const TensorDesc& in, int threads)
      : gate_(op.gate), rows_(in.rows()), half_(in.channels() / 2), threads_(threads) {}

  void forward(const OpArgs& args, Stream&) override {
    with_activation(gate_, [&](auto kind) {
      parallel_rows(rows_, half_, task_elements, threads_, [&](std::int64_t row) {
        const T *a = args.in[0].as<T>() + row * 2 * half_, *b = a + half_;
        write_elements(args.out[0].as<T>() + row * half_, 0, half_, false,
                       [=](std::int64_t c) { return activate<kind.value>(to_float(a[c])) * to_float(b[c]); });
      });
    });
  }

  void backward(const OpArgs& args, const OpGrads& g, Stream&) override {
    if (!wanted(g.in, 0)) return;
    with_activation(gate_, [&](auto kind) {
      parallel_rows(rows_, half_, task_elements, threads_, [&](std::int64_t row) {
        const T *a = args.in[0].as<T>() + row * 2 * half_, *b = a + half_, *gy = g.out[0].as<T>() + row * half_;
        for (std::int64_t c = 0; c < half_; c += block_elements)
          gradients<kind.value>(a + c, b + c, gy + c, g.in[0], row * 2 * half_ + c,
                                std::min(block_elements, half_ - c));
      });
    });
  }

 private:
  /// Of `n` gates at element `at` of the slot, and of the values behind them.
  template <Activation kind>
  void gradients(const T* a, const T* b, const T* gy, const GradSlot& slot, std::int64_t at, std::int64_t n) const {
    alignas(64) float of_gate[block_elements], of_value[block_elements];
#pragma omp simd
    for (std::int64_t c = 0; c < n; ++c) {
      const float x = to_float(a[c]), v = to_float(gy[c]), y = activate<kind>(x);
      of_gate[c] = activation_gradient<kind>(derivative_of_output_v<kind> ? y : x, v * to_float(b[c]));
      of_value[c] = v * y;
    }
    write_slot<T>(slot, at, at + n, of_gate);
    write_slot<T>(slot, at + half_, at + half_ + n, of_value);
  }

  Activation gate_;
  std::int64_t rows_, half_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Gated& op, Inputs in, int threads) {
  return make_for<GatedKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
