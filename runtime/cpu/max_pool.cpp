// Max pooling over NHWC memory: channels are the vector, the window's element that won is kept as one byte.
#include <algorithm>
#include <cstring>

#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t channel_block = 64;

class MaxPoolKernel final : public Kernel {
 public:
  MaxPoolKernel(const MaxPool2d& op, const TensorDesc& in, int threads)
      : op_(op),
        n_(in.shape[0]),
        c_(in.shape[1]),
        h_(in.shape[2]),
        w_(in.shape[3]),
        oh_((h_ - op.size[0]) / op.stride[0] + 1),
        ow_((w_ - op.size[1]) / op.stride[1] + 1),
        disjoint_(op.stride[0] >= op.size[0] && op.stride[1] >= op.size[1]),
        threads_(threads) {}

  void forward(const OpArgs& a, Stream&) override {
    const float* x = a.in[0].as<float>();
    float* y = a.out[0].as<float>();
    auto* won = a.pass.mode == Mode::train ? a.saved[0].as<std::uint8_t>() : nullptr;
    parallel_chunks(n_ * oh_, 4, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        const float* top = x + (row / oh_ * h_ + row % oh_ * op_.stride[0]) * w_ * c_;
        for (std::int64_t q = 0; q < ow_; ++q) {
          const std::int64_t at = (row * ow_ + q) * c_;
          forward_window(top + q * op_.stride[1] * c_, y + at, won ? won + at : nullptr);
        }
      }
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const Write write = g.in[0].write;
    if (write == Write::none) return;
    const auto* won = a.saved[0].as<std::uint8_t>();
    const float* gy = g.out[0].as<float>();
    float* gx = g.in[0].grad.as<float>();
    const bool store = write == Write::overwrite && disjoint_;
    parallel_chunks(n_, 1, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t s = begin; s < end; ++s) {
        float* image = gx + s * h_ * w_ * c_;
        if (write == Write::overwrite) clear(image);
        for (std::int64_t p = 0; p < oh_; ++p) {
          for (std::int64_t q = 0; q < ow_; ++q) {
            const std::int64_t at = ((s * oh_ + p) * ow_ + q) * c_;
            backward_window(image + (p * op_.stride[0] * w_ + q * op_.stride[1]) * c_, gy + at, won + at, store);
          }
        }
      }
    });
  }

 private:
  void forward_window(const float* x, float* y, std::uint8_t* won) const {
    for (std::int64_t c0 = 0; c0 < c_; c0 += channel_block) {
      const std::int64_t n = std::min(channel_block, c_ - c0);
      alignas(64) float best[channel_block];
      alignas(64) std::int32_t index[channel_block];
      for (std::int64_t c = 0; c < n; ++c) {
        best[c] = x[c0 + c];
        index[c] = 0;
      }
      for (std::int64_t i = 0; i < op_.size[0]; ++i) {
        for (std::int64_t j = i == 0 ? 1 : 0; j < op_.size[1]; ++j) {
          const float* from = x + (i * w_ + j) * c_ + c0;
          const auto k = static_cast<std::int32_t>(i * op_.size[1] + j);
#pragma omp simd
          for (std::int64_t c = 0; c < n; ++c) {
            // NaN wins, as in PyTorch, so that it is not lost on the way to the loss.
            const float v = from[c];
            const std::int32_t take = static_cast<std::int32_t>(v > best[c]) | static_cast<std::int32_t>(v != v);
            best[c] = take != 0 ? v : best[c];
            index[c] = take != 0 ? k : index[c];
          }
        }
      }
      std::memcpy(y + c0, best, static_cast<std::size_t>(n) * sizeof(float));
      if (won)
        for (std::int64_t c = 0; c < n; ++c) won[c0 + c] = static_cast<std::uint8_t>(index[c]);
    }
  }

  void backward_window(float* gx, const float* gy, const std::uint8_t* won, bool store) const {
    for (std::int64_t i = 0; i < op_.size[0]; ++i) {
      for (std::int64_t j = 0; j < op_.size[1]; ++j) {
        float* to = gx + (i * w_ + j) * c_;
        const auto k = static_cast<std::uint8_t>(i * op_.size[1] + j);
        if (store) {
#pragma omp simd
          for (std::int64_t c = 0; c < c_; ++c) to[c] = won[c] == k ? gy[c] : 0.0f;
        } else {
#pragma omp simd
          for (std::int64_t c = 0; c < c_; ++c) to[c] += won[c] == k ? gy[c] : 0.0f;
        }
      }
    }
  }

  /// Zeroes what the windows do not store to.
  void clear(float* image) const {
    const auto zero = [this](float* at, std::int64_t pixels) {
      std::memset(at, 0, static_cast<std::size_t>(pixels * c_) * sizeof(float));
    };
    if (op_.stride != op_.size) {
      zero(image, h_ * w_);
      return;
    }
    const std::int64_t rows = oh_ * op_.size[0], columns = ow_ * op_.size[1];
    if (columns < w_)
      for (std::int64_t y = 0; y < rows; ++y) zero(image + (y * w_ + columns) * c_, w_ - columns);
    if (rows < h_) zero(image + rows * w_ * c_, (h_ - rows) * w_);
  }

  MaxPool2d op_;
  std::int64_t n_, c_, h_, w_, oh_, ow_;
  bool disjoint_;
  int threads_;
};

}  // namespace

std::unique_ptr<Kernel> make_max_pool2d(const MaxPool2d& op, std::span<const TensorDesc> in, int threads) {
  return std::make_unique<MaxPoolKernel>(op, in[0], threads);
}

}  // namespace dtrain::cpu
