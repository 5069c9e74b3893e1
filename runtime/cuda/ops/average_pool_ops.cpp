// Average pooling by own kernels, or forward as a cuDNN graph.
#include "runtime/cuda/ops/average_pool.hpp"
#include "runtime/cuda/ops/pool_kernel.hpp"
#include "runtime/ops/pool.hpp"

namespace dtrain::cuda {

namespace {

class AveragePoolKernel final : public PoolKernel {
 public:
  AveragePoolKernel(CudaContext& context, const AveragePool& op, const TensorDesc& in)
      : PoolKernel("avgpool", in), grid_(window_grid(op, in)), count_padding_(op.count_padding) {
    prepare(context, pool_graph(op, in));
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      average_pool_gradient(at(stream, name_), type_, grid_, count_padding_, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  void own_forward(const Launch& where, const void* x, void* y, std::uint8_t*) const override {
    average_pool(where, type_, grid_, count_padding_, x, y);
  }

  WindowGrid grid_;
  bool count_padding_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const AveragePool& op, Inputs in, const OpUse&) {
  return std::make_unique<AveragePoolKernel>(context, op, in[0]);
}

}  // namespace dtrain::cuda
