// oneDNN 3.x: primitive descriptors are made directly.
#include "runtime/cpu/onednn.hpp"

namespace dtrain::cpu {

void append_eltwise(dnnl::post_ops& post, dnnl::algorithm algorithm) {
  post.append_eltwise(algorithm, 0.0f, 0.0f);
}

ConvolutionPlans plan_convolution(const dnnl::engine& engine, const LayerShape& s) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const LayerDescs d(s);
  ConvolutionPlans plans;
  plans.forward = dnnl::convolution_forward::primitive_desc(
      engine, dnnl::prop_kind::forward_training, algorithm, d.in, d.weights, d.bias, d.out, s.stride, s.dilation,
      s.padding_begin, s.padding_end, forward_attributes(s.activation));
  plans.backward_data =
      dnnl::convolution_backward_data::primitive_desc(engine, algorithm, d.in, d.weights, d.out, s.stride, s.dilation,
                                                      s.padding_begin, s.padding_end, plans.forward, user_scratchpad());
  plans.backward_weights = dnnl::convolution_backward_weights::primitive_desc(
      engine, algorithm, d.in, d.grad_weights, d.bias, d.out, s.stride, s.dilation, s.padding_begin, s.padding_end,
      plans.forward, user_scratchpad());
  if (s.spare_compiled) spare_compiled(plans.backward_weights);
  return plans;
}

InnerProductPlans plan_inner_product(const dnnl::engine& engine, const LayerShape& s) {
  const LayerDescs d(s);
  InnerProductPlans plans;
  plans.forward = dnnl::inner_product_forward::primitive_desc(
      engine, dnnl::prop_kind::forward_training, d.in, d.weights, d.bias, d.out, forward_attributes(s.activation));
  plans.backward_data = dnnl::inner_product_backward_data::primitive_desc(engine, d.in, d.weights, d.out, plans.forward,
                                                                          user_scratchpad());
  plans.backward_weights = dnnl::inner_product_backward_weights::primitive_desc(
      engine, d.in, d.grad_weights, d.bias, d.out, plans.forward, user_scratchpad());
  return plans;
}

}  // namespace dtrain::cpu
