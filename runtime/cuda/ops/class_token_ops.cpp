// A trained row in front of the positions, by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/class_token.hpp"
#include "runtime/cuda/ops/concat.hpp"
#include "runtime/cuda/ops/positions.hpp"

namespace dtrain::cuda {

namespace {

class ClassTokenKernel final : public Kernel {
 public:
  explicit ClassTokenKernel(const TensorDesc& in)
      : type_(element_of(in)),
        size_(size_of(in.dtype)),
        channels_(in.channels()),
        shape_{in.batch(), in.positions() * in.channels()} {}

  void forward(const OpArgs& a, Stream& stream) override {
    prepend_row(at(stream, name), type_, shape_, channels_, a.in[0].data, a.params[0].as<const float>(), a.out[0].data);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    const std::int64_t elements = shape_.channels, whole = channels_ + elements;
    const auto* gy = g.out[0].as<const std::byte>();
    if (wanted(g.params, 0))
      positions_gradient(at(stream, name), type_, {shape_.rows, whole}, channels_, gy, slot_of(g.params[0]));
    if (wanted(g.in, 0))
      copy_rows(at(stream, name), type_, {shape_.rows, elements, whole, elements},
                gy + static_cast<std::size_t>(channels_) * size_, slot_of(g.in[0]));
  }

 private:
  static constexpr const char* name = "class_token";
  Element type_;
  std::size_t size_;
  std::int64_t channels_;
  Matrix shape_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const ClassToken&, Inputs in, const OpUse&) {
  return std::make_unique<ClassTokenKernel>(in[0]);
}

}  // namespace dtrain::cuda
