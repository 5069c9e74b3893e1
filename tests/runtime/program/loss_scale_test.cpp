// The loss scale on each device: losses multiply their gradients with it, and the dynamic one moves as PyTorch's
// GradScaler in a device's four calls of a step: norm, judgement, update, end.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

/// 60 steps in f32 against PyTorch in f64.
constexpr double update_tolerance = 2e-6;

class LossScale : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(LossScale);

TEST_P(LossScale, multiplies_the_gradients_of_losses_and_not_their_sums) {
  const auto device = make_device();
  for (const test::OpRow& row : test::op_table()) {
    if (!test::is_loss(row) || test::dtype_of(row) == DType::f16) continue;  // which the cpu has not, and it overflows
    SCOPED_TRACE(row.name);
    test::OpRun run(*device, row);
    run.forward();
    const auto sums = run.out();
    run.backward(Write::overwrite, Write::overwrite);
    const auto gradients = run.grad_in();
    run.step.loss_scale = 4096;
    run.forward();
    EXPECT_EQ(run.out(), sums);
    run.backward(Write::overwrite, Write::overwrite);
    const auto scaled = run.grad_in();
    ASSERT_EQ(scaled.size(), gradients.size());
    for (std::size_t i = 0; i < scaled.size(); ++i) EXPECT_EQ(scaled[i], 4096 * gradients[i]) << i;
  }
}

TEST_P(LossScale, moves_and_skips_as_pytorchs_grad_scaler_does) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/loss_scale.json"));
  const auto overflows = golden.at("overflows").get<std::vector<std::uint64_t>>();
  const UpdateRule sgd{Sgd{0.1, 0.9, 0.01, false}}, adam{Adam{0.01, 0.9, 0.999, 1e-8, 0}};
  struct Row {
    const char* name;
    const UpdateRule& rule;
    double max_norm;
  };
  for (const auto& [name, rule, max_norm] :
       {Row{"sgd_momentum", sgd, 0}, Row{"adam", adam, 0}, Row{"sgd_clipped", sgd, 3}}) {
    SCOPED_TRACE(name);
    const auto& expected = golden.at(name);
    const auto device = make_device();
    const auto stream = device->make_stream(StreamUse::compute);
    FlatLayout layout;
    layout.params.push_back({0, "a", Shape{37}, 0, 37, true});
    layout.param_floats = 48;
    const test::FromDevice<float> floats(*device);
    test::Reachable<float> w(48, floats), g(48, floats), m(48, floats), v(48, floats);
    const test::Reachable<float> sums(16, floats);
    test::Reachable<double> squares(1, test::FromDevice<double>(*device));
    test::Reachable<double> norms(norm_scratch(layout), test::FromDevice<double>(*device));
    const auto start = test::signed_draws(9, 0, 37);
    std::copy(start.begin(), start.end(), w.begin());
    test::Reachable<StepState> step_memory(1, test::FromDevice<StepState>(*device));
    StepState& step = step_memory[0];
    step.learning_rate = static_cast<float>(base_learning_rate(rule));
    step.sum_weight = 1;
    step.loss_scale = 64;
    const LossScaling scaling{.dynamic = true, .growth_steps = 4};
    std::uint64_t applied = 0, point = 0;
    for (std::uint64_t t = 0; t < 60; ++t) {
      const auto draws = test::signed_draws(9, 1 + t, 37);
      for (std::size_t i = 0; i < 37; ++i) g[i] = step.loss_scale * draws[i];
      const bool overflow = std::find(overflows.begin(), overflows.end(), t) != overflows.end() &&
                            step.loss_scale > golden.at("above").get<float>();
      if (overflow) g[t % 37] = t % 2 == 0 ? HUGE_VALF : std::nanf("");
      applied += overflow ? 0 : 1;
      const std::vector<float> before(w.begin(), w.end());
      device->kernels().sum_squares(g.data(), 48, squares.data(), *stream);
      device->kernels().finish_gradients({&step, squares.data(), 1, max_norm}, *stream);
      device->kernels().update(rule, {w.data(), g.data(), {m.data(), v.data()}, 0, 48, &layout, &step, norms.data()},
                               *stream);
      device->kernels().finish_step({&step, sums.data(), scaling}, *stream);
      stream->synchronize();
      EXPECT_EQ(step.loss_scale, expected.at("scales").at(t).get<float>()) << t;
      EXPECT_EQ(step.good_steps, expected.at("good").at(t).get<std::uint32_t>()) << t;
      EXPECT_EQ(step.applied_steps, applied) << t;
      EXPECT_EQ(step.nonfinite, overflow ? 1u : 0u) << t;
      EXPECT_EQ(std::equal(w.begin(), w.end(), before.begin()), overflow) << t;
      if (max_norm > 0 && !overflow) {
        const double norm = expected.at("norms").at(t).get<double>();
        EXPECT_NEAR(static_cast<double>(step.grad_norm) / norm, 1.0, 1e-6) << t;
      }
      if (t != 19 && t != 59) continue;
      EXPECT_LE(test::relative_error({w.begin(), w.begin() + 37}, expected.at("params").at(point++)), update_tolerance)
          << t;
    }
  }
}

}  // namespace
}  // namespace dtrain
