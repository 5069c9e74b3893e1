// Mean squared error by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/mean_squared_error.hpp"

namespace dtrain::cuda {

namespace {

class MeanSquaredErrorKernel final : public Kernel {
 public:
  explicit MeanSquaredErrorKernel(Inputs in)
      : type_(element_of(in[0])), shape_(matrix_of(in[0])), rows_each_(shape_.rows / in[2].elements()) {}
  Needs needs() const override { return {loss_bytes(shape_.rows), 0}; }
  void forward(const OpArgs& a, Stream& stream) override {
    squared_error(at(stream, name), type_, place(a), !a.pass.first, a.out[0].as<float>(), a.workspace.data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) squared_error_gradient(at(stream, name), type_, place(a), &a.step, a.loss, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "mean_squared_error";
  SquaredErrorPlace place(const OpArgs& a) const {
    return {shape_, a.in[0].data, a.in[1].as<const float>(), {a.in[2].as<const float>(), rows_each_}};
  }
  Element type_;
  Matrix shape_;
  std::int64_t rows_each_;  // that share a weight
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const MeanSquaredError&, Inputs in, const OpUse&) {
  return std::make_unique<MeanSquaredErrorKernel>(in);
}

}  // namespace dtrain::cuda
