// Ops that move values without computing: concatenation, another element type, and the view.
#include <cstring>
#include <vector>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

/// Each row (a sample, or a pixel of it) of the output is one row of each input.
template <class T>
class ConcatKernel final : public Kernel {
 public:
  ConcatKernel(std::span<const TensorDesc> in, int threads) : threads_(threads) {
    for (const TensorDesc& desc : in) widths_.push_back(desc.channels());
    rows_ = in[0].rows();
    for (const std::int64_t width : widths_) width_ += width;
  }

  void forward(const OpArgs& a, Stream&) override {
    T* y = a.out[0].as<T>();
    for_rows([&](std::int64_t row) {
      T* to = y + row * width_;
      for (std::size_t i = 0; i < widths_.size(); ++i) {
        std::memcpy(to, a.in[i].as<T>() + row * widths_[i], static_cast<std::size_t>(widths_[i]) * sizeof(T));
        to += widths_[i];
      }
    });
  }

  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    const T* gy = g.out[0].as<T>();
    for_rows([&](std::int64_t row) {
      const T* from = gy + row * width_;
      for (std::size_t i = 0; i < widths_.size(); from += widths_[i++]) {
        const Write write = g.in[i].write;
        if (write == Write::none) continue;
        write_elements(g.in[i].grad.as<T>() + row * widths_[i], 0, widths_[i], write == Write::accumulate,
                       [=](std::int64_t c) { return to_float(from[c]); });
      }
    });
  }

 private:
  template <class Body>
  void for_rows(const Body& body) const {
    parallel_chunks(rows_, std::max<std::int64_t>(1, task_elements / width_), threads_,
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t row = begin; row < end; ++row) body(row);
                    });
  }

  std::vector<std::int64_t> widths_;
  std::int64_t rows_ = 0, width_ = 0;
  int threads_;
};

template <class From, class To>
class CastKernel final : public Kernel {
 public:
  CastKernel(std::int64_t elements, int threads) : elements_(elements), threads_(threads) {}
  void forward(const OpArgs& a, Stream&) override { convert<From, To>(a.in[0], a.out[0], false); }
  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    if (g.in[0].write != Write::none) convert<To, From>(g.out[0], g.in[0].grad, g.in[0].write == Write::accumulate);
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

class ViewKernel final : public Kernel {
 public:
  void forward(const OpArgs&, Stream&) override {}
  void backward(const OpArgs&, const OpGrads&, Stream&) override {}
};

template <class T>
using CastFromF32 = CastKernel<float, T>;
template <class T>
using CastFromBf16 = CastKernel<Bf16, T>;

}  // namespace

std::unique_ptr<Kernel> make(const Concat&, Inputs in, int threads) {
  return make_for<ConcatKernel>(in[0].dtype, in, threads);
}
std::unique_ptr<Kernel> make(const Cast& op, Inputs in, int threads) {
  if (in[0].dtype == DType::bf16) return make_for<CastFromBf16>(op.to, in[0].elements(), threads);
  return make_for<CastFromF32>(op.to, in[0].elements(), threads);
}
std::unique_ptr<Kernel> make(const Flatten&, Inputs, int /*threads*/) {
  return std::make_unique<ViewKernel>();
}
std::unique_ptr<Kernel> make(const SumOverRanks&, Inputs, int /*threads*/) {
  return std::make_unique<ViewKernel>();
}

}  // namespace dtrain::cpu
