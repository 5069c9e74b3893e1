// Embedding by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/embedding.hpp"

namespace dtrain::cuda {

namespace {

class EmbeddingKernel final : public Kernel {
 public:
  EmbeddingKernel(const Embedding& op, const TensorDesc& in)
      : type_(element_of(op.dtype)),
        place_{in.elements(), op.vocabulary, op.channels, nullptr, static_cast<int>(size_of(in.dtype))} {}

  void forward(const OpArgs& a, Stream& stream) override {
    embedding(at(stream, name), type_, place(a), a.params[0].as<const float>(), a.out[0].data);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.params[0])) embedding_gradient(at(stream, name), type_, place(a), g.out[0].data, slot_of(g.params[0]));
  }

 private:
  static constexpr const char* name = "embedding";
  EmbeddingPlace place(const OpArgs& a) const {
    EmbeddingPlace p = place_;
    p.indices = a.in[0].data;
    return p;
  }

  Element type_;
  EmbeddingPlace place_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const Embedding& op, Inputs in, const OpUse&) {
  return std::make_unique<EmbeddingKernel>(op, in[0]);
}

}  // namespace dtrain::cuda
