// What CUDA's linear layers and convolutions tell their libraries, checked without either: shapes as columns, names,
// the choice among measured times.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/cuda/library/blas_lt.hpp"
#include "runtime/cuda/library/cudnn_graphs.hpp"
#include "runtime/cuda/library/tuner.hpp"
#include "runtime/tensor/error.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::cuda {
namespace {

using Matrix = std::vector<double>;  // row by row

double at(const Matrix& m, std::int64_t rows, std::int64_t columns, bool transposed, std::int64_t i, std::int64_t j) {
  return m[static_cast<std::size_t>(transposed ? j * rows + i : i * columns + j)];
}

/// What a library that counts columns first computes from the same addresses.
Matrix by_columns(const ColumnMajorProduct& c, const Matrix& a, const Matrix& b) {
  Matrix d(static_cast<std::size_t>(c.m * c.n));
  const auto element = [](const Matrix& m, std::int64_t rows, bool transposed, std::int64_t i, std::int64_t j) {
    return m[static_cast<std::size_t>(transposed ? i * rows + j : j * rows + i)];
  };
  for (std::int64_t j = 0; j < c.n; ++j)
    for (std::int64_t i = 0; i < c.m; ++i)
      for (std::int64_t k = 0; k < c.k; ++k)
        d[static_cast<std::size_t>(j * c.m + i)] +=
            element(a, c.a_rows, c.a_transposed, i, k) * element(b, c.b_rows, c.b_transposed, k, j);
  return d;
}

TEST(Product, as_columns_gives_the_product_of_rows) {
  constexpr std::int64_t rows = 3, columns = 5, inner = 4;
  Matrix left(rows * inner), right(inner * columns);
  for (std::size_t i = 0; i < left.size(); ++i) left[i] = static_cast<double>(i * i % 7) - 2;
  for (std::size_t i = 0; i < right.size(); ++i) right[i] = static_cast<double>(i * 5 % 11) - 4;
  for (const bool left_transposed : {false, true}) {
    for (const bool right_transposed : {false, true}) {
      Product p;
      p.rows = rows;
      p.columns = columns;
      p.inner = inner;
      p.left_transposed = left_transposed;
      p.right_transposed = right_transposed;
      const ColumnMajorProduct c = column_major(p);
      EXPECT_EQ(c.a_rows * c.a_columns, inner * columns);
      EXPECT_EQ(c.b_rows * c.b_columns, rows * inner);
      const Matrix out = by_columns(c, right, left);
      for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t j = 0; j < columns; ++j) {
          double expected = 0;
          for (std::int64_t k = 0; k < inner; ++k)
            expected +=
                at(left, rows, inner, left_transposed, i, k) * at(right, inner, columns, right_transposed, k, j);
          EXPECT_EQ(out[static_cast<std::size_t>(i * columns + j)], expected) << i << ' ' << j;
        }
      }
    }
  }
}

TEST(Product, different_products_have_different_names) {
  std::set<std::string> names;
  Product p;
  p.rows = 128;
  p.columns = 10;
  p.inner = 784;
  names.insert(p.key());
  for (const auto& change : std::vector<void (*)(Product&)>{
           [](Product& o) { o.rows = 64; }, [](Product& o) { o.columns = 784, o.inner = 10; },
           [](Product& o) { o.left_transposed = true; }, [](Product& o) { o.right_transposed = true; },
           [](Product& o) { o.factors = DType::bf16; }, [](Product& o) { o.result = DType::f16; },
           [](Product& o) { o.epilogue = Product::Epilogue::bias; },
           [](Product& o) { o.epilogue = Product::Epilogue::left_sums; }, [](Product& o) { o.tf32 = true; },
           [](Product& o) { o.nondeterministic = true; }}) {
    Product other = p;
    change(other);
    EXPECT_TRUE(names.insert(other.key()).second) << other.key();
  }
  EXPECT_EQ(p.key(), "product float32 float32 128x10x784 nn");
}

