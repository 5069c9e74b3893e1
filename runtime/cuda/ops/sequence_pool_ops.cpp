// One row for a sequence, by own kernels.
#include <memory>

#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/sequence_pool.hpp"

namespace dtrain::cuda {

namespace {

class SequencePoolKernel final : public Kernel {
 public:
  SequencePoolKernel(const SequencePool& op, Inputs in)
      : type_(element_of(in[0])),
        images_(images_of(in[0])),
        first_(op.take == SequencePool::Take::first),
        documents_(in.size() > 1) {}

  void forward(const OpArgs& a, Stream& stream) override {
    sequence_pool(at(stream, name), type_, images_, first_, documents_of(a), a.in[0].data, a.out[0].data);
  }
  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    if (wanted(g.in[0]))
      sequence_pool_gradient(at(stream, name), type_, images_, first_, documents_of(a), g.out[0].data,
                             slot_of(g.in[0]));
  }

 private:
  const std::int32_t* documents_of(const OpArgs& a) const {
    return documents_ ? a.in[1].as<const std::int32_t>() : nullptr;
  }

  static constexpr const char* name = "sequence_pool";
  Element type_;
  Images images_;
  bool first_, documents_;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext&, const SequencePool& op, Inputs in, const OpUse&) {
  return std::make_unique<SequencePoolKernel>(op, in);
}

}  // namespace dtrain::cuda
