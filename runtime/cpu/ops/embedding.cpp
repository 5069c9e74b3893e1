// Embedding: rows are gathered by position; in backward each thread has a range of the vocabulary and goes over all
// positions in order, so that bits depend on no thread.
#include <algorithm>
#include <limits>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class EmbeddingKernel final : public Kernel {
 public:
  EmbeddingKernel(const Embedding& op, const TensorDesc& in, int threads)
      : op_(op), type_(in.dtype), positions_(in.elements()), threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const float* weight = a.params[0].as<float>();
    T* y = a.out[0].as<T>();
    const std::int64_t n = op_.channels;
    parallel_rows(positions_, n, 16384, threads_, [&](std::int64_t p) {
      const std::int64_t row = row_of(a.in[0], p);
      if (row < 0 || row >= op_.vocabulary) {
        write_elements(y + p * n, 0, n, false, [](std::int64_t) { return std::numeric_limits<float>::quiet_NaN(); });
        return;
      }
      const float* from = weight + row * n;
      write_elements(y + p * n, 0, n, false, [=](std::int64_t i) { return from[i]; });
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const GradSlot& slot = g.params[0];
    if (!wanted(slot)) return;
    const T* gy = g.out[0].as<T>();
    float* to = slot.grad.as<float>();
    const std::int64_t n = op_.channels, share = (op_.vocabulary + threads_ - 1) / threads_;
    parallel_chunks(op_.vocabulary, share, threads_, [&](std::int64_t begin, std::int64_t end) {
      if (slot.write == Write::overwrite) std::fill(to + begin * n, to + end * n, 0.0f);
      for (std::int64_t p = 0; p < positions_; ++p) {
        const std::int64_t row = row_of(a.in[0], p);
        if (row < begin || row >= end) continue;
        const T* from = gy + p * n;
        write_elements(to + row * n, 0, n, true, [=](std::int64_t i) { return to_float(from[i]); });
      }
    });
  }

 private:
  std::int64_t row_of(const Tensor& in, std::int64_t p) const {
    if (type_ == DType::u8) return in.as<std::uint8_t>()[p];
    if (type_ == DType::u16) return in.as<std::uint16_t>()[p];
    return in.as<std::int32_t>()[p];
  }

  Embedding op_;
  DType type_;
  std::int64_t positions_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make(const Embedding& op, Inputs in, int threads) {
  return make_for<EmbeddingKernel>(op.dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
