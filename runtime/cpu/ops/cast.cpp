// Another element type.
#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class From, class To>
class CastKernel final : public Kernel {
 public:
  CastKernel(std::int64_t elements, int threads) : elements_(elements), threads_(threads) {}
  void forward(const OpArgs& a, Stream&) override { convert<From, To>(a.in[0], a.out[0], false); }
  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    if (wanted(g.in[0])) convert<To, From>(g.out[0], g.in[0].grad, g.in[0].write == Write::accumulate);
  }

 private:
  template <class A, class B>
  void convert(const Tensor& from, const Tensor& to, bool add) const {
    const A* a = from.as<A>();
    B* b = to.as<B>();
    parallel_chunks(elements_, task_elements, threads_, [=](std::int64_t begin, std::int64_t end) {
      write_elements(b, begin, end, add, [=](std::int64_t i) { return to_float(a[i]); });
    });
  }

  std::int64_t elements_;
  int threads_;
};

template <class T>
using CastFromF32 = CastKernel<float, T>;
template <class T>
using CastFromBf16 = CastKernel<Bf16, T>;

}  // namespace

std::unique_ptr<Kernel> make(const Cast& op, Inputs in, int threads) {
  if (in[0].dtype == DType::bf16) return make_for<CastFromBf16>(op.to, in[0].elements(), threads);
  return make_for<CastFromF32>(op.to, in[0].elements(), threads);
}

}  // namespace dtrain::cpu
