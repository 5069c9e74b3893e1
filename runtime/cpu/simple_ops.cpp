// Element-wise ops and the view.
#include <cmath>
#include <cstring>

#include "runtime/cpu/missing.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/rng.hpp"

namespace dtrain::cpu {

namespace {

constexpr std::int64_t grain = 32 * 1024;  // elements a task

class ReluKernel final : public Kernel {
 public:
  ReluKernel(std::int64_t elements, int threads) : elements_(elements), threads_(threads) {}
  void forward(const OpArgs& a, Stream&) override {
    const float* x = a.in[0].as<float>();
    float* y = a.out[0].as<float>();  // may be x
    parallel_chunks(elements_, grain, threads_, [=](std::int64_t begin, std::int64_t end) {
    // Written so that NaN stays NaN.
#pragma omp simd
      for (std::int64_t i = begin; i < end; ++i) y[i] = x[i] < 0.0f ? 0.0f : x[i];
    });
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const float* y = a.out[0].as<float>();
    const float* gy = g.out[0].as<float>();
    float* gx = g.in[0].grad.as<float>();  // may be gy
    const bool add = g.in[0].write == Write::accumulate;
    parallel_chunks(elements_, grain, threads_, [=](std::int64_t begin, std::int64_t end) {
      if (add) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) gx[i] += y[i] > 0.0f ? gy[i] : 0.0f;
      } else {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) gx[i] = y[i] > 0.0f ? gy[i] : 0.0f;
      }
    });
  }

 private:
  std::int64_t elements_;
  int threads_;
};

/// Elements of the mask that `lanes` consecutive blocks of draws decide.
constexpr int lanes = 16;

/// keep[4 j + i] = 1 where draw i of block first_block + j is at least `threshold` (of 2^24). The rounds of draw4, in
/// loops over lanes so that they become vector code; a test holds them equal.
void keep_mask(RandomKey key, std::uint64_t item, std::uint32_t sub, std::uint32_t first_block, std::uint32_t threshold,
               std::uint8_t* keep) {
  // One draw a 64-bit lane: the product of two 32-bit halves is then one vector instruction.
  constexpr std::uint64_t low = 0xFFFFFFFFu;
  alignas(64) std::uint64_t c0[lanes], c1[lanes], c2[lanes], c3[lanes];
  for (int j = 0; j < lanes; ++j) {
    c0[j] = first_block + static_cast<std::uint32_t>(j);
    c1[j] = sub;
    c2[j] = item & low;
    c3[j] = item >> 32;
  }
  std::uint64_t k0 = key.k0, k1 = key.k1;
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int j = 0; j < lanes; ++j) {
      const std::uint64_t p0 = 0xD2511F53u * (c0[j] & low);
      const std::uint64_t p1 = 0xCD9E8D57u * (c2[j] & low);
      c0[j] = (p1 >> 32) ^ c1[j] ^ k0;
      c1[j] = p1 & low;
      c2[j] = (p0 >> 32) ^ c3[j] ^ k1;
      c3[j] = p0 & low;
    }
    k0 = (k0 + 0x9E3779B9u) & low;
    k1 = (k1 + 0xBB67AE85u) & low;
  }
  alignas(64) std::uint32_t draws[4 * lanes];
  for (int j = 0; j < lanes; ++j) {
    draws[4 * j] = static_cast<std::uint32_t>(c0[j]);
    draws[4 * j + 1] = static_cast<std::uint32_t>(c1[j]);
    draws[4 * j + 2] = static_cast<std::uint32_t>(c2[j]);
    draws[4 * j + 3] = static_cast<std::uint32_t>(c3[j]);
  }
#pragma omp simd
  for (int i = 0; i < 4 * lanes; ++i) keep[i] = (draws[i] >> 8) >= threshold;
}

