// What the CUDA device does beside the ops of a model: updates, norms, averages, sums and casts of the flat buffers,
// and images from stored bytes, on the stream it is given. Owns tables of each layout it was shown, in device memory,
// and the context of the device's kernels; tables are made at the first update of a layout, which is therefore no part
// of recorded work. One thread at a time.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/cuda/context.hpp"
#include "runtime/cuda/update/muon_ops.hpp"
#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/optimizer.hpp"

namespace dtrain::cuda {

/// A device adds the kernels of ops.
class FlatOps : public Kernels {
 public:
  /// The device outlives it.
  FlatOps(Device&, CudaContext);
  ~FlatOps() override;
  FlatOps(const FlatOps&) = delete;
  FlatOps& operator=(const FlatOps&) = delete;

  void update(const UpdateRule&, const UpdateArgs&, Stream&) override;
  void update_states(const StateUpdateArgs&, Stream&) override;
  void average(float* average, const float* params, std::size_t n, double decay, const StepState&, Stream&) override;
  void sum_squares(const float* x, std::size_t n, double* partial, Stream&) override;
  void finish_gradients(const GradientArgs&, Stream&) override;
  void finish_step(const FinishArgs&, Stream&) override;
  void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream&) override;
  void load_images(const ImageFormat&, const ImageBatch&, Stream&) override;
  void cast(Tensor from, Tensor to, Stream&) override;

 protected:
  CudaContext context_;

 private:
  class Tables;
  const Tables& tables_of(const FlatLayout&, std::span<const PackedCopy>, Stream&);
  void update_by_muon(const Muon&, const UpdateArgs&, const FlatRange&, Stream&);

  Device& device_;
  MuonProducts products_;
  std::vector<std::unique_ptr<Tables>> tables_;
};

}  // namespace dtrain::cuda
