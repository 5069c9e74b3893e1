// Upsampling by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/upsample.hpp"
#include "runtime/ops/inference.hpp"

namespace dtrain::cuda {

namespace {

UpsampleGrid grid_of(const Upsample& op, const TensorDesc& in) {
  const Extents positions = inference::positions_of(in);
  /// The axis so many from the innermost one; one that is missing has one pixel.
  const auto axis = [&](std::size_t from_last) -> UpsampleAxis {
    if (from_last >= positions.size()) return {1, 1, false};
    const std::size_t i = positions.size() - 1 - from_last;
    return {positions[i], op.factor[i], op.mode == Upsample::Mode::linear};
  };
  return {in.batch(), in.channels(), axis(2), axis(1), axis(0)};
}

class UpsampleKernel final : public Kernel {
 public:
  UpsampleKernel(const Upsample& op, const TensorDesc& in) : type_(element_of(in)), grid_(grid_of(op, in)) {}
  void forward(const OpArgs& a, Stream& stream) override {
    upsample(at(stream, name), type_, grid_, a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) upsample_gradient(at(stream, name), type_, grid_, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "upsample";
  Element type_;
  UpsampleGrid grid_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Upsample& op, Inputs in, const OpUse&) {
  return std::make_unique<UpsampleKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
