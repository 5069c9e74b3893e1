// Ops that go element by element: activations, sums, products of equal shapes, casts, concatenation and dropout.
#include <cmath>
#include <vector>

#include "runtime/cuda/op_support.hpp"

namespace dtrain::cuda {

namespace {

class ActivateKernel final : public Kernel {
 public:
  ActivateKernel(const Activate& op, const TensorDesc& in) : kind_(op.kind), type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    activate(at(stream, name_of(kind_)), type_, kind_, a.in[0].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0])) return;
    const void* seen = derivative_of_output(kind_) ? a.out[0].data : a.in[0].data;
    activation_gradient(at(stream, name_of(kind_)), type_, kind_, seen, g.out[0].data, slot_of(g.in[0]), n_);
  }

 private:
  Activation kind_;
  Element type_;
  std::int64_t n_;
};

class AddKernel final : public Kernel {
 public:
  AddKernel(const Add& op, const TensorDesc& in) : kind_(op.activation), type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    add(at(stream, "add"), type_, kind_, a.in[0].data, a.in[1].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const void* gy = g.out[0].data;
    Slot slots[2] = {slot_of(g.in[0]), slot_of(g.in[1])};
    for (Slot& slot : slots)  // already there
      if (kind_ == Activation::none && slot.put == Put::overwrite && slot.to == gy) slot.put = Put::none;
    if (slots[0].put == Put::none && slots[1].put == Put::none) return;
    add_gradient(at(stream, "add"), type_, kind_, a.out[0].data, gy, slots[0], slots[1], n_);
  }

 private:
  Activation kind_;
  Element type_;
  std::int64_t n_;
};

class MultiplyKernel final : public Kernel {
 public:
  explicit MultiplyKernel(const TensorDesc& in) : type_(element_of(in)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    multiply(at(stream, "multiply"), type_, a.in[0].data, a.in[1].data, a.out[0].data, n_);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0]) && !wanted(g.in[1])) return;
    multiply_gradient(at(stream, "multiply"), type_, a.in[0].data, a.in[1].data, g.out[0].data, slot_of(g.in[0]),
                      slot_of(g.in[1]), n_);
  }

 private:
  Element type_;
  std::int64_t n_;
};

/// Squeeze and excitation: a[n, pixel, c] * b[n, c].
class ScaleChannelsKernel final : public Kernel {
 public:
  explicit ScaleChannelsKernel(const TensorDesc& in) : type_(element_of(in)), images_(images_of(in)) {}
  void forward(const OpArgs& a, Stream& stream) override {
    scale_channels(at(stream, "multiply"), type_, images_, a.in[0].data, a.in[1].data, a.out[0].data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (!wanted(g.in[0]) && !wanted(g.in[1])) return;
    scale_channels_gradient(at(stream, "multiply"), type_, images_, a.in[0].data, a.in[1].data, g.out[0].data,
                            slot_of(g.in[0]), slot_of(g.in[1]));
  }

 private:
  Element type_;
  Images images_;
};

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

class CastKernel final : public Kernel {
 public:
  CastKernel(const Cast& op, const TensorDesc& in) : from_(element_of(in)), to_(element_of(op.to)), n_(in.elements()) {}
  void forward(const OpArgs& a, Stream& stream) override {
    cast(at(stream, "cast"), from_, to_, a.in[0].data, {a.out[0].data, Put::overwrite}, n_);
  }
  void backward(const OpArgs&, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0])) cast(at(stream, "cast"), to_, from_, g.out[0].data, slot_of(g.in[0]), n_);
  }

 private:
  Element from_, to_;
  std::int64_t n_;
};

class DropoutKernel final : public Kernel {
 public:
  DropoutKernel(const Dropout& op, const TensorDesc& in)
      : type_(element_of(in)),
        shape_{in.shape[0],
               in.elements() / in.shape[0],
               op.id,
               static_cast<std::uint32_t>(std::ceil(op.rate * 0x1p24)),
               static_cast<float>(1.0 / (1.0 - op.rate)),
               op.whole_sample} {}
  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, "dropout");
    if (a.pass.mode == Mode::evaluate) {
      if (a.in[0].data != a.out[0].data)
        cast(where, type_, type_, a.in[0].data, {a.out[0].data, Put::overwrite}, shape_.samples * shape_.features);
      return;
    }
    dropout(where, type_, shape_, &a.step, a.positions[0].as<const std::uint64_t>(), a.in[0].data, a.out[0].data,
            a.saved[0].as<std::uint8_t>());
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      dropout_gradient(at(stream, "dropout"), type_, shape_, a.saved[0].as<const std::uint8_t>(), g.out[0].data,
                       slot_of(g.in[0]));
  }

 private:
  Element type_;
  DropoutShape shape_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Activate& op, Inputs in, const OpUse&) {
  return std::make_unique<ActivateKernel>(op, in[0]);
}
std::unique_ptr<Kernel> make(CudaContext&, const Add& op, Inputs in, const OpUse&) {
  return std::make_unique<AddKernel>(op, in[0]);
}
std::unique_ptr<Kernel> make(CudaContext&, const Multiply&, Inputs in, const OpUse&) {
  if (in[0].shape == in[1].shape) return std::make_unique<MultiplyKernel>(in[0]);
  return std::make_unique<ScaleChannelsKernel>(in[0]);
}
std::unique_ptr<Kernel> make(CudaContext&, const Concat&, Inputs in, const OpUse&) {
  return std::make_unique<ConcatKernel>(in);
}
std::unique_ptr<Kernel> make(CudaContext&, const Cast& op, Inputs in, const OpUse&) {
  return std::make_unique<CastKernel>(op, in[0]);
}
std::unique_ptr<Kernel> make(CudaContext&, const Dropout& op, Inputs in, const OpUse&) {
  return std::make_unique<DropoutKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
