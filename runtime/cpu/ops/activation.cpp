// Activations as ops of their own, and as the epilogue of an add.
#include <algorithm>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class ActivateKernel final : public Kernel {
 public:
  ActivateKernel(Activation kind, std::int64_t elements, int threads)
      : kind_(kind), elements_(elements), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();  // may be x
    with_activation(kind_, [&](auto kind) {
      parallel_chunks(elements_, task_elements, threads_, [=](std::int64_t begin, std::int64_t end) {
        write_elements(y, begin, end, false, [=](std::int64_t i) { return activate<kind.value>(to_float(x[i])); });
      });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const T* seen = derivative_of_output(kind_) ? a.out[0].as<T>() : a.in[0].as<T>();
    const T* gy = g.out[0].as<T>();
    T* gx = g.in[0].grad.as<T>();  // may be gy
    const bool add = g.in[0].write == Write::accumulate;
    with_activation(kind_, [&](auto kind) {
      parallel_chunks(elements_, task_elements, threads_, [=](std::int64_t begin, std::int64_t end) {
        write_elements(gx, begin, end, add, [=](std::int64_t i) {
          return activation_gradient<kind.value>(to_float(seen[i]), to_float(gy[i]));
        });
      });
    });
  }

 private:
  Activation kind_;
  std::int64_t elements_;
  int threads_;
};

template <class T>
class AddKernel final : public Kernel {
 public:
  AddKernel(const Add& op, std::int64_t elements, int threads)
      : kind_(op.activation), elements_(elements), threads_(threads) {}

  void forward(const OpArgs& args, Stream&) override {
    const T *a = args.in[0].as<T>(), *b = args.in[1].as<T>();
    T* y = args.out[0].as<T>();  // may be either
    with_epilogue(kind_, [&](auto kind) {
      parallel_chunks(elements_, task_elements, threads_, [=](std::int64_t begin, std::int64_t end) {
        write_elements(y, begin, end, false,
                       [=](std::int64_t i) { return activate<kind.value>(to_float(a[i]) + to_float(b[i])); });
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
          for (const GradSlot& slot : g.in) {
            const bool already_there = kind.value == Activation::none && slot.grad.data == gy;
            if (slot.write != Write::overwrite || !already_there) write_slot<T>(slot, from, to, values);
          }
        }
      });
    });
  }

 private:
  Activation kind_;
  std::int64_t elements_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Activate& op, Inputs in, int threads) {
  return make_for<ActivateKernel>(in[0].dtype, op.kind, in[0].elements(), threads);
}
std::unique_ptr<Kernel> make(const Add& op, Inputs in, int threads) {
  return make_for<AddKernel>(in[0].dtype, op, in[0].elements(), threads);
}

}  // namespace dtrain::cpu
