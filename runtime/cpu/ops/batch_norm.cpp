// Batch normalization of one micro batch.
#include "runtime/cpu/ops/normalization.hpp"

namespace dtrain::cpu {

namespace {

template <class T>
class BatchNormKernel final : public NormalizationKernel<T> {
 public:
  BatchNormKernel(const BatchNorm& op, const TensorDesc& in, int threads)
      : NormalizationKernel<T>(op, in, threads), frozen_(op.frozen_statistics) {}

  void forward(const OpArgs& a, Stream&) override {
    const Lines& lines = this->lines_;
    if (this->keeps(a) && frozen_)
      this->keep_running_statistics(a);
    else if (this->keeps(a))
      this->keep_statistics(a, sum_moments(lines, this->threads_, a.workspace.data, a.in[0].as<T>()),
                            static_cast<double>(lines.rows()));
    this->normalize(a);
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream&) override {
    const T* gy = g.out[0].as<T>();
    const Normalized<T> v = this->normalized(a, true);
    const bool sums_needed = !frozen_ || wanted(g.params, 0) || wanted(g.params, 1);
    const float* sums = sums_needed ? this->params_gradient(a, v, gy, g.params) : nullptr;
    if (wanted(g.in, 0)) this->data_gradient(a, v, sums, gy, g.in[0], frozen_);
  }

 private:
  bool frozen_;  // the statistics
};

}  // namespace

std::unique_ptr<Kernel> make(const BatchNorm& op, Inputs in, int threads) {
  return make_for<BatchNormKernel>(in[0].dtype, op, in[0], threads);
}

}  // namespace dtrain::cpu
