// Dropout of elements and of whole samples; what was dropped is kept as bytes.
#include <cstring>

#include "runtime/cpu/elements.hpp"
#include "runtime/cpu/op_kernels.hpp"
#include "runtime/cpu/ops/keep_mask.hpp"
#include "runtime/cpu/parallel.hpp"
#include "runtime/random/rng.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class DropoutKernel final : public Kernel {
 public:
  DropoutKernel(const Dropout& op, const TensorDesc& in, int threads)
      : op_(op),
        samples_(in.shape[0]),
        features_(in.elements() / in.shape[0]),
        threads_(threads),
        threshold_(drop_threshold(op.rate)),
        scale_(static_cast<float>(1.0 / (1.0 - op.rate))) {}

  void forward(const OpArgs& a, Stream&) override {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();  // may be x
    if (a.pass.mode == Mode::evaluate || op_.rate == 0) {
      if (x != y) std::memcpy(y, x, static_cast<std::size_t>(samples_ * features_) * sizeof(T));
      if (a.pass.mode == Mode::train) std::memset(a.saved[0].data, 1, a.saved[0].bytes());
      return;
    }
    const auto* positions = a.positions[0].as<std::uint64_t>();
    auto* mask = a.saved[0].as<std::uint8_t>();
    const RandomKey key = random_key(a.step.seed, Purpose::dropout);
    parallel_rows(samples_, features_, task_elements, threads_, [&](std::int64_t s) {
      const T* from = x + s * features_;
      T* to = y + s * features_;
      if (op_.whole_sample) {
        mask[s] = (draw4(key, positions[s], op_.id, 0).v[0] >> 8) >= threshold_;
        write_sample(to, from, mask[s] != 0, false);
      } else {
        forward_sample(key, positions[s], from, to, mask + s * features_);
      }
    });
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    if (!wanted(g.in[0])) return;
    const auto* mask = a.saved[0].as<std::uint8_t>();
    const T* gy = g.out[0].as<T>();
    T* gx = g.in[0].grad.as<T>();  // may be gy
    const bool add = g.in[0].write == Write::accumulate;
    parallel_rows(samples_, features_, task_elements, threads_, [&](std::int64_t s) {
      const T* from = gy + s * features_;
      T* to = gx + s * features_;
      if (op_.whole_sample) {
        write_sample(to, from, mask[s] != 0, add);
      } else {
        const auto* keep = mask + s * features_;
        write_elements(to, 0, features_, add, [=, scale = scale_](std::int64_t i) {
          const float v = to_float(from[i]) * scale;  // in any case: a read under a condition is no vector code
          return keep[i] != 0 ? v : 0.0f;
        });
      }
    });
  }

 private:
  void write_sample(T* to, const T* from, bool keep, bool add) const {
    if (keep)
      write_elements(to, 0, features_, add, [=, scale = scale_](std::int64_t i) { return to_float(from[i]) * scale; });
    else if (!add)
      std::memset(to, 0, static_cast<std::size_t>(features_) * sizeof(T));
  }

  void forward_sample(RandomKey key, std::uint64_t position, const T* x, T* y, std::uint8_t* mask) const {
    constexpr std::int64_t width = mask_elements;
    for (std::int64_t e = 0; e < features_; e += width) {
      alignas(64) std::uint8_t keep[width];
      keep_mask(key, position, op_.id, static_cast<std::uint32_t>(e / 4), threshold_, keep);
      const auto value = [&keep, from = x + e, scale = scale_](std::int64_t i) {
        const float v = to_float(from[i]) * scale;
        return keep[i] != 0 ? v : 0.0f;
      };
      if (features_ - e >= width) {
        write_elements(y + e, 0, width, false, value);
        std::memcpy(mask + e, keep, width);
      } else {
        for (std::int64_t i = 0; i < features_ - e; ++i) y[e + i] = from_float<T>(value(i));
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

}  // namespace

std::unique_ptr<Kernel> make(const Dropout& op, Inputs in, int threads) {
  return make_for<DropoutKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
