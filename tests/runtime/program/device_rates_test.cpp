// What a device's copies, matrix products and updates reach, as properties of the report: see tests/gpu. Each is
// checked before it is timed; on a cpu small, so that the check is what counts.
#include <algorithm>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "runtime/ops/kernels.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/program/step_memory.hpp"
#include "runtime/random/rng.hpp"
#include "runtime/tensor/bf16.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

class DeviceRates : public testing::TestWithParam<test::AvailableDevice> {
 protected:
  std::unique_ptr<Device> device_ = GetParam().make();
  std::unique_ptr<Stream> stream_ = device_->make_stream(StreamUse::compute);
  bool large_ = device_->kind() == DeviceKind::cuda && device_->asynchronous();  // more than its caches hold

  /// Median of ten runs behind one that warms up, on the device's clock.
  template <class Work>
  double seconds(Work work) {
    const auto begin = device_->make_timer(), end = device_->make_timer();
    std::vector<double> found;
    for (int i = 0; i <= 10; ++i) {
      stream_->record(*begin);
      work();
      stream_->record(*end);
      end->synchronize();
      if (i > 0) found.push_back(end->seconds_since(*begin));
    }
    std::nth_element(found.begin(), found.begin() + 5, found.end());
    return std::max(found[5], 1e-9);
  }
  template <class T>
  std::vector<T> to_host(const void* from, std::size_t n) {
    std::vector<T> to(n);
    device_->copy(to.data(), from, n * sizeof(T), *stream_);
    stream_->synchronize();
    return to;
  }
  /// Floats in [-1, 1), the same block again and again.
  void fill(float* to, std::size_t n) {
    const auto block = test::signed_draws(7, 0, 1 << 16);
    for (std::size_t at = 0; at < n; at += block.size())
      device_->copy(to + at, block.data(), std::min(block.size(), n - at) * sizeof(float), *stream_);
    stream_->synchronize();
  }
  void report(const std::string& what, double rate) {
    RecordProperty(what, fmt::format("{:.6g}", rate));
    EXPECT_GT(rate, 0.0);
  }
};
DTRAIN_ON_EACH_DEVICE(DeviceRates);

TEST_P(DeviceRates, of_a_copy_read_and_written) {
  const std::size_t floats = large_ ? std::size_t{1} << 28 : 1 << 20;
  const Buffer from(*device_, floats * sizeof(float)), to(*device_, floats * sizeof(float));
  fill(static_cast<float*>(from.data()), floats);
  device_->zero(to.data(), to.bytes(), *stream_);
  const double once = seconds([&] { device_->copy(to.data(), from.data(), to.bytes(), *stream_); });
  const std::size_t end = floats - 1000;
  EXPECT_EQ(to_host<float>(static_cast<float*>(to.data()) + end, 1000),
            to_host<float>(static_cast<float*>(from.data()) + end, 1000));
  report("copy_bytes_per_second", 2.0 * static_cast<double>(to.bytes()) / once);
}

