// Sums of two values, with an activation inside.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class AddKernel final : public Kernel {
 public:
  AddKernel(const Add& op, std::int64_t elements, int threads)
      : kind_(op.activation), factor_(static_cast<float>(op.factor)), elements_(elements), threads_(threads) {}

  void forward(const OpArgs& args, Stream&) override {
    const T *a = args.in[0].as<T>(), *b = args.in[1].as<T>();
    T* y = args.out[0].as<T>();  // may be either
    with_epilogue(kind_, [&](auto kind) {
      parallel_chunks(elements_, task_elements, threads_, [=, factor = factor_](std::int64_t begin, std::int64_t end) {
        write_elements(y, begin, end, false,
                       [=](std::int64_t i) { return activate<kind.value>(to_float(a[i]) + factor * to_float(b[i])); });
      });
    });
  }

  void backward(const OpArgs& args, const OpGrads& g, Stream&) override {
    const T *y = args.out[0].as<T>(), *gy = g.out[0].as<T>();
    with_epilogue(kind_, [&](auto kind) {
      parallel_chunks(elements_, task_elements, threads_, [&](std::int64_t begin, std::int64_t end) {
        // Either slot may be gy, or both the same: a block is worked out before it is written.
        for (std::int64_t from = begin; from < end; from += block_elements) {
          const std::int64_t to = std::min(from + block_elements, end);
          alignas(64) float values[block_elements];
          write_elements(values, 0, to - from, false, [=](std::int64_t i) {
            float seen = 0;
            if constexpr (kind.value != Activation::none) seen = to_float(y[from + i]);
            return activation_gradient<kind.value>(seen, to_float(gy[from + i]));
          });
          const auto put = [&](const GradSlot& slot, bool same) {
            const bool already_there = same && kind.value == Activation::none && slot.grad.data == gy;
            if (slot.write != Write::overwrite || !already_there) write_slot<T>(slot, from, to, values);
          };
          put(g.in[0], true);
          if (factor_ != 1)
            for (std::int64_t i = 0; i < to - from; ++i) values[i] *= factor_;
          put(g.in[1], factor_ == 1);
        }
      });
    });
  }

 private:
  Activation kind_;
  float factor_;  // of the second
  std::int64_t elements_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Add& op, Inputs in, int threads) {
  return make_for<AddKernel>(in[0].dtype, op, in[0].elements(), threads);
}

}  // namespace dtrain::cpu