TEST(Algorithms, bytes_survive_as_digits) {
  const std::array<unsigned char, 4> bytes{0x00, 0xFF, 0x1A, 0xB0};
  const std::string text = hexadecimal(bytes.data(), bytes.size());
  EXPECT_EQ(text, "00ff1ab0");
  std::array<unsigned char, 4> back{};
  EXPECT_TRUE(from_hexadecimal(text, back.data(), back.size()));
  EXPECT_EQ(back, bytes);
  for (const char* wrong : {"", "00ff1a", "00ff1ab000", "00FF1AB0", "00ff1ag0", "eng7_k24"}) {
    std::array<unsigned char, 4> kept = bytes;
    EXPECT_FALSE(from_hexadecimal(wrong, kept.data(), kept.size())) << wrong;
    EXPECT_EQ(kept, bytes);
  }
}

TEST(Algorithms, the_librarys_favourite_has_to_be_beaten_clearly) {
  constexpr double failed = std::numeric_limits<double>::infinity();
  const auto best = [](std::vector<double> times) { return quickest(times); };
  EXPECT_EQ(best({1.0, 0.98, 1.2}), 0u);
  EXPECT_EQ(best({1.0, 0.9, 0.89}), 1u);
  EXPECT_EQ(best({failed, 2.0, 1.0}), 2u);
  EXPECT_EQ(best({1.0, failed}), 0u);
  EXPECT_THROW(best({failed, failed}), DeviceError);
  EXPECT_THROW(best({}), DeviceError);
}

TEST(Algorithms, operands_follow_each_other_on_multiples_of_256_bytes) {
  Offsets at;
  EXPECT_EQ(at.place(1), 0u);
  EXPECT_EQ(at.place(0), 256u);
  EXPECT_EQ(at.place(257), 256u);
  EXPECT_EQ(at.end(), 768u);
}

TEST(Algorithms, are_measured_on_numbers_that_every_float_type_has) {
  std::set<std::uint16_t> halves, far;
  double sum = 0, squares = 0;
  constexpr int n = 10000;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint16_t half = scratch_number(i);
    halves.insert(half);
    const std::uint32_t word = std::uint32_t{scratch_number(i | 1)} << 16 | half;
    for (const float v : {to_float(Bf16{half}), to_float(F16{half}), std::bit_cast<float>(word)}) {
      EXPECT_GT(std::abs(v), 0.007f);
      EXPECT_LT(std::abs(v), 2.0f);
    }
    far.insert(scratch_number(i, true));
    const auto v = static_cast<double>(to_float(Bf16{scratch_number(i, true)}));
    sum += v;
    squares += v * v;
  }
  EXPECT_EQ(halves.size(), 64u);
  const auto negative = std::count_if(halves.begin(), halves.end(), [](std::uint16_t h) { return h >= 0x8000u; });
  EXPECT_EQ(negative, 32);
  EXPECT_EQ(far.size(), 8u);
  const double mean = sum / n;
  EXPECT_NEAR(mean / std::sqrt(squares / n - mean * mean), 57, 2);
}

TEST(Algorithms, of_two_makers_agree_but_for_rounding) {
  std::vector<float> a{1, -2, 3, 0.5f}, b = a;
  const auto same = [&](double tolerance) { return agree(DType::f32, tolerance, a.data(), b.data(), 4); };
  EXPECT_TRUE(same(0));
  b[1] = -2.0001f;
  EXPECT_TRUE(same(1e-4));
  EXPECT_FALSE(same(1e-5));
  b[1] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(same(1));
  const std::vector<Bf16> c{to_bf16(1), to_bf16(3)}, near{to_bf16(1.0078125f), to_bf16(3)},
      off{to_bf16(1.05f), to_bf16(3)};
  EXPECT_TRUE(agree(DType::bf16, 1e-2, c.data(), near.data(), 2));
  EXPECT_FALSE(agree(DType::bf16, 1e-2, c.data(), off.data(), 2));
  const std::vector<std::uint8_t> d{1, 2, 3}, other{1, 2, 4};
  EXPECT_TRUE(agree(DType::u8, 1, d.data(), d.data(), 3));
  EXPECT_FALSE(agree(DType::u8, 1, d.data(), other.data(), 3));
}

