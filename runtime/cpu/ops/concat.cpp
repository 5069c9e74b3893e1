// Channels of several values behind each other.
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
    parallel_rows(rows_, width_, task_elements, threads_, [&](std::int64_t row) {
      T* to = y + row * width_;
      for (std::size_t i = 0; i < widths_.size(); ++i) {
        std::memcpy(to, a.in[i].as<T>() + row * widths_[i], static_cast<std::size_t>(widths_[i]) * sizeof(T));
        to += widths_[i];
      }
    });
  }

  void backward(const OpArgs&, const OpGrads& g, Stream&) override {
    const T* gy = g.out[0].as<T>();
    parallel_rows(rows_, width_, task_elements, threads_, [&](std::int64_t row) {
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
  std::vector<std::int64_t> widths_;
  std::int64_t rows_ = 0, width_ = 0;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Concat&, Inputs in, int threads) {
  return make_for<ConcatKernel>(in[0].dtype, in, threads);
}

}  // namespace dtrain::cpu
