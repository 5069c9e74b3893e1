// What a device does to the flat buffers and to images, beside the CPU device: norms and what is decided from them,
// sums of parts, casts, augmentation.
#include <cmath>
#include <cstdint>

#include <gtest/gtest.h>

#include "runtime/input/image_load.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/bf16.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

class FlatOperations : public test::OnEachDevice {
 protected:
  std::unique_ptr<Device> cpu_ = make_cpu_device(1), device_ = make_device();
  std::unique_ptr<Stream> of_cpu_ = cpu_->make_stream(StreamUse::compute);
  std::unique_ptr<Stream> stream_ = device_->make_stream(StreamUse::compute);

  template <class T>
  test::Reachable<T> reachable(std::size_t n, T value = {}) const {
    return test::Reachable<T>(n, value, test::FromDevice<T>(*device_));
  }
  template <class T>
  test::Reachable<T> reachable(const std::vector<T>& values) const {
    return test::Reachable<T>(values.begin(), values.end(), test::FromDevice<T>(*device_));
  }
};
DTRAIN_ON_EACH_DEVICE(FlatOperations);

TEST_P(FlatOperations, of_norms_decide_as_the_cpus_do) {
  for (const std::size_t n : {std::size_t{1}, std::size_t{1023}, 5 * norm_block + 7, 1100 * norm_block + 1}) {
    const auto x = test::signed_draws(3, 1, static_cast<std::int64_t>(n));
    const std::size_t blocks = (n + norm_block - 1) / norm_block;
    for (const float bad : {0.0f, INFINITY, NAN}) {
      auto values = reachable(x);
      if (bad != 0) values[n / 2] = bad;
      auto states = reachable<StepState>(2);
      for (const std::size_t i : {0, 1}) {
        Device& device = i == 0 ? *cpu_ : *device_;
        Stream& stream = i == 0 ? *of_cpu_ : *stream_;
        auto squares = reachable<double>(blocks, -1);
        states[i].sum_weight = 4;
        states[i].loss_scale = 2;
        device.kernels().sum_squares(values.data(), n, squares.data(), stream);
        device.kernels().finish_gradients({&states[i], squares.data(), blocks, 0.001}, stream);
        auto sums = reachable<float>(16, 3.0f);
        device.kernels().finish_step({&states[i], sums.data(), {.dynamic = true, .growth_steps = 1}}, stream);
        stream.synchronize();
      }
      if (bad == 0) {
        EXPECT_NEAR(states[1].grad_norm, states[0].grad_norm, 1e-6f * states[0].grad_norm);
        EXPECT_NEAR(states[1].gradient_scale, states[0].gradient_scale, 1e-6f * states[0].gradient_scale);
      }
      EXPECT_EQ(states[1].nonfinite, bad == 0 ? 0u : 1u);
      EXPECT_EQ(states[1].nonfinite_block, bad == 0 ? 0u : n / 2 / norm_block);
      EXPECT_EQ(states[1].loss_scale, bad == 0 ? 4.0f : 1.0f);
      EXPECT_EQ(states[1].applied_steps, states[0].applied_steps);
      EXPECT_EQ(states[1].sums[sums_per_loss - 1], 3.0f);
      EXPECT_EQ(states[1].tail.joules_samples, 3.0f);
      device_->kernels().finish_gradients({&states[1], nullptr, 0, 0}, *stream_);
      stream_->synchronize();
      EXPECT_EQ(states[1].nonfinite, 0u);
    }
  }
}

TEST_P(FlatOperations, of_sums_of_many_parts_have_the_cpus_bits) {
  for (const std::size_t count : {1, 2, 16, 17, 40}) {
    std::vector<test::Reachable<float>> values;
    std::vector<const float*> parts;
    for (std::size_t p = 0; p < count; ++p) values.push_back(reachable(test::signed_draws(4, p, 1003)));
    for (const auto& v : values) parts.push_back(v.data());
    for (const std::size_t begin : {0, 16, 17}) {
      auto expected = reachable<float>(1003), seen = reachable<float>(1003);
      cpu_->kernels().add(parts, expected.data(), begin, 1000, *of_cpu_);
      device_->kernels().add(parts, seen.data(), begin, 1000, *stream_);
      stream_->synchronize();
      EXPECT_EQ(seen, expected) << count << " " << begin;
    }
    auto last = values.back();
    parts.back() = last.data();  // the sum may lie over the last part
    auto expected = reachable<float>(1003);
    cpu_->kernels().add(parts, expected.data(), 0, 1003, *of_cpu_);
    device_->kernels().add(parts, last.data(), 0, 1003, *stream_);
    stream_->synchronize();
    EXPECT_EQ(last, expected) << count;
  }
}

