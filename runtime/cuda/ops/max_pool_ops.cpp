// Max pooling by own kernels, or forward as a cuDNN graph.
#include "runtime/cuda/ops/max_pool.hpp"
#include "runtime/cuda/ops/pool_kernel.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain::cuda {

namespace {

class MaxPoolKernel final : public PoolKernel {
 public:
  MaxPoolKernel(CudaContext& context, const MaxPool& op, const TensorDesc& in, const OpUse& use)
      : PoolKernel("maxpool", in), grid_(window_grid(op, in)) {
    if (const auto graph = pool_graph(op, in); graph && use.trained) prepare(context, *graph);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      max_pool_gradient(at(stream, name_), type_, grid_, a.saved[0].as<const std::uint8_t>(), g.out[0].data,
                        slot_of(g.in[0]));
  }

 private:
  void own_forward(const Launch& where, const void* x, void* y, std::uint8_t* won) const override {
    max_pool(where, type_, grid_, x, y, won);
  }

  WindowGrid grid_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const MaxPool& op, Inputs in, const OpUse& use) {
  return std::make_unique<MaxPoolKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
