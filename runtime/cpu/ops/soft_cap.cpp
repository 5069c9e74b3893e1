// Values kept between -cap and cap.
#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class SoftCapKernel final : public Kernel {
 public:
  SoftCapKernel(const SoftCap& op, std::int64_t elements, int threads)
      : math_(op), elements_(elements), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();  // may be x
    parallel_chunks(elements_, task_elements, threads_, [=, math = math_](std::int64_t begin, std::int64_t end) {
      write_elements(y, begin, end, false, [=](std::int64_t i) { return math.value(to_float(x[i])); });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const T *y = a.out[0].as<T>(), *gy = g.out[0].as<T>();
    T* gx = g.in[0].grad.as<T>();  // may be gy
    const bool add = g.in[0].write == Write::accumulate;
    parallel_chunks(elements_, task_elements, threads_, [=, math = math_](std::int64_t begin, std::int64_t end) {
      write_elements(gx, begin, end, add,
                     [=](std::int64_t i) { return math.gradient(to_float(y[i]), to_float(gy[i])); });
    });
  }

 private:
  SoftCapMath math_;
  std::int64_t elements_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const SoftCap& op, Inputs in, int threads) {
  return make_for<SoftCapKernel>(in[0].dtype, op, in[0].elements(), threads);
}

}  // namespace dtrain::cpu
