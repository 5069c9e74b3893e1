// Transposed convolutions through cuDNN, as passes of the mirrored convolution: its data gradient is forward, its
// forward the data gradient. Own passes add the bias and activate.
#include "runtime/cuda/ops/convolution_kernel.hpp"

namespace dtrain::cuda {

namespace {

class ConvTransposeKernel final : public ConvolutionKernel {
 public:
  ConvTransposeKernel(CudaContext& context, const ConvTranspose& op, const TensorDesc& in, const OpUse& use)
      : ConvolutionKernel(context, "conv_transpose", op, in,
                          {in.channels(), op.filters / op.groups, op.kernel.product()}, true) {
    forward_ = quickest_graph(context, graph(context, op, in, ConvolutionPass::forward));
    finishes_ = bias_ || activation_ != Activation::none;
    prepare_backward(context, op, in, use);
  }
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const ConvTranspose& op, Inputs in, const OpUse& use) {
  return std::make_unique<ConvTransposeKernel>(context, op, in[0], use);
}

}  // namespace dtrain::cuda
