// The CUDA device's own kernels, run on the host: with the threads in another order, and what the op table does not
// reach.
#include "runtime/ops/kernels.hpp"

#include <array>
#include <cmath>

#include <gtest/gtest.h>

#include "runtime/cuda/grid.hpp"
#include "runtime/input/image_load.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"
#include "runtime/tensor/f16.hpp"
#include "tests/runtime/cuda/host_grid.hpp"
#include "tests/runtime/cuda/simulated_device.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

TensorDesc matrix(std::int64_t n, std::int64_t d) {
  return {DType::f32, Shape{n, d}};
}

/// Output, gradients and kept statistics of one forward and backward pass.
std::vector<std::vector<float>> results(Device& device, const OpRow& row) {
  OpRun run(device, row);
  run.step.loss_scale = 8;
  run.forward();
  std::vector<std::vector<float>> all{run.out()};
  run.backward(Write::overwrite, Write::overwrite);
  for (std::size_t i = 0; i < run.differentiable().size(); ++i) all.push_back(run.grad_in(i));
  for (std::size_t p = 0; p < run.shape().params.size(); ++p) all.push_back(run.grad_param(p));
  for (std::size_t s = 0; s < run.shape().state.size(); ++s) all.push_back(run.state_sum(s));
  return all;
}

TEST(Kernels, have_bits_that_depend_on_no_order_of_threads_and_blocks) {
  test::SimulatedDevice device;
  std::vector<OpRow> rows = test::large_ops();
  rows.insert(rows.end(), test::op_table().begin(), test::op_table().end());
  for (const OpRow& row : rows) {
    if (row.in.dtype == DType::f16 && (std::holds_alternative<Dense>(row.op) || std::holds_alternative<Conv>(row.op)))
      continue;  // the cpu's here
    const auto expected = results(device, row);
    test::set_turns(test::Turns::backward);
    const auto seen = results(device, row);
    test::set_turns(test::Turns::forward);
    EXPECT_EQ(seen, expected) << row.name;
  }
}

TEST(Kernels, multiply_with_the_factors_of_tf32_where_they_may) {
  for (const OpRow& row : test::op_table()) {
    if (row.name != "linear_relu" && row.name != "conv_padded" && row.name != "conv_1x1") continue;
    test::SimulatedDevice exact, rounded({.tf32 = true});
    const auto expected = results(exact, row), seen = results(rounded, row);
    for (std::size_t i = 0; i + 1 < seen.size(); ++i)  // the last is the bias's gradient, a sum
      EXPECT_GT(test::relative_error(seen[i], expected[i]), 1e-5) << row.name << " " << i;
  }
}

/// Threads of the first warp alone come to the barrier.
struct TornBarrier {
  static constexpr int threads = 64;
  using Shared = cuda::Nothing;
  template <class Thread>
  void operator()(Thread& t, Shared&) const {
    if (t.index() < 32) t.sync();
  }
};
/// Half a warp comes to the shuffle.
struct TornShuffle {
  static constexpr int threads = 64;
  using Shared = cuda::Nothing;
  template <class Thread>
  void operator()(Thread& t, Shared&) const {
    if (t.index() % 32 < 16) t.shuffle_xor(1.0f, 1);
  }
};
TEST(HostGrid, sees_barriers_and_shuffles_that_some_threads_miss) {
  EXPECT_THROW(cuda::launch({nullptr, "torn"}, 1, TornBarrier{}), BugError);
  EXPECT_THROW(cuda::launch({nullptr, "torn"}, 1, TornShuffle{}), BugError);
  EXPECT_THROW(cuda::launch({nullptr, "torn"}, 0, TornShuffle{}), DeviceError);
  EXPECT_THROW(cuda::launch({nullptr, "torn"}, std::int64_t{1} << 31, TornShuffle{}), DeviceError);
}

// ---- beside the ops ------------------------------------------------------------------------------------------------

class FlatBuffers : public testing::Test {
 protected:
  std::unique_ptr<Device> cpu_ = make_cpu_device(1);
  test::SimulatedDevice device_;
  std::unique_ptr<Stream> stream_ = cpu_->make_stream(StreamUse::compute);
};

