// oneDNN 2.x: an operation descriptor first, then its primitive descriptor.
#include "runtime/cpu/onednn.hpp"

namespace dtrain::cpu {

namespace {

dnnl::primitive_attr forward_attributes(Activation activation) {
  dnnl::primitive_attr attr = user_scratchpad();
  if (activation != Activation::none) {
    dnnl::post_ops post;
    post.append_eltwise(1.0f, eltwise_of(activation), 0.0f, 0.0f);
    attr.set_post_ops(post);
  }
  return attr;
}

}  // namespace

ConvolutionPlans plan_convolution(const dnnl::engine& engine, const ConvolutionShape& s) {
  using Format = dnnl::memory::format_tag;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const dnnl::memory::desc in = channels_last_desc(s.in, s.dtype), out = channels_last_desc(s.out, s.dtype);
  const dnnl::memory::desc weights = plain_desc(s.weights, Format::any, s.dtype);
  const dnnl::memory::desc grad_weights = plain_desc(s.weights, Format::any);
  const dnnl::memory::desc bias = s.bias ? plain_desc({s.out[1]}, Format::a) : dnnl::memory::desc();
  ConvolutionPlans plans;
  plans.forward = {{dnnl::prop_kind::forward_training, algorithm, in, weights, bias, out, s.stride, s.dilation,
                    s.padding_begin, s.padding_end},
                   forward_attributes(s.activation),
                   engine};
  plans.backward_data = {{algorithm, in, weights, out, s.stride, s.dilation, s.padding_begin, s.padding_end},
                         user_scratchpad(),
                         engine,
                         plans.forward};
  plans.backward_weights = {
      {algorithm, in, grad_weights, bias, out, s.stride, s.dilation, s.padding_begin, s.padding_end},
      user_scratchpad(),
      engine,
      plans.forward};
  return plans;
}

InnerProductPlans plan_inner_product(const dnnl::engine& engine, const InnerProductShape& s) {
  using Format = dnnl::memory::format_tag;
  const dnnl::memory::desc in = plain_desc({s.n, s.features}, Format::nc, DType::bf16);
  const dnnl::memory::desc out = plain_desc({s.n, s.units}, Format::nc, DType::bf16);
  const dnnl::memory::desc weights = plain_desc({s.units, s.features}, Format::any, DType::bf16);
  const dnnl::memory::desc grad_weights = plain_desc({s.units, s.features}, Format::any);
  const dnnl::memory::desc bias = s.bias ? plain_desc({s.units}, Format::a) : dnnl::memory::desc();
  InnerProductPlans plans;
  plans.forward = {
      {dnnl::prop_kind::forward_training, in, weights, bias, out}, forward_attributes(s.activation), engine};
  plans.backward_data = {{in, weights, out}, user_scratchpad(), engine, plans.forward};
  plans.backward_weights = {{in, grad_weights, bias, out}, user_scratchpad(), engine, plans.forward};
  return plans;
}

}  // namespace dtrain::cpu