class DropoutKernel final : public Kernel {
 public:
  DropoutKernel(const Dropout& op, const TensorDesc& in, int threads)
      : op_(op),
        samples_(in.shape[0]),
        features_(in.elements() / in.shape[0]),
        threads_(threads),
        threshold_(static_cast<std::uint32_t>(std::ceil(op.rate * 0x1p24))),
        scale_(static_cast<float>(1.0 / (1.0 - op.rate))) {}

  void forward(const OpArgs& a, Stream&) override {
    const float* x = a.in[0].as<float>();
    float* y = a.out[0].as<float>();  // may be x
    if (a.pass.mode == Mode::evaluate || op_.rate == 0) {
      if (x != y) std::memcpy(y, x, static_cast<std::size_t>(samples_ * features_) * sizeof(float));
      if (a.pass.mode == Mode::train) std::memset(a.saved[0].data, 1, static_cast<std::size_t>(samples_ * features_));
      return;
    }
    const auto* positions = a.positions[0].as<std::uint64_t>();
    auto* mask = a.saved[0].as<std::uint8_t>();
    const RandomKey key = random_key(a.step.seed, Purpose::dropout);
    const std::int64_t samples_a_task = std::max<std::int64_t>(1, grain / features_);
    parallel_chunks(samples_, samples_a_task, threads_, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t s = begin; s < end; ++s)
        forward_sample(key, positions[s], x + s * features_, y + s * features_, mask + s * features_);
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (g.in[0].write == Write::none) return;
    const auto* mask = a.saved[0].as<std::uint8_t>();
    const float* gy = g.out[0].as<float>();
    float* gx = g.in[0].grad.as<float>();  // may be gy
    const bool add = g.in[0].write == Write::accumulate;
    const float scale = scale_;
    parallel_chunks(samples_ * features_, grain, threads_, [=](std::int64_t begin, std::int64_t end) {
      if (add) {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) gx[i] += mask[i] ? gy[i] * scale : 0.0f;
      } else {
#pragma omp simd
        for (std::int64_t i = begin; i < end; ++i) gx[i] = mask[i] ? gy[i] * scale : 0.0f;
      }
    });
  }

 private:
  void forward_sample(RandomKey key, std::uint64_t position, const float* x, float* y, std::uint8_t* mask) const {
    constexpr std::int64_t width = 4 * lanes;
    for (std::int64_t e = 0; e < features_; e += width) {
      alignas(64) std::uint8_t keep[width];
      keep_mask(key, position, op_.id, static_cast<std::uint32_t>(e / 4), threshold_, keep);
      if (features_ - e >= width) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) y[e + i] = keep[i] ? x[e + i] * scale_ : 0.0f;
        std::memcpy(mask + e, keep, width);
      } else {
        for (std::int64_t i = 0; i < features_ - e; ++i) y[e + i] = keep[i] ? x[e + i] * scale_ : 0.0f;
        std::memcpy(mask + e, keep, static_cast<std::size_t>(features_ - e));
      }
    }
  }

  Dropout op_;
  std::int64_t samples_, features_;
  int threads_;
  std::uint32_t threshold_;
  float scale_;
};

class ViewKernel final : public Kernel {
 public:
  void forward(const OpArgs&, Stream&) override {}
  void backward(const OpArgs&, const OpGrads&, Stream&) override {}
};

}  // namespace

std::unique_ptr<Kernel> make_activation(const Activate& op, std::span<const TensorDesc> in, int threads) {
  if (op.kind != Activation::relu || in[0].dtype != DType::f32) throw_missing(name_of(op.kind));
  return std::make_unique<ReluKernel>(in[0].elements(), threads);
}
std::unique_ptr<Kernel> make_dropout(const Dropout& op, std::span<const TensorDesc> in, int threads) {
  return std::make_unique<DropoutKernel>(op, in[0], threads);
}
std::unique_ptr<Kernel> make_view() {
  return std::make_unique<ViewKernel>();
}

}  // namespace dtrain::cpu
