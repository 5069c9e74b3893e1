// Dense layers, and convolutions that look at one pixel, through cuBLASLt. float32 multiplies with the canonical
// weights; halves, and a flattened image's columns, with a packed copy of weights and bias. Gradients of parameters are
// float and added in place.
#include <algorithm>
#include <map>
#include <vector>

#include <fmt/format.h>

#include "runtime/cuda/library/blas_lt.hpp"
#include "runtime/cuda/library/tuner.hpp"
#include "runtime/cuda/op_support.hpp"
#include "runtime/cuda/ops/activate.hpp"
#include "runtime/cuda/ops/cast.hpp"
#include "runtime/cuda/ops/layer_kernels.hpp"

namespace dtrain::cuda {

namespace {

class DenseKernel final : public Kernel {
 public:
  DenseKernel(CudaContext& context, const char* name, const Dense& op, const TensorDesc& in, const OpUse& use)
      : name_(name),
        op_(op),
        dtype_(in.dtype),
        element_(element_of(in)),
        n_(in.rows()),
        features_(in.channels()),
        channels_(in.flattened.channels),
        pixels_(in.flattened.pixels),
        permuted_(in.is_flattened_image() && channels_ > 1 && pixels_ > 1) {
    if (!context.blas) context.blas = make_blas_lt();
    blas_ = context.blas;
    prepare_forward(context);
    if (use.input_gradient) {
      data_ = chosen(context, product(n_, features_, op.units));
      if (!data_) throw none("the gradient of the input");
    }
    if (use.trained && use.params_gradient) prepare_weight_gradient(context);
    place();
  }

  Needs needs() const override { return {workspace_, packed_}; }

  void pack(std::span<const Tensor> master, Tensor packed, Stream& stream) override {
    const Launch where = at(stream, name_);
    auto* base = packed.as<std::byte>();
    const Slot weights{base, Put::overwrite};
    if (permuted_) {
      swap_inner(where, Element::f32, element_, {op_.units, channels_, pixels_}, master[0].data, weights);
    } else {
      cast(where, Element::f32, element_, master[0].data, weights, op_.units * features_);
    }
    if (packs_bias_) cast(where, Element::f32, element_, master[1].data, {base + bias_at_, Put::overwrite}, op_.units);
  }

  std::span<const PackedPart> packed_parts() const override { return parts_; }

  void forward(const OpArgs& a, Stream& stream) override {
    const Launch where = at(stream, name_);
    void* y = a.out[0].data;
    void* bias = op_.bias ? (packs_bias_ ? a.packed.as<std::byte>() + bias_at_ : a.params[1].data) : nullptr;
    forward_->run({a.in[0].data, weights(a), y, bias, false}, workspace_of(a), stream.native());
    if (finishes_bias_ || finish_ != Activation::none) {
      const float* added = finishes_bias_ ? a.params[1].as<const float>() : nullptr;
      bias_activate(where, element_, finish_, n_, op_.units, added, y);
    }
  }

  void backward_activation(const OpArgs& a, Tensor grad_out, Stream& stream) override {
    activation_gradient(at(stream, name_), element_, op_.activation, a.out[0].data, grad_out.data,
                        {grad_out.data, Put::overwrite}, grad_out.elements());
  }

  void backward(const OpArgs& a, const OpGrads& g, Stream& stream) override {
    const void* gy = g.out[0].data;
    if (wanted(g.in, 0)) {
      if (!data_) throw BugError("linear: a gradient that was not to be expected");
      const bool add = g.in[0].write == Write::accumulate;
      data_->run({gy, weights(a), g.in[0].grad.data, nullptr, add}, workspace_of(a), stream.native());
    }
    const bool bias = op_.bias && wanted(g.params, 1);
    if (wanted(g.params, 0)) {
      weight_gradient(a, g, bias, stream);
    } else if (bias) {
      column_sums(at(stream, name_), element_, n_, op_.units, gy, slot_of(g.params[1]), workspace_of(a) + sums_at_);
    }
  }

 private:
  /// gy [N, units] or x [N, features] times the weights as they lie.
  Product product(std::int64_t rows, std::int64_t columns, std::int64_t inner) const {
    Product p;
    p.rows = rows;
    p.columns = columns;
    p.inner = inner;
    p.factors = p.result = dtype_;
    return p;
  }
  DeviceError none(const char* what) const {
    return DeviceError(fmt::format("cuBLASLt has no algorithm for {} of {} with {} units on [{}, {}] in {}", what,
                                   name_, op_.units, n_, features_, name_of(dtype_)));
  }

  void prepare_forward(CudaContext& context) {
    Product p = product(n_, op_.units, features_);
    p.right_transposed = true;
    const bool relu = op_.activation == Activation::relu;
    p.epilogue = op_.bias ? (relu ? Product::Epilogue::bias_relu : Product::Epilogue::bias)
                          : (relu ? Product::Epilogue::relu : Product::Epilogue::none);
    finish_ = relu ? Activation::none : op_.activation;
    forward_ = chosen_if_any(context, p);
    if (!forward_) {
      p.epilogue = Product::Epilogue::none;
      finish_ = op_.activation;
      finishes_bias_ = op_.bias;
      forward_ = chosen(context, p);
    }
    if (!forward_) throw none("forward");
    packs_bias_ = op_.bias && !finishes_bias_ && dtype_ != DType::f32;
  }

  void prepare_weight_gradient(CudaContext& context) {
    Product p = product(op_.units, features_, n_);
    p.left_transposed = true;
    p.result = DType::f32;
    if (op_.bias) {
      p.epilogue = Product::Epilogue::left_sums;
      weights_gradient_ = chosen_if_any(context, p);
      sums_in_product_ = weights_gradient_ != nullptr;
      p.epilogue = Product::Epilogue::none;
    }
    if (!weights_gradient_) weights_gradient_ = chosen(context, p);
    if (!weights_gradient_) throw none("the gradient of the weights");
  }

