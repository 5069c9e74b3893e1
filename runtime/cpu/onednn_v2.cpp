// oneDNN 2.x: an operation descriptor first, then its primitive descriptor.
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
    post.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
    forward_attr.set_post_ops(post);
  }
  ConvolutionPlans plans;
  plans.forward = {
      {dnnl::prop_kind::forward_training, algorithm, in, weights, bias, out, s.stride, s.padding_begin, s.padding_end},
      forward_attr,
      engine};
  plans.backward_data = {{algorithm, in, weights, out, s.stride, s.padding_begin, s.padding_end},
                         user_scratchpad(),
                         engine,
                         plans.forward};
  plans.backward_weights = {{algorithm, in, weights, bias, out, s.stride, s.padding_begin, s.padding_end},
                            user_scratchpad(),
                            engine,
                            plans.forward};
  return plans;
}

}  // namespace dtrain::cpu
