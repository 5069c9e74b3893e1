// The kernels beside linear layers and convolutions: swapped axes and back, sums of columns against double precision,
// bias and activation against one element at a time. That the order is the CPU device's, the op table shows.
#include "runtime/cuda/ops/layer_kernels.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/ops/activation_math.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::cuda {
namespace {

constexpr Launch where{nullptr, "a test"};

std::vector<float> numbers(std::int64_t n) {
  std::vector<float> out(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = std::sin(static_cast<float>(i) * 0.7f) * 3;
  return out;
}

TEST(SwapInner, brings_channel_pixel_into_pixel_channel_order) {
  for (const auto& [outer, channels, pixels] :
       {Swap{3, 5, 4}, Swap{2, 64, 49}, Swap{1, 33, 31}, Swap{4, 1, 9}, Swap{4, 9, 1}, Swap{2, 70, 3}}) {
    const std::vector<float> from = numbers(outer * channels * pixels);
    std::vector<Bf16> expected(from.size()), out(from.size(), Bf16{0x7FC0});
    for (std::int64_t o = 0, at = 0; o < outer; ++o)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t p = 0; p < pixels; ++p, ++at)
          expected[static_cast<std::size_t>((o * pixels + p) * channels + c)] =
              to_bf16(from[static_cast<std::size_t>(at)]);
    swap_inner(where, Element::f32, Element::bf16, {outer, channels, pixels}, from.data(),
               {out.data(), Put::overwrite});
    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i].bits, expected[i].bits) << i;
  }
}

TEST(SwapInner, twice_leads_back_and_adds_where_it_is_to) {
  const Swap there{6, 37, 9}, back{6, 9, 37};
  const std::vector<float> from = numbers(6 * 37 * 9);
  std::vector<F16> packed(from.size());
  std::vector<float> out(from.size(), 100.0f);
  swap_inner(where, Element::f32, Element::f16, there, from.data(), {packed.data(), Put::overwrite});
  swap_inner(where, Element::f16, Element::f32, back, packed.data(), {out.data(), Put::add});
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], 100.0f + to_float(to_f16(from[i]))) << i;
  swap_inner(where, Element::f16, Element::f32, back, packed.data(), {out.data(), Put::none});
  ASSERT_EQ(out[0], 100.0f + to_float(to_f16(from[0])));
}

TEST(ColumnSums, are_those_of_double_precision) {
  for (const auto& [rows, columns] :
       {std::pair<std::int64_t, std::int64_t>{1, 1}, {7, 10}, {255, 33}, {1000, 64}, {5000, 3}}) {
    const std::vector<float> x = numbers(rows * columns);
    std::vector<std::byte> workspace(column_sums_bytes(rows, columns));
    std::vector<float> out(static_cast<std::size_t>(columns), 1.0f);
    column_sums(where, Element::f32, rows, columns, x.data(), {out.data(), Put::overwrite}, workspace.data());
    for (std::int64_t c = 0; c < columns; ++c) {
      double sum = 0, size = 0;
      for (std::int64_t r = 0; r < rows; ++r) {
        const double v = x[static_cast<std::size_t>(r * columns + c)];
        sum += v;
        size += std::abs(v);
      }
      ASSERT_NEAR(out[static_cast<std::size_t>(c)], sum, 1e-6 * size) << rows << ' ' << c;
    }
    std::vector<float> added(static_cast<std::size_t>(columns), 2.0f);
    column_sums(where, Element::f32, rows, columns, x.data(), {added.data(), Put::add}, workspace.data());
    for (std::size_t c = 0; c < added.size(); ++c) ASSERT_EQ(added[c], 2.0f + out[c]);
  }
}

TEST(BiasActivate, is_each_element_alone) {
  for (const std::int64_t columns : {5, 16}) {
    constexpr std::int64_t rows = 9;
    const std::vector<float> x = numbers(rows * columns), bias = numbers(columns);
    std::vector<Bf16> y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) y[i] = to_bf16(x[i]);
    const std::vector<Bf16> before = y;
    bias_activate(where, Element::bf16, Activation::tanh, rows, columns, bias.data(), y.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      const float v = to_float(before[i]) + bias[i % static_cast<std::size_t>(columns)];
      ASSERT_EQ(y[i].bits, to_bf16(dtrain::activate<Activation::tanh>(v)).bits) << i;
    }
    y = before;
    bias_activate(where, Element::bf16, Activation::relu, rows, columns, nullptr, y.data());
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_EQ(y[i].bits, to_bf16(dtrain::activate<Activation::relu>(to_float(before[i]))).bits) << i;
  }
}

}  // namespace
}  // namespace dtrain::cuda
