// Dense layers in bf16 through oneDNN's inner product: packed bf16 weights in the library's formats, f32 accumulation,
// f32 gradients of parameters.
#include "runtime/cpu/ops/dense_weights.hpp"
#include "runtime/cpu/ops/in_float.hpp"
#include "runtime/cpu/ops/weighted.hpp"

namespace dtrain::cpu {

namespace {

WeightedOp weighted_product(const Dense& op, const TensorDesc& in, int threads) {
  const OmpThreads scope(threads);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const std::int64_t n = in.rows(), features = in.channels();
  const auto plans = plan_inner_product(
      engine, {{n, features}, {op.units, features}, {n, op.units}, op.bias, op.activation, DType::bf16});
  const auto canonical = plain_desc({op.units, features}, dnnl::memory::format_tag::oi);
  const auto ordered = plain_desc({op.units, features}, dnnl::memory::format_tag::oi, DType::bf16);
  const bool permuted = in.is_flattened_image();
  WeightedOp run(engine, plans, permuted ? ordered : canonical, canonical, op.bias, DType::bf16, threads);
  if (permuted) run.permute(op.units, in.flattened.channels, in.flattened.pixels);
  return run;
}

}  // namespace

std::unique_ptr<Kernel> make_dense_bf16(const Dense& op, const TensorDesc& in, int threads) {
  try {
    return make_weighted(weighted_product(op, in, threads), op.activation, threads);
  } catch (const dnnl::error&) {
    return make_in_float(op, in, threads);
  }
}

}  // namespace dtrain::cpu
