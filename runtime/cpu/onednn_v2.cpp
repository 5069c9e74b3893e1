// oneDNN 2.x: an operation descriptor first, then its primitive descriptor.
#include "runtime/cpu/onednn.hpp"

namespace dtrain::cpu {

void append_eltwise(dnnl::post_ops& post, dnnl::algorithm algorithm) {
  post.append_eltwise(1.0f, algorithm, 0.0f, 0.0f);
}

ConvolutionPlans plan_convolution(const dnnl::engine& engine, const LayerShape& s) {
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const LayerDescs d(s);
  ConvolutionPlans plans;
  plans.forward = {{dnnl::prop_kind::forward_training, algorithm, d.in, d.weights, d.bias, d.out, s.stride, s.dilation,
                    s.padding_begin, s.padding_end},
                   forward_attributes(s.activation),
                   engine};
  plans.backward_data = {{algorithm, d.in, d.weights, d.out, s.stride, s.dilation, s.padding_begin, s.padding_end},
                         user_scratchpad(),
                         engine,
                         plans.forward};
  const dnnl::convolution_backward_weights::desc of_weights(algorithm, d.in, d.grad_weights, d.bias, d.out, s.stride,
                                                            s.dilation, s.padding_begin, s.padding_end);
  plans.backward_weights = {of_weights, user_scratchpad(), engine, plans.forward};
  if (s.spare_compiled) spare_compiled(plans.backward_weights);
  return plans;
}

InnerProductPlans plan_inner_product(const dnnl::engine& engine, const LayerShape& s) {
  const LayerDescs d(s);
  InnerProductPlans plans;
  plans.forward = {
      {dnnl::prop_kind::forward_training, d.in, d.weights, d.bias, d.out}, forward_attributes(s.activation), engine};
  plans.backward_data = {{d.in, d.weights, d.out}, user_scratchpad(), engine, plans.forward};
  plans.backward_weights = {{d.in, d.grad_weights, d.bias, d.out}, user_scratchpad(), engine, plans.forward};
  return plans;
}

}  // namespace dtrain::cpu
