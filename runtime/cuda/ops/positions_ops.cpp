// Learned positions by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/positions.hpp"

namespace dtrain::cuda {

namespace {

class PositionsKernel final : public Kernel {
 public:
  explicit PositionsKernel(const TensorDesc& in)
      : type_(element_of(in)), shape_{in.batch(), in.positions() * in.channels()} {}

  void forward(const OpArgs& a, Stream& stream) override {
    if (a.in.size() == 2) {
      const TensorDesc& x = a.in[0].desc;
      const PositionsBehind rows{x.positions(), x.channels(), a.params[0].desc.shape[0],
                                 a.in[1].as<const std::int32_t>()};
      return add_positions_behind(at(stream, name), type_, x.batch(), rows, a.in[0].data, a.params[0].as<const float>(),
                                  a.out[0].data);
    }
    add_positions(at(stream, name), type_, shape_, a.in[0].data, a.params[0].as<const float>(), a.out[0].data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const void* gy = g.out[0].data;
    if (wanted(g.params, 0))
      positions_gradient(at(stream, name), type_, shape_, a.params[0].elements(), gy, slot_of(g.params[0]));
    if (!wanted(g.in, 0) || (g.in[0].grad.data == gy && g.in[0].write == Write::overwrite)) return;
    cast(at(stream, name), type_, type_, gy, slot_of(g.in[0]), shape_.rows * shape_.channels);
  }

 private:
  static constexpr const char* name = "positions";
  Element type_;
  Matrix shape_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Positions&, Inputs in, const OpUse&) {
  return std::make_unique<PositionsKernel>(in[0]);
}

}  // namespace dtrain::cuda