TEST_P(DeviceRates, of_a_bfloat16_product) {
  const std::int64_t n = large_ ? 8192 : 128;
  const auto elements = static_cast<std::size_t>(n * n);
  const TensorDesc matrix{DType::bf16, Shape{n, n}}, weights{DType::f32, Shape{n, n}};
  const auto kernel = device_->kernels().prepare(Dense{.units = n, .bias = false}, std::span(&matrix, 1), {});
  const Needs needs = kernel->needs();
  const Buffer floats(*device_, elements * sizeof(float)), in(*device_, matrix.bytes()), out(*device_, matrix.bytes());
  const Buffer packed(*device_, std::max<std::size_t>(needs.packed, 64));
  const Buffer workspace(*device_, std::max<std::size_t>(needs.workspace, 64));
  fill(static_cast<float*>(floats.data()), elements);
  const Tensor x{matrix, in.data()}, y{matrix, out.data()}, w{weights, floats.data()};
  device_->kernels().cast({{DType::f32, Shape{n * n}}, floats.data()}, {{DType::bf16, Shape{n * n}}, in.data()},
                          *stream_);
  StepMemory memory(*device_);
  memory.reset({}, *stream_);
  const auto bytes_of = [](const Buffer& b) {
    return Tensor{{DType::u8, Shape{static_cast<std::int64_t>(b.bytes())}}, b.data()};
  };
  const OpArgs args{.in = {&x, 1},
                    .out = {&y, 1},
                    .params = {&w, 1},
                    .state = {},
                    .saved = {},
                    .state_sums = {},
                    .positions = {},
                    .packed = bytes_of(packed),
                    .workspace = bytes_of(workspace),
                    .pass = {},
                    .step = memory.state()};
  if (needs.packed > 0) kernel->pack(args.params, args.packed, *stream_);
  const double once = seconds([&] { kernel->forward(args, *stream_); });
  // Elements of the last row, against sums in double of what the factors were rounded to.
  const auto row = to_host<float>(static_cast<float*>(floats.data()) + (n - 1) * n, static_cast<std::size_t>(n));
  const auto seen = to_host<Bf16>(static_cast<Bf16*>(out.data()) + (n - 1) * n, static_cast<std::size_t>(n));
  std::vector<float> expected, found;
  for (const std::int64_t j : {std::int64_t{0}, std::int64_t{1}, n / 2, n - 3, n - 1}) {
    const auto column = to_host<float>(static_cast<float*>(floats.data()) + j * n, static_cast<std::size_t>(n));
    double sum = 0;
    for (std::size_t k = 0; k < row.size(); ++k)
      sum += static_cast<double>(to_float(to_bf16(row[k]))) * static_cast<double>(to_float(to_bf16(column[k])));
    expected.push_back(static_cast<float>(sum));
    found.push_back(to_float(seen[static_cast<std::size_t>(j)]));
  }
  EXPECT_LE(test::relative_error(found, expected), 1e-2);
  const auto size = static_cast<double>(n);
  report("matrix_flops_per_second", 2 * size * size * size / once);
}

/// Parameters as a ResNet-50 has them, but larger; each element is read and written as the rule says.
TEST_P(DeviceRates, of_updates) {
  const std::size_t floats = large_ ? std::size_t{1} << 26 : 1 << 16;
  FlatLayout layout;
  layout.params.push_back({0, "a", Shape{static_cast<std::int64_t>(floats)}, 0, floats, true});
  layout.param_floats = floats;
  const std::size_t bytes = layout.total_floats() * sizeof(float);
  const Buffer params(*device_, bytes), gradients(*device_, bytes), first(*device_, bytes), second(*device_, bytes);
  StepState state;
  state.sum_weight = 1;
  state.learning_rate = 0.001f;
  StepMemory memory(*device_);
  memory.reset(state, *stream_);
  memory.begin(state, *stream_);
  struct Rule {
    const char* name = "";
    UpdateRule rule;
    double moved = 0;      // floats read and written a parameter
    double after_one = 0;  // what becomes of a parameter of 1 with a gradient of 0.5
  };
  for (const Rule& r : {Rule{"sgd", {Sgd{0.001, 0.9, 0, false}}, 5, 1 - 0.001 * 0.5},
                        Rule{"adam", {Adam{0.001, 0.9, 0.999, 1e-8, 0}}, 7, 1 - 0.001}}) {
    const std::vector<float> ones(1 << 16, 1.0f), halves(1 << 16, 0.5f);
    for (std::size_t at = 0; at < floats; at += ones.size()) {
      device_->copy(static_cast<float*>(params.data()) + at, ones.data(), ones.size() * sizeof(float), *stream_);
      device_->copy(static_cast<float*>(gradients.data()) + at, halves.data(), halves.size() * sizeof(float), *stream_);
    }
    device_->zero(first.data(), bytes, *stream_);
    device_->zero(second.data(), bytes, *stream_);
    const UpdateArgs args{.params = static_cast<float*>(params.data()),
                          .gradients = static_cast<const float*>(gradients.data()),
                          .state = {static_cast<float*>(first.data()), static_cast<float*>(second.data())},
                          .begin = 0,
                          .end = floats,
                          .layout = &layout,
                          .step = &memory.state()};
    device_->kernels().update(r.rule, args, *stream_);
    for (const float p : to_host<float>(static_cast<float*>(params.data()) + floats - 1000, 1000))
      ASSERT_NEAR(p, r.after_one, 1e-6) << r.name;
    const double once = seconds([&] { device_->kernels().update(r.rule, args, *stream_); });
    report(std::string(r.name) + "_bytes_per_second", r.moved * static_cast<double>(floats) * sizeof(float) / once);
  }
}

}  // namespace
}  // namespace dtrain
