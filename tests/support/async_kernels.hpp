// The kernels of an AsyncDevice: those of the device that it wraps, called later on its streams' threads, with copies
// of all arguments and with the addresses at which its memory really is. The AsyncDevice owns them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "runtime/ops/kernels.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::test {

class AsyncKernels final : public Kernels {
 public:
  /// All three outlive it.
  AsyncKernels(AsyncDevice& device, Kernels& inner, Stream& at_once)
      : device_(device), inner_(inner), at_once_(at_once) {}
  std::unique_ptr<Kernel> prepare(const OpSpec&, std::span<const TensorDesc> in, const OpUse&) override;
  AlgorithmChoices choices() const override {
    AlgorithmChoices all = inner_.choices();
    all.merge(choices_);
    return all;
  }
  void use(const AlgorithmChoices& choices) override {
    inner_.use(choices);
    choices_.merge(choices);
  }
  void update(const UpdateRule&, const UpdateArgs&, Stream&) override;
  void update_states(const StateUpdateArgs&, Stream&) override;
  void average(float* average, const float* params, std::size_t n, double decay, const StepState&, Stream&) override;
  void sum_squares(const float* x, std::size_t n, double* partial, Stream&) override;
  void finish_gradients(const GradientArgs&, Stream&) override;
  void finish_step(const FinishArgs&, Stream&) override;
  void load_images(const ImageFormat&, const ImageBatch&, Stream&) override;
  void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream&) override;
  void cast(Tensor from, Tensor to, Stream&) override;

 private:
  AsyncDevice& device_;
  Kernels& inner_;
  Stream& at_once_;
  AlgorithmChoices choices_;
};

}  // namespace dtrain::test
