#include "runtime/cpu/onednn.hpp"

#include <fmt/format.h>
#include <omp.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::cpu {

OmpThreads::OmpThreads(int threads) : before_(omp_get_max_threads()) {
  if (before_ != threads) omp_set_num_threads(threads);
}

OmpThreads::~OmpThreads() {
  if (omp_get_max_threads() != before_) omp_set_num_threads(before_);
}

void sgemm(char transpose_a, char transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
           std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  if (dnnl_sgemm(transpose_a, transpose_b, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc) != dnnl_success)
    throw DeviceError(fmt::format("oneDNN cannot multiply matrices of {} x {} x {}", m, n, k));
}

dnnl::memory::data_type data_type_of(DType dtype) {
  if (dtype == DType::f32) return dnnl::memory::data_type::f32;
  if (dtype == DType::bf16) return dnnl::memory::data_type::bf16;
  throw BugError(fmt::format("the cpu's kernels do not compute in {}", name_of(dtype)));
}

dnnl::memory::desc plain_desc(const dnnl::memory::dims& dims, dnnl::memory::format_tag tag, DType dtype) {
  return {dims, data_type_of(dtype), tag};
}

dnnl::memory::desc plain_desc(const dnnl::memory::dims& dims) {
  dnnl::memory::dims strides(dims.size(), 1);
  for (std::size_t i = dims.size() - 1; i > 0; --i) strides[i - 1] = strides[i] * dims[i];
  return {dims, data_type_of(DType::f32), strides};
}

namespace {

/// Channels last: dimensions are batch, channels and up to three positions.
dnnl::memory::desc channels_last_desc(const dnnl::memory::dims& dims, DType dtype) {
  using Format = dnnl::memory::format_tag;
  constexpr Format formats[] = {Format::nc, Format::nwc, Format::nhwc, Format::ndhwc};
  return plain_desc(dims, formats[dims.size() - 2], dtype);
}

dnnl::algorithm eltwise_of(Activation activation) {
  if (activation == Activation::relu) return dnnl::algorithm::eltwise_relu;
  if (activation == Activation::tanh) return dnnl::algorithm::eltwise_tanh;
  if (activation == Activation::sigmoid) return dnnl::algorithm::eltwise_logistic;
  throw BugError(fmt::format("{} cannot be applied inside another kernel", name_of(activation)));
}

}  // namespace

LayerDescs::LayerDescs(const LayerShape& s)
    : in(channels_last_desc(s.in, s.dtype)),
      out(channels_last_desc(s.out, s.dtype)),
      weights(plain_desc(s.weights, dnnl::memory::format_tag::any, s.dtype)),
      grad_weights(plain_desc(s.weights, dnnl::memory::format_tag::any)) {
  if (s.bias) bias = plain_desc({s.out[1]}, dnnl::memory::format_tag::a);
}

dnnl::primitive_attr forward_attributes(Activation activation) {
  dnnl::primitive_attr attr = user_scratchpad();
  if (activation != Activation::none) {
    dnnl::post_ops post;
    append_eltwise(post, eltwise_of(activation));
    attr.set_post_ops(post);
  }
  return attr;
}

void spare_compiled(dnnl::convolution_backward_weights::primitive_desc& plan) {
  while (std::string_view(plan.impl_info_str()).starts_with("jit") && plan.next_impl()) continue;
}

dnnl::primitive_attr user_scratchpad() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

Execution::Execution(const dnnl::engine& engine, dnnl::primitive primitive, const std::vector<Argument>& arguments)
    : primitive_(std::move(primitive)) {
  for (const auto& [argument, desc] : arguments) {
    memories_.emplace_back(desc, engine, nullptr);
    arguments_.push_back({argument, memories_.back().get()});
  }
}

void Execution::run(const dnnl::stream& stream, std::initializer_list<const void*> addresses) {
  std::size_t i = 0;
  for (const void* address : addresses) memories_[i++].set_data_handle(const_cast<void*>(address));
  // The C call: the C++ one builds a map of arguments each time.
  const dnnl_status_t status =
      dnnl_primitive_execute(primitive_.get(), stream.get(), static_cast<int>(arguments_.size()), arguments_.data());
  if (status != dnnl_success) throw DeviceError(fmt::format("oneDNN failed with status {}", static_cast<int>(status)));
}

Reorder::Reorder(const dnnl::engine& engine, const dnnl::memory::desc& from, const dnnl::memory::desc& to, bool add) {
  dnnl::primitive_attr attr = user_scratchpad();
  if (add) {
    dnnl::post_ops post;
    post.append_sum(1.0f);
    attr.set_post_ops(post);
  }
  const dnnl::reorder::primitive_desc desc(engine, from, engine, to, attr);
  scratchpad_ = desc.scratchpad_desc().get_size();
  execution_ = Execution(engine, dnnl::reorder(desc),
                         {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}, {DNNL_ARG_SCRATCHPAD, desc.scratchpad_desc()}});
}

void Reorder::run(const dnnl::stream& stream, const void* from, void* to, void* scratch) {
  execution_.run(stream, {from, to, scratch});
}

}  // namespace dtrain::cpu
