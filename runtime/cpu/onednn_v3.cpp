// oneDNN 3.x: primitive descriptors are made directly.
#include "runtime/cpu/onednn.hpp"

namespace dtrain::cpu {

ConvolutionPlans plan_convolution(const dnnl::engine& engine, const ConvolutionShape& s) {
  using Format = dnnl::memory::format_tag;
  const auto algorithm = dnnl::algorithm::convolution_direct;
  const dnnl::memory::desc in = plain_desc(s.in, Format::nhwc), out = plain_desc(s.out, Format::nhwc);
  const dnnl::memory::desc weights = plain_desc(s.weights, Format::any);
  const dnnl::memory::desc bias = s.bias ? plain_desc({s.weights[0]}, Format::a) : dnnl::memory::desc();
  dnnl::primitive_attr forward_attr = user_scratchpad();
  if (s.relu) {
    dnnl::post_ops post;
    post.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
    forward_attr.set_post_ops(post);
  }
  ConvolutionPlans plans;
  plans.forward =
      dnnl::convolution_forward::primitive_desc(engine, dnnl::prop_kind::forward_training, algorithm, in, weights, bias,
                                                out, s.stride, s.padding_begin, s.padding_end, forward_attr);
  plans.backward_data = dnnl::convolution_backward_data::primitive_desc(
      engine, algorithm, in, weights, out, s.stride, s.padding_begin, s.padding_end, plans.forward, user_scratchpad());
  plans.backward_weights = dnnl::convolution_backward_weights::primitive_desc(engine, algorithm, in, weights, bias, out,
                                                                              s.stride, s.padding_begin, s.padding_end,
                                                                              plans.forward, user_scratchpad());
  return plans;
}

}  // namespace dtrain::cpu