TEST_F(FlatBuffers, updates_leave_packed_copies) {
  const std::vector<UpdateRule> rules{{Sgd{}}, {Sgd{0.1, 0.9, 0.01, true}}, {Adam{}}, {AdamW{}}, {Lars{}}, {Lamb{}}};
  FlatLayout layout;
  layout.params = {{0, "a", Shape{1037}, 0, 1037, true},
                   {1, "b", Shape{2051}, 1040, 2051, false},
                   {2, "c", Shape{5}, 3104, 5, true}};
  layout.param_floats = 3120;
  for (const UpdateRule& rule : rules) {
    auto w = test::signed_draws(6, 0, 3120);
    const auto g = test::signed_draws(6, 1, 3120);
    std::vector<float> m(3120), v(3120);
    alignas(16) Bf16 a[1040];
    alignas(16) F16 b[2056];
    std::vector<double> norms(norm_scratch(layout));
    StepState step;
    step.learning_rate = 0.1f;
    step.sum_weight = 1;
    const PackedCopy packed[3] = {{a, DType::bf16}, {b, DType::f16}, {nullptr, DType::f32}};
    device_.kernels().update(
        rule, {w.data(), g.data(), {m.data(), v.data()}, 0, 3120, &layout, &step, norms.data(), 0, packed}, *stream_);
    for (std::size_t i = 0; i < 1037; ++i) ASSERT_EQ(a[i].bits, to_bf16(w[i]).bits) << rule.kind.index() << " " << i;
    for (std::size_t i = 0; i < 2051; ++i) ASSERT_EQ(b[i].bits, to_f16(w[1040 + i]).bits) << rule.kind.index();
  }
}

/// As swap_inner() would, also where a thread's four neighbours lie in several rows, and a range ends within one.
TEST_F(FlatBuffers, updates_leave_swapped_copies) {
  const std::vector<UpdateRule> rules{{Sgd{}}, {Adam{}}, {Lars{}}, {Lamb{}}};
  for (const UpdateRule& rule : rules) {
    for (const auto& [rows, channels, pixels] :
         {std::array<std::uint32_t, 3>{7, 3, 9}, {2, 64, 9}, {5, 1, 9}, {5, 9, 1}, {33, 3, 2}, {1, 2, 49}}) {
      const std::size_t size = rows * channels * pixels, floats = (size + 15) / 16 * 16 + 16;
      FlatLayout layout;
      layout.params = {{0, "a", Shape{5}, 0, 5, true},
                       {1, "b", Shape{static_cast<std::int64_t>(size)}, 16, size, true}};
      layout.param_floats = floats;
      auto w = test::signed_draws(6, 0, static_cast<std::int64_t>(floats));
      const auto g = test::signed_draws(6, 1, static_cast<std::int64_t>(floats));
      std::vector<float> m(floats), v(floats);
      alignas(16) Bf16 half[1200];
      alignas(16) float whole[1200];
      std::vector<double> norms(norm_scratch(layout));
      StepState step;
      step.learning_rate = 0.1f;
      step.sum_weight = 1;
      const auto update = [&](std::size_t begin, std::size_t end, PackedCopy copy) {
        const PackedCopy packed[2] = {{}, copy};
        device_.kernels().update(
            rule, {w.data(), g.data(), {m.data(), v.data()}, begin, end, &layout, &step, norms.data(), 0, packed},
            *stream_);
      };
      const std::size_t cut = needs_whole_parameters(rule) ? 16 : 16 + size / 2 + 1;
      for (const auto& [begin, end] : {std::pair<std::size_t, std::size_t>{0, cut}, {cut, floats}})
        update(begin, end, {half, DType::bf16, channels, pixels});
      const auto check = [&](auto bits_of, const auto& seen) {
        for (std::size_t r = 0, at = 16; r < rows; ++r)
          for (std::size_t c = 0; c < channels; ++c)
            for (std::size_t p = 0; p < pixels; ++p, ++at)
              ASSERT_EQ(bits_of(seen[(r * pixels + p) * channels + c]), bits_of(w[at])) << r << " " << c << " " << p;
      };
      struct Bits {
        std::uint16_t operator()(Bf16 b) const { return b.bits; }
        std::uint16_t operator()(float f) const { return to_bf16(f).bits; }
      };
      check(Bits(), half);
      update(0, floats, {whole, DType::f32, channels, pixels});
      check([](float f) { return f; }, whole);
      // A step that is skipped leaves the copy alone.
      step.nonfinite = 1;
      whole[0] = 1e9f;
      update(0, floats, {whole, DType::f32, channels, pixels});
      EXPECT_EQ(whole[0], 1e9f);
    }
  }
}

TEST_F(FlatBuffers, swapped_copies_of_other_rows_are_refused) {
  FlatLayout layout;
  layout.params = {{0, "a", Shape{20}, 0, 20, true}};
  layout.param_floats = 32;
  std::vector<float> w(32), g(32);
  StepState step;
  const PackedCopy packed[1] = {{w.data(), DType::f32, 3, 2}};
  EXPECT_THROW(
      device_.kernels().update({Sgd{}}, {w.data(), g.data(), {}, 0, 32, &layout, &step, nullptr, 0, packed}, *stream_),
      BugError);
}