TEST(Norm, a_graph_holds_the_ops_shape_and_knows_no_activation_but_relu) {
  const TensorDesc images{DType::bf16, Shape{4, 9, 12, 6}}, rows{DType::f32, Shape{8, 12}};
  EXPECT_EQ(norm_graph(BatchNorm{1e-5, 0.1, Activation::relu}, images, false)->key(),
            "batch_norm forward bfloat16 4x6x9x12 epsilon 1e-05 relu");
  EXPECT_EQ(norm_graph(BatchNorm{}, rows, true)->key(), "batch_norm backward float32 8x12x1x1");
  EXPECT_FALSE(norm_graph(BatchNorm{1e-5, 0.1, Activation::tanh}, images, false));
  EXPECT_EQ(norm_graph(LayerNorm{1e-6}, images, false).key(), "layer_norm forward bfloat16 432x6x1x1 epsilon 1e-06");
}

TEST(Pool, a_graph_holds_the_ops_windows) {
  const TensorDesc in{DType::f16, Shape{4, 9, 12, 6}};
  EXPECT_EQ(pool_graph(MaxPool{{3, 2}, {2, 1}, {1, 0}}, in)->key(),
            "max_pool2d float16 in 4x6x9x12 out 4x6x5x11 window 3x2 stride 2x1 padding 1x0");
  EXPECT_FALSE(pool_graph(MaxPool{{12, 11}, {1, 1}}, TensorDesc{in.dtype, Shape{1, 20, 20, 2}}));
  EXPECT_NE(pool_graph(AveragePool{{3, 3}, {2, 2}, {1, 1}, true}, in).key(),
            pool_graph(AveragePool{{3, 3}, {2, 2}, {1, 1}, false}, in).key());
  EXPECT_EQ(pool_graph(GlobalAveragePool{}, in).key(),
            "average_pool2d_of_all float16 in 4x6x9x12 out 4x6x1x1 window 9x12 stride 1x1 padding 0x0");
}

TEST(Convolution, a_graph_holds_the_ops_shape_and_forward_alone_what_follows) {
  const Conv op{.filters = 8,
                .kernel = {3, 5},
                .stride = {2, 1},
                .padding = {1, 2},
                .bias = true,
                .activation = Activation::relu,
                .dilation = {1, 2},
                .groups = 2};
  const TensorDesc in{DType::bf16, Shape{4, 9, 12, 6}};
  const ConvolutionGraph forward = convolution_graph(op, in, ConvolutionPass::forward);
  EXPECT_EQ(forward.in, (std::array<std::int64_t, 4>{4, 6, 9, 12}));
  EXPECT_EQ(forward.out, (std::array<std::int64_t, 4>{4, 8, 5, 8}));
  EXPECT_EQ(forward.key(),
            "conv2d forward bfloat16 in 4x6x9x12 out 4x8x5x8 kernel 3x5 stride 2x1 padding 1x2 dilation 1x2 groups 2 "
            "bias relu");
  EXPECT_EQ(bare(forward).key(),
            "conv2d forward bfloat16 in 4x6x9x12 out 4x8x5x8 kernel 3x5 stride 2x1 padding 1x2 dilation 1x2 groups 2");
  const ConvolutionGraph weights = convolution_graph(op, in, ConvolutionPass::weight_gradient);
  EXPECT_FALSE(weights.bias);
  EXPECT_EQ(weights.activation, Activation::none);
  EXPECT_NE(weights.key(), convolution_graph(op, in, ConvolutionPass::data_gradient).key());
}

TEST(Convolution, of_one_pixel_is_a_product) {
  EXPECT_TRUE(is_product({.filters = 8}));
  EXPECT_FALSE(is_product({.filters = 8, .kernel = {1, 3}, .padding = {0, 1}}));
  EXPECT_FALSE(is_product({.filters = 8, .stride = {2, 2}}));
  EXPECT_FALSE(is_product({.filters = 8, .groups = 2}));
}

}  // namespace
}  // namespace dtrain::cuda
