// An activation as an op of its own.
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
    if (!wanted(g.in[0])) return;
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

}  // namespace

std::unique_ptr<Kernel> make(const Activate& op, Inputs in, int threads) {
  return make_for<ActivateKernel>(in[0].dtype, op.kind, in[0].elements(), threads);
}

}  // namespace dtrain::cpu
