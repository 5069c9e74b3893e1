// Channels of several values behind each other.
#include <vector>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/concat.hpp"

namespace dtrain::cuda {

namespace {

/// Each row (a sample, or a pixel of it) of the output is one row of each input.
class ConcatKernel final : public Kernel {
 public:
  explicit ConcatKernel(std::span<const TensorDesc> in) : type_(element_of(in[0])), rows_(in[0].rows()) {
    for (const TensorDesc& desc : in) widths_.push_back(desc.channels());
    for (const std::int64_t width : widths_) width_ += width;
  }
  void forward(const OpArgs& a, Stream& stream) override {
    auto* to = a.out[0].as<std::byte>();
    for (std::size_t i = 0; i < widths_.size(); to += bytes_of(widths_[i++]))
      copy_rows(at(stream, "concat"), type_, {rows_, widths_[i], widths_[i], width_}, a.in[i].data,
                {to, Put::overwrite});
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    const auto* from = g.out[0].as<const std::byte>();
    for (std::size_t i = 0; i < widths_.size(); from += bytes_of(widths_[i++]))
      if (wanted(g.in[i]))
        copy_rows(at(stream, "concat"), type_, {rows_, widths_[i], width_, widths_[i]}, from, slot_of(g.in[i]));
  }

 private:
  std::size_t bytes_of(std::int64_t width) const {
    return static_cast<std::size_t>(width) * (type_ == Element::f32 ? sizeof(float) : sizeof(std::uint16_t));
  }
  Element type_;
  std::vector<std::int64_t> widths_;
  std::int64_t rows_, width_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Concat&, Inputs in, const OpUse&) {
  return std::make_unique<ConcatKernel>(in);
}

}  // namespace dtrain::cuda
