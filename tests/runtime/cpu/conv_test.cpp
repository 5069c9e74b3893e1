// Convolutions of the CPU on shapes that common networks have not: gradients of weights against plain loops.
// oneDNN 2.6.3 gives garbage for each of these shapes, in one type or both, where its compiled kernels are not spared.
#include <array>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/ops/inference.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using Axes = std::array<std::int64_t, 3>;

/// The outermost axes of a series or an image are missing.
Axes axes(const Extents& of, std::int64_t missing) {
  Axes all{missing, missing, missing};
  for (std::size_t d = 0; d < of.size(); ++d) all.at(3 - of.size() + d) = of[d];
  return all;
}
std::int64_t product(const Axes& of) {
  return of[0] * of[1] * of[2];
}
Axes place(std::int64_t i, const Axes& box) {
  return {i / box[2] / box[1], i / box[2] % box[1], i % box[2]};
}

/// Of values in memory's order; the gradient is canonical.
std::vector<float> weight_gradient(const Conv& op, const TensorDesc& in, const std::vector<float>& x,
                                   const std::vector<float>& gy) {
  const Axes from = axes(inference::positions_of(in), 1), kernel = axes(op.kernel, 1), stride = axes(op.stride, 1);
  const Axes padding = axes(op.pads(), 0), dilation = axes(op.dilation, 1);
  const Axes to = axes(inference::positions_of(op.infer({&in, 1}).out[0]), 1);
  const std::int64_t c = in.channels(), of_group = c / op.groups, filters_of_group = op.filters / op.groups;
  std::vector<double> sums(static_cast<std::size_t>(op.filters * of_group * product(kernel)));
  for (std::int64_t window = 0; window < in.batch() * product(to); ++window) {
    for (std::int64_t tap = 0; tap < product(kernel); ++tap) {
      std::int64_t pixel = window / product(to);
      bool there = true;
      for (std::size_t d = 0; d < 3; ++d) {
        const std::int64_t at = place(window % product(to), to)[d] * stride[d] + place(tap, kernel)[d] * dilation[d];
        there = there && at >= padding[d] && at - padding[d] < from[d];
        pixel = pixel * from[d] + at - padding[d];
      }
      for (std::int64_t i = 0; there && i < op.filters * of_group; ++i) {
        const std::int64_t f = i / of_group, channel = f / filters_of_group * of_group + i % of_group;
        sums[static_cast<std::size_t>(i * product(kernel) + tap)] +=
            static_cast<double>(x[static_cast<std::size_t>(pixel * c + channel)]) *
            static_cast<double>(gy[static_cast<std::size_t>(window * op.filters + f)]);
      }
    }
  }
  return {sums.begin(), sums.end()};
}

TEST(CpuConv, gradients_of_weights_are_right_for_wide_steps_and_wide_padding) {
  struct Row {
    Conv op;
    Shape in;
  };
  const std::vector<Row> rows{
      {{8, {3, 3}, {2, 2}, {1, 1}, false}, Shape{2, 1, 1, 8}},
      {{8, {3, 3}, {2, 2}, {1, 1}, false}, Shape{2, 5, 1, 8}},
      {{6, {5, 5}, {2, 2}, {2, 2}, false}, Shape{3, 1, 1, 4}},
      {{5, {2}, {3}, {1}, false, Activation::none, {1}, 5}, Shape{3, 2, 5}},
      {{28, {3}, {4}, {2}, false, Activation::none, {1}, 2}, Shape{2, 1, 12}},
      {{1, {1, 5}, {1, 4}, {0, 3}, false}, Shape{2, 3, 3, 10}},
      {{18, {5, 3}, {3, 2}, {2, 1}, false, Activation::none, {1, 1}, 3}, Shape{1, 5, 1, 60}},
      {{27, {5, 2, 1}, {2, 2, 2}, {3, 0, 0}, false, Activation::none, {1, 1, 2}, 3}, Shape{1, 4, 3, 4, 45}},
      {{6, {5, 1, 3}, {2, 2, 2}, {3, 0, 1}, false, Activation::none, {1, 1, 1}}, Shape{3, 5, 1, 1, 6}},
      {{9, {5, 1, 4}, {2, 4, 3}, {3, 0, 0}, false, Activation::none, {1, 1, 1}, 9}, Shape{1, 1, 1, 4, 9}},
      {{18, {5, 5, 3}, {3, 1, 1}, {2, 2, 2}, false, Activation::none, {1, 1, 1}}, Shape{2, 1, 1, 4, 19}},
      {{4, {3, 3, 3}, {3, 3, 3}, {1, 1, 1}, false, Activation::none, {1, 1, 1}}, Shape{4, 4, 4, 7, 6}},
      {{7, {3, 3, 3}, {2, 1, 2}, {1, 0, 0}, false, Activation::none, {1, 1, 1}}, Shape{2, 3, 6, 5, 2}},
      {{5, {4, 4, 3}, {1, 2, 4}, {1, 1, 0}, false, Activation::none, {1, 1, 1}}, Shape{3, 7, 2, 6, 1}},
      {{3, {3, 5, 5}, {1, 1, 1}, {0, 2, 0}, false, Activation::none, {1, 1, 1}}, Shape{1, 4, 1, 5, 11}},
      {{6, {7, 7, 7}, {2, 1, 1}, {3, 3, 3}, false, Activation::none, {1, 1, 1}}, Shape{2, 7, 7, 8, 13}},
  };
  for (const Row& row : rows) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const auto cpu = make_cpu_device(1);
      test::OpRun run(*cpu, test::in_dtype({"conv", 130, row.op, {DType::f32, row.in}}, dtype));
      run.grad_out = test::rounded_to(DType::bf16, run.grad_out);
      run.forward();
      run.backward(Write::overwrite, Write::overwrite);
      const TensorDesc in{DType::f32, row.in};
      const auto expected = weight_gradient(row.op, in, test::to_memory(in, run.x),
                                            test::to_memory(row.op.infer({&in, 1}).out[0], run.grad_out));
      EXPECT_LE(test::relative_error(run.grad_param(0), expected), 1e-5) << row.in.str() << ' ' << name_of(dtype);
    }
  }
}

}  // namespace
}  // namespace dtrain