TEST_P(FlatOperations, of_casts_round_as_the_cpus_do) {
  const auto x = reachable(test::signed_draws(5, 0, 1001));
  auto expected = reachable<Bf16>(1001), seen = reachable<Bf16>(1001);
  auto back = reachable<float>(1001), expected_back = reachable<float>(1001);
  const TensorDesc f32{DType::f32, Shape{1, 1001}}, bf16{DType::bf16, Shape{1, 1001}};
  const auto tensor = [](const TensorDesc& d, const void* p) { return Tensor{d, const_cast<void*>(p)}; };
  cpu_->kernels().cast(tensor(f32, x.data()), tensor(bf16, expected.data()), *of_cpu_);
  cpu_->kernels().cast(tensor(bf16, expected.data()), tensor(f32, expected_back.data()), *of_cpu_);
  device_->kernels().cast(tensor(f32, x.data()), tensor(bf16, seen.data()), *stream_);
  device_->kernels().cast(tensor(bf16, seen.data()), tensor(f32, back.data()), *stream_);
  stream_->synchronize();
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(seen[i].bits, expected[i].bits);
  EXPECT_EQ(back, expected_back);
}

/// A GPU's compiler contracts what the host's does not: the same but for a few units in the last place.
TEST_P(FlatOperations, of_images_are_the_cpus) {
  constexpr int n = 6, stored = 37, size = 33;
  auto bytes = reachable<std::uint8_t>(static_cast<std::size_t>(n * stored * stored * 3));
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::uint8_t>(test::raw_draw(7, 0, 0, static_cast<std::int64_t>(i)));
  const auto scale = reachable<float>(std::vector<float>{1 / 50.0f, 1 / 60.0f, 1 / 70.0f});
  const auto offset = reachable<float>(std::vector<float>{-1, -2, -3});
  auto table = reachable<float>(3 * 256);
  for (std::size_t i = 0; i < table.size(); ++i)
    table[i] = static_cast<float>(i % 256) * scale[i / 256] + offset[i / 256];
  auto draws = reachable<ImageDraw>(n);
  draws[1].map = {-1, 0, 35, 0, 1, -4};  // mirrored, shifted into the padding
  draws[2].map = {0.8f, 0.3f, 2, -0.3f, 0.8f, 9};
  draws[2].exact = 0;
  draws[3] = draws[2];
  draws[3].color = {1.3f, 0.7f, 1.4f, 0.1f};
  draws[3].recolored = 1;
  const auto rows = reachable<std::uint64_t>(std::vector<std::uint64_t>{5, 0, 3, 3, ImageBatch::none, 1});
  for (const bool channels_last : {true, false}) {
    const ImageFormat format{stored, stored, size, size, 3, channels_last, table.data(), scale.data(), offset.data()};
    auto expected = reachable<float>(n * size * size * 3), seen = reachable<float>(expected.size(), NAN);
    auto halves = reachable<Bf16>(expected.size());
    ImageBatch batch{bytes.data(), rows.data(), draws.data(), n, expected.data(), DType::f32};
    cpu_->kernels().load_images(format, batch, *of_cpu_);
    batch.out = seen.data();
    device_->kernels().load_images(format, batch, *stream_);
    batch.out = halves.data();
    batch.out_type = DType::bf16;
    device_->kernels().load_images(format, batch, *stream_);
    stream_->synchronize();
    const auto floats = [](const auto& v) { return std::vector<float>(v.begin(), v.end()); };
    EXPECT_LE(test::relative_error(floats(seen), floats(expected)), 1e-5) << channels_last;
    for (std::size_t i = 0; i < halves.size(); ++i) ASSERT_EQ(halves[i].bits, to_bf16(seen[i]).bits) << i;
  }
}

}  // namespace
}  // namespace dtrain