// ---- images --------------------------------------------------------------------------------------------------------

TEST_F(FlatBuffers, images_have_the_cpus_bits) {
  constexpr int n = 6, stored = 37, size = 33;
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(n * stored * stored * 3));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::uint8_t>(test::raw_draw(7, 0, 0, static_cast<std::int64_t>(i)));
  std::vector<float> table(3 * 256), scale{1 / 50.0f, 1 / 60.0f, 1 / 70.0f}, offset{-1, -2, -3};
  for (std::size_t i = 0; i < table.size(); ++i)
    table[i] = static_cast<float>(i % 256) * scale[i / 256] + offset[i / 256];
  std::vector<ImageDraw> draws(n);
  draws[1].map = {-1, 0, 35, 0, 1, -4};  // mirrored, shifted into the padding
  draws[2].map = {0.8f, 0.3f, 2, -0.3f, 0.8f, 9};
  draws[2].exact = 0;
  draws[3] = draws[2];
  draws[3].color = {1.3f, 0.7f, 1.4f, 0.1f};
  draws[3].recolored = 1;
  const std::vector<std::uint64_t> rows{5, 0, 3, 3, ImageBatch::none, 1};
  for (const bool channels_last : {true, false}) {
    const ImageFormat format{stored, stored, size, size, 3, channels_last, table.data(), scale.data(), offset.data()};
    for (const bool drawn : {true, false}) {
      if (!drawn && stored != size) continue;  // only a crop makes them fit
      std::vector<float> expected(n * size * size * 3), seen(expected.size());
      std::vector<Bf16> halves(expected.size());
      ImageBatch batch{bytes.data(), rows.data(), draws.data(), n, expected.data(), DType::f32};
      cpu_->kernels().load_images(format, batch, *stream_);
      batch.out = seen.data();
      device_.kernels().load_images(format, batch, *stream_);
      EXPECT_EQ(seen, expected) << channels_last;
      batch.out = halves.data();
      batch.out_type = DType::bf16;
      device_.kernels().load_images(format, batch, *stream_);
      for (std::size_t i = 0; i < halves.size(); ++i) ASSERT_EQ(halves[i].bits, to_bf16(expected[i]).bits) << i;
    }
  }
}

// ---- indices and float16
// -------------------------------------------------------------------------------------------------------

TEST(Indices, are_divided_whatever_their_size) {
  const std::int64_t large = std::int64_t{1} << 40;
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{17}, (std::int64_t{1} << 32) - 1, std::int64_t{1} << 32,
                               large - 1, large + 12345, std::int64_t{0x7FFFFFFFFFFFFFFF}}) {
    for (const std::int64_t by : {std::int64_t{1}, std::int64_t{3}, (std::int64_t{1} << 32) + 1, large}) {
      EXPECT_EQ(split(i, by).quotient, i / by) << i << " " << by;
      EXPECT_EQ(split(i, by).rest, i % by) << i << " " << by;
    }
  }
}

TEST(Half, converts_every_value_and_rounds_to_nearest_even) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 h{static_cast<std::uint16_t>(bits)};
    const float v = to_float(h);
    if (v != v) continue;
    ASSERT_EQ(to_f16(v).bits, bits);
    // Half way to the next value rounds to the even one of the two, a bit less and a bit more to the nearer one.
    const float next = to_float(F16{static_cast<std::uint16_t>(bits + 1)});
    if (!std::isfinite(next) || std::signbit(next) != std::signbit(v)) continue;
    const float middle = v + (next - v) * 0.5f;
    ASSERT_EQ(to_f16(middle).bits, bits % 2 == 0 ? bits : bits + 1) << bits;
    ASSERT_EQ(to_f16(std::nextafter(middle, v)).bits, bits) << bits;
    ASSERT_EQ(to_f16(std::nextafter(middle, next)).bits, bits + 1) << bits;
  }
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7BFF);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7C00);
  EXPECT_TRUE(std::isnan(to_float(to_f16(NAN))));
  EXPECT_FLOAT_EQ(to_float(F16{0x0001}), 0x1p-24f);
}

TEST(Half, is_refused_by_the_cpu) {
  const auto cpu = make_cpu_device(1);
  TensorDesc desc = matrix(2, 3);
  EXPECT_THROW(cpu->kernels().prepare(Cast{DType::f16}, {&desc, 1}, {}), DeviceError);
  desc.dtype = DType::f16;
  EXPECT_THROW(cpu->kernels().prepare(Activate{}, {&desc, 1}, {}), DeviceError);
}

}  // namespace
}  // namespace dtrain
