// Pooling over windows and over whole images.
#include "runtime/cuda/op_support.hpp"

namespace dtrain::cuda {

namespace {

template <class Op>
WindowGrid grid_of(const Op& op, const Shape& in) {
  return WindowGrid(op, {in[0], in[1], in[2], in[3]});
}

class MaxPoolKernel final : public Kernel {
 public:
  MaxPoolKernel(const MaxPool2d& op, const TensorDesc& in) : type_(element_of(in)), grid_(grid_of(op, in.shape)) {}
  void forward(const OpArgs& a, Stream& stream) override {
    max_pool(at(stream, "max_pool2d"), type_, grid_, a.in[0].data, a.out[0].data,
             a.pass.mode == Mode::train ? a.saved[0].as<std::uint8_t>() : nullptr);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      max_pool_gradient(at(stream, "max_pool2d"), type_, grid_, a.saved[0].as<const std::uint8_t>(), g.out[0].data,
                        slot_of(g.in[0]));
  }

 private:
  Element type_;
  WindowGrid grid_;
};

class AveragePoolKernel final : public Kernel {
 public:
  AveragePoolKernel(const AveragePool2d& op, const TensorDesc& in)
      : type_(element_of(in)), grid_(grid_of(op, in.shape)), count_padding_(op.count_padding) {}
  void forward(const OpArgs& a, Stream& stream) override {
    average_pool(at(stream, "average_pool2d"), type_, grid_, count_padding_, a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      average_pool_gradient(at(stream, "average_pool2d"), type_, grid_, count_padding_, g.out[0].data,
                            slot_of(g.in[0]));
  }

 private:
  Element type_;
  WindowGrid grid_;
  bool count_padding_;
};

class GlobalAveragePoolKernel final : public Kernel {
 public:
  explicit GlobalAveragePoolKernel(const TensorDesc& in)
      : type_(element_of(in)), images_{in.shape[0], in.shape[2] * in.shape[3], in.shape[1]} {}
  void forward(const OpArgs& a, Stream& stream) override {
    global_average(at(stream, "global_average_pool"), type_, images_, a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      global_average_gradient(at(stream, "global_average_pool"), type_, images_, g.out[0].data, slot_of(g.in[0]));
  }

 private:
  Element type_;
  Images images_;
};

}  // namespace

std::unique_ptr<Kernel> make_max_pool2d(const CudaContext&, const MaxPool2d& op, std::span<const TensorDesc> in) {
  return std::make_unique<MaxPoolKernel>(op, in[0]);
}
std::unique_ptr<Kernel> make_average_pool2d(const CudaContext&, const AveragePool2d& op,
                                            std::span<const TensorDesc> in) {
  return std::make_unique<AveragePoolKernel>(op, in[0]);
}
std::unique_ptr<Kernel> make_global_average_pool(const CudaContext&, std::span<const TensorDesc> in) {
  return std::make_unique<GlobalAveragePoolKernel>(in[0]);
}

}  // namespace dtrain::cuda
