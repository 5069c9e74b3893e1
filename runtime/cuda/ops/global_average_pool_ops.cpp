// The mean over whole images by own kernels, or forward as a cuDNN graph.
#include "runtime/cuda/ops/global_average_pool.hpp"
#include "runtime/cuda/ops/pool_kernel.hpp"

namespace dtrain::cuda {

namespace {

class GlobalAveragePoolKernel final : public PoolKernel {
 public:
  GlobalAveragePoolKernel(CudaContext& context, const GlobalAveragePool& op, const TensorDesc& in)
      : PoolKernel("global_avgpool", in), images_(images_of(in)) {
    prepare(context, pool_graph(op, in));
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) global_average_gradient(at(stream, name_), type_, images_, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  void own_forward(const Launch& where, const void* x, void* y, std::uint8_t*) const override {
    global_average(where, type_, images_, x, y);
  }

  Images images_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const GlobalAveragePool& op, Inputs in, const OpUse&) {
  return std::make_unique<GlobalAveragePoolKernel>(context, op, in[0]);
}

}  // namespace dtrain::cuda