  /// The plan of a product with the algorithm that is chosen or quickest; null where the library has none.
  std::shared_ptr<ProductPlan> chosen(CudaContext& context, Product p) const {
    p.tf32 = context.options.tf32;
    p.nondeterministic = context.options.nondeterministic;
    const std::vector<std::string> algorithms = blas_->algorithms(p);
    if (algorithms.empty()) return nullptr;
    std::map<std::string, std::shared_ptr<ProductPlan>> plans;
    const auto make = [&](const std::string& algorithm) -> std::optional<Candidate> {
      const std::shared_ptr<ProductPlan> plan = blas_->plan(p, algorithm);
      if (!plan) return std::nullopt;
      plans[algorithm] = plan;
      Offsets at;
      const std::size_t left = at.place(bytes_of(p.rows * p.inner, p.factors));
      const std::size_t right = at.place(bytes_of(p.inner * p.columns, p.factors));
      const std::size_t out = at.place(bytes_of(p.rows * p.columns, p.result));
      const std::size_t vector = at.place(bytes_of(std::max(p.rows, p.columns), DType::f32));
      const std::size_t workspace = at.place(plan->workspace());
      return Candidate{at.end(), [=](std::byte* s, void* stream) {
                         plan->run({s + left, s + right, s + out, s + vector, false}, s + workspace, stream);
                       }};
    };
    return plans.at(choose(context, "cublaslt " + blas_lt_version(), p.key(), algorithms, make));
  }
  /// The same with something fused, which may not run where the heuristics say that it does.
  std::shared_ptr<ProductPlan> chosen_if_any(CudaContext& context, const Product& p) const {
    try {
      return chosen(context, p);
    } catch (const DeviceError&) {
      return nullptr;
    }
  }

  /// The packed copy: weights, then the bias. The workspace of the parameters' gradients: the product's, then a bias
  /// gradient that is not wanted or to be added, weights' gradients in the order of the packed copy, and sums.
  void place() {
    if (permuted_ || dtype_ != DType::f32) {
      Offsets packed;
      parts_.push_back({0, packed.place(bytes_of(op_.units * features_, dtype_)), dtype_, permuted_ ? channels_ : 1,
                        permuted_ ? pixels_ : 1});
      if (packs_bias_) {
        bias_at_ = packed.place(bytes_of(op_.units, dtype_));
        parts_.push_back({1, bias_at_, dtype_});
      }
      packed_ = packed.end();
    }
    Offsets at;
    if (weights_gradient_) {
      at.place(weights_gradient_->workspace());
      if (op_.bias) vector_at_ = at.place(bytes_of(op_.units, DType::f32));
      if (permuted_) weights_at_ = at.place(bytes_of(op_.units * features_, DType::f32));
      if (op_.bias) sums_at_ = at.place(column_sums_bytes(n_, op_.units));
    }
    workspace_ = workspace_need(std::max({forward_->workspace(), data_ ? data_->workspace() : 0, at.end()}));
  }

  const void* weights(const OpArgs& a) const { return packed_ > 0 ? a.packed.data : a.params[0].data; }

  void weight_gradient(const OpArgs& a, const OpGrads& g, bool bias, Stream& stream) {
    const Launch where = at(stream, name_);
    auto* workspace = workspace_of(a);
    const bool direct = bias && g.params[1].write == Write::overwrite;
    void* vector = direct ? g.params[1].grad.data : workspace + vector_at_;
    void* out = permuted_ ? workspace + weights_at_ : g.params[0].grad.data;
    const bool add = !permuted_ && g.params[0].write == Write::accumulate;
    weights_gradient_->run({g.out[0].data, a.in[0].data, out, sums_in_product_ ? vector : nullptr, add}, workspace,
                           stream.native());
    if (permuted_)
      swap_inner(where, Element::f32, Element::f32, {op_.units, pixels_, channels_}, out, slot_of(g.params[0]));
    if (!bias) return;
    if (!sums_in_product_) {
      column_sums(where, element_, n_, op_.units, g.out[0].data, slot_of(g.params[1]), workspace + sums_at_);
    } else if (!direct) {
      cast(where, Element::f32, Element::f32, vector, slot_of(g.params[1]), op_.units);
    }
  }

  const char* name_;  // of the op, in messages
  Dense op_;
  DType dtype_;
  Element element_;
  std::int64_t n_, features_, channels_, pixels_;
  bool permuted_;
  std::vector<PackedPart> parts_;
  std::shared_ptr<BlasLt> blas_;                                    // outlives the plans
  std::shared_ptr<ProductPlan> forward_, data_, weights_gradient_;  // gradients': null where nobody wants them
  Activation finish_ = Activation::none;                            // what the forward product leaves to do
  bool finishes_bias_ = false, packs_bias_ = false, sums_in_product_ = false;
  std::size_t packed_ = 0, bias_at_ = 0, workspace_ = 0, vector_at_ = 0, weights_at_ = 0, sums_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make(CudaContext& context, const Dense& op, Inputs in, const OpUse& use) {
  return std::make_unique<DenseKernel>(context, "dense", op, in[0], use);
}

std::unique_ptr<Kernel> make_product_conv(CudaContext& context, const Conv& op, const TensorDesc& in,
                                          const OpUse& use) {
  const Dense product{.units = op.filters, .bias = op.bias, .activation = op.activation};
  const Shape pixels{in.rows(), in.channels()};
  return std::make_unique<DenseKernel>(context, "conv2d", product, TensorDesc{in.dtype, pixels}, use);
}

}  // namespace dtrain::cuda
