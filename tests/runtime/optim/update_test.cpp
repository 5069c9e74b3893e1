// Optimizer updates against PyTorch, and what they leave alone.
#include <cmath>
#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/average.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

/// 20 steps in f32 against PyTorch in f64.
constexpr double update_tolerance = 1e-6;

const std::map<std::string, UpdateRule>& rules() {
  static const std::map<std::string, UpdateRule> all{
      {"sgd", {Sgd{0.1, 0, 0, false}}},
      {"sgd_momentum", {Sgd{0.1, 0.9, 0.01, false}}},
      {"sgd_nesterov", {Sgd{0.1, 0.9, 0.01, true}}},
      {"adam", {Adam{0.01, 0.9, 0.999, 1e-8, 0}}},
      {"adam_decay", {Adam{0.01, 0.8, 0.99, 1e-6, 0.1}}},
      {"adamw", {AdamW{0.01, 0.9, 0.999, 1e-8, 0.1}}},
      {"lars", {Lars{2.0, 0.9, 0.01, 0.02, 1e-6, false}}},
      {"lars_nesterov", {Lars{2.0, 0.8, 0.01, 0.02, 1e-6, true}}},
      {"lars_plain", {Lars{2.0, 0.0, 0.01, 0.02, 1e-6, false}}},
      {"lamb", {Lamb{0.02, 0.9, 0.99, 1e-6, 0.1}}},
  };
  return all;
}

/// Two parameters of 37 floats, the second without decay; the gap between them must stay zero.
struct Fixture {
  std::unique_ptr<Device> device;
  FlatLayout layout;
  test::Reachable<float> w{reach<float>()}, g{reach<float>()}, m{reach<float>()}, v{reach<float>()};
  test::Reachable<double> norms{reach<double>()};
  test::Reachable<StepState> step_memory{1, reach<StepState>()};
  StepState& step = step_memory[0];

  template <class T>
  test::FromDevice<T> reach() const {
    return test::FromDevice<T>(*device);
  }
  Fixture(std::unique_ptr<Device> on, const UpdateRule& rule) : device(std::move(on)) {
    layout.params.push_back({0, "a", Shape{37}, 0, 37, true});
    layout.params.push_back({1, "b", Shape{37}, 48, 37, false});
    layout.param_floats = 96;
    norms.resize(norm_scratch(layout));
    for (auto* buffer : {&w, &g, &m, &v}) buffer->assign(layout.total_floats(), 0.0f);
    const auto start = test::signed_draws(9, 0, 37);
    for (std::size_t offset : {0, 48}) std::copy(start.begin(), start.end(), w.begin() + static_cast<long>(offset));
    step.learning_rate = static_cast<float>(base_learning_rate(rule));
    step.sum_weight = 1;
  }
  void apply(const UpdateRule& rule, std::uint64_t t, std::size_t cut = 48, float scale = 1) {
    const auto draws = test::signed_draws(9, 1 + t, 37);
    for (std::size_t i = 0; i < 37; ++i) g[i] = g[48 + i] = scale * draws[i];
    step.applied_steps = t;
    const auto stream = device->make_stream(StreamUse::compute);
    for (auto [begin, end] : {std::pair<std::size_t, std::size_t>{0, cut}, {cut, layout.total_floats()}})
      device->kernels().update(
          rule, {w.data(), g.data(), {m.data(), v.data()}, begin, end, &layout, &step, norms.data()}, *stream);
    stream->synchronize();
  }
  std::vector<float> param(std::size_t offset) const {
    return {w.begin() + static_cast<long>(offset), w.begin() + static_cast<long>(offset) + 37};
  }
};

class Updates : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(Updates);

TEST_P(Updates, are_pytorchs_over_twenty_steps) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/optimizers.json"));
  for (const auto& [name, rule] : rules()) {
    Fixture f(make_device(), rule);
    const auto& expected = golden.at(name).at("params");
    for (std::uint64_t t = 0; t < 20; ++t) {
      f.apply(rule, t);
      if (t < 2) EXPECT_LE(test::relative_error(f.param(0), expected.at(t)), update_tolerance) << name << " " << t;
    }
    EXPECT_LE(test::relative_error(f.param(0), expected.at(2)), update_tolerance) << name;
  }
}

TEST_P(Updates, spare_what_has_no_decay_and_the_gaps) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/optimizers.json"));
  Fixture adam(make_device(), rules().at("adam"));
  const UpdateRule decayed{Adam{0.01, 0.9, 0.999, 1e-8, 0.1}};
  for (std::uint64_t t = 0; t < 20; ++t) adam.apply(decayed, t);
  EXPECT_LE(test::relative_error(adam.param(48), golden.at("adam").at("params").at(2)), update_tolerance);
  EXPECT_GT(test::relative_error(adam.param(0), adam.param(48)), 1e-4);
  for (std::size_t i = 37; i < 48; ++i) EXPECT_EQ(adam.w[i], 0.0f);
  for (std::size_t i = 85; i < adam.w.size(); ++i) EXPECT_EQ(adam.w[i], 0.0f);
}

TEST_P(Updates, of_groups_have_their_own_rate_and_decay) {
  // SGD with momentum and Adam as they are written down, in double, with each parameter's own rate and decay.
  const double rate = 0.05, momentum = 0.9, beta1 = 0.9, beta2 = 0.99, epsilon = 1e-8;
  struct Own {
    double factor, decay;
  };
  const Own own[2] = {{0.1, 0.03}, {3, 0.2}};
  for (const bool adam : {false, true}) {
    UpdateRule rule{Sgd{rate, momentum, 0.2, false}};
    if (adam) rule.kind = AdamW{rate, beta1, beta2, epsilon, 0.2};
    Fixture f(make_device(), rule);
    f.layout.params[0].update = {.learning_rate_factor = own[0].factor, .weight_decay = own[0].decay};
    f.layout.params[1].update.learning_rate_factor = own[1].factor;
    f.layout.params[1].decay = true;
    std::vector<double> w[2], m[2], v[2];
    for (std::size_t p = 0; p < 2; ++p) {
      const auto start = f.param(48 * p);
      w[p].assign(start.begin(), start.end());
      m[p].assign(37, 0), v[p].assign(37, 0);
    }
    for (std::uint64_t t = 0; t < 4; ++t) {
      const auto draws = test::signed_draws(9, 1 + t, 37);
      f.apply(rule, t, 19);
      for (std::size_t p = 0; p < 2; ++p)
        for (std::size_t i = 0; i < 37; ++i) {
          const double r = rate * own[p].factor;
          double &x = w[p][i], g = static_cast<double>(draws[i]);
          if (!adam) {
            m[p][i] = momentum * m[p][i] + g + own[p].decay * x;
            x -= r * m[p][i];
            continue;
          }
          const auto n = static_cast<double>(t + 1);
          m[p][i] = beta1 * m[p][i] + (1 - beta1) * g;
          v[p][i] = beta2 * v[p][i] + (1 - beta2) * g * g;
          x -= r * own[p].decay * x;
          x -= r * (m[p][i] / (1 - std::pow(beta1, n))) / (std::sqrt(v[p][i] / (1 - std::pow(beta2, n))) + epsilon);
        }
    }
    for (std::size_t p = 0; p < 2; ++p)
      EXPECT_LE(test::relative_error(f.param(48 * p), std::vector<float>(w[p].begin(), w[p].end())), update_tolerance)
          << p;
    for (std::size_t i = 37; i < 48; ++i) EXPECT_EQ(f.w[i], 0.0f);
  }
}

TEST_P(Updates, of_a_group_of_large_batches_are_those_of_a_rule_with_its_rate_and_decay) {
  for (const char* name : {"lars", "lars_nesterov", "lamb"}) {
    const UpdateRule& rule = rules().at(name);
    UpdateRule other = rule;
    std::visit([](auto& r) { r.weight_decay = 0.25; }, other.kind);
    Fixture grouped(make_device(), rule), plain(make_device(), rule), with_other(make_device(), other);
    grouped.layout.params[0].update = {.learning_rate_factor = 0.5, .weight_decay = 0.25};
    with_other.step.learning_rate *= 0.5f;
    for (std::uint64_t t = 0; t < 3; ++t) {
      grouped.apply(rule, t);
      plain.apply(rule, t);
      with_other.apply(other, t);
    }
    EXPECT_EQ(grouped.param(0), with_other.param(0)) << name;
    EXPECT_EQ(grouped.param(48), plain.param(48)) << name;  // the other parameter is in no group
    EXPECT_NE(grouped.param(0), plain.param(0)) << name;
  }
}

TEST_P(Updates, do_not_depend_on_where_buckets_cut) {
  for (const auto& [name, rule] : rules()) {
    Fixture whole(make_device(), rule), cut(make_device(), rule);
    if (needs_whole_parameters(rule)) {
      EXPECT_THROW(cut.apply(rule, 0, 19), BugError) << name;
      continue;
    }
    for (std::uint64_t t = 0; t < 3; ++t) {
      whole.apply(rule, t, 48);
      cut.apply(rule, t, 19);
    }
    EXPECT_EQ(whole.w, cut.w) << name;
  }
}

TEST_P(Updates, of_large_batches_spare_biases_and_norms) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/optimizers.json"));
  for (const char* name : {"lars", "lars_nesterov", "lars_plain", "lamb"}) {
    const UpdateRule& rule = rules().at(name);
    Fixture f(make_device(), rule);
    const auto& expected = golden.at(name).at("plain");
    for (std::uint64_t t = 0; t < 20; ++t) {
      f.apply(rule, t);
      if (t < 2) EXPECT_LE(test::relative_error(f.param(48), expected.at(t)), update_tolerance) << name << " " << t;
    }
    EXPECT_LE(test::relative_error(f.param(48), expected.at(2)), update_tolerance) << name;
    EXPECT_GT(test::relative_error(f.param(0), f.param(48)), 1e-3) << name;
  }
}

TEST_P(Updates, of_large_batches_take_norms_over_fixed_blocks_whatever_the_threads) {
  constexpr std::size_t size = 5 * norm_block + 77;
  for (const char* name : {"lars", "lamb"}) {
    const UpdateRule& rule = rules().at(name);
    FlatLayout layout;
    layout.params.push_back({0, "a", Shape{static_cast<std::int64_t>(size)}, 0, size, true});
    layout.param_floats = (size + 15) / 16 * 16;
    const auto start = test::signed_draws(9, 0, size), gradient = test::signed_draws(9, 1, size);
    std::vector<std::vector<float>> results;
    for (int threads : {1, 3}) {
      auto device = make_device();
      if (device->kind() == DeviceKind::cpu)
        device = std::make_unique<test::ReachableDevice>(make_cpu_device(threads));  // others: on two of them
      const auto stream = device->make_stream(StreamUse::compute);
      const test::FromDevice<float> floats(*device);
      test::Reachable<float> w(start.begin(), start.end(), floats), g(gradient.begin(), gradient.end(), floats),
          m(size, floats), v(size, floats);
      test::Reachable<double> norms(norm_scratch(layout), test::FromDevice<double>(*device));
      test::Reachable<StepState> state(1, test::FromDevice<StepState>(*device));
      state[0].learning_rate = 0.5f;
      state[0].sum_weight = 4;
      device->kernels().update(
          rule, {w.data(), g.data(), {m.data(), v.data()}, 0, size, &layout, state.data(), norms.data()}, *stream);
      stream->synchronize();
      results.emplace_back(w.begin(), w.end());
    }
    EXPECT_EQ(results[0], results[1]) << name;
    // The length of the first step follows from the formulas: rate * |u|.
    double moved = 0, w_norm = 0, g_norm = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const double w = static_cast<double>(start[i]), g = static_cast<double>(gradient[i]) / 4;
      moved += std::pow(static_cast<double>(results[0][i]) - w, 2);
      w_norm += w * w;
      g_norm += g * g;
    }
    moved = std::sqrt(moved), w_norm = std::sqrt(w_norm), g_norm = std::sqrt(g_norm);
    double expected = 0.5 * w_norm;  // LAMB: |u| cancels
    if (name == std::string("lars")) {
      double u = 0;
      for (std::size_t i = 0; i < size; ++i)
        u += std::pow(static_cast<double>(gradient[i]) / 4 + 0.01 * static_cast<double>(start[i]), 2);
      expected = 0.5 * 0.02 * w_norm / (g_norm + 0.01 * w_norm + 1e-6) * std::sqrt(u);
    }
    EXPECT_NEAR(moved / expected, 1.0, 1e-5) << name;
  }
}

TEST_P(Updates, divide_by_the_sum_of_weights_and_the_loss_scale_and_clip) {
  for (const auto& [name, rule] : rules()) {
    Fixture plain(make_device(), rule), scaled(make_device(), rule);
    scaled.step.sum_weight = 64;
    scaled.step.loss_scale = 1024;
    scaled.step.gradient_scale = 0.5f;
    plain.apply(rule, 0);
    scaled.apply(rule, 0, 48, 64 * 1024 * 2);
    EXPECT_EQ(plain.w, scaled.w) << name;
  }
}

TEST_P(Updates, of_a_step_that_is_not_finite_are_skipped) {
  for (const auto& [name, rule] : rules()) {
    Fixture f(make_device(), rule);
    const auto before = f.w;
    f.step.nonfinite = 1;
    f.apply(rule, 0, 48, NAN);
    EXPECT_EQ(f.w, before) << name;
    for (const float m : f.m) EXPECT_EQ(m, 0.0f) << name;
  }
}

// ---- the moving average ---------------------------------------------------------------------------------------------

/// Two parameters in a store, and their average.
struct Averaged {
  static FlatLayout layout() {
    FlatLayout l;
    l.params.push_back({0, "a", Shape{37}, 0, 37, true});
    l.params.push_back({1, "b", Shape{37}, 48, 37, true});
    l.param_floats = 96;
    return l;
  }
  explicit Averaged(std::unique_ptr<Device> on) : device(std::move(on)) {}
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream = device->make_stream(StreamUse::compute);
  ParameterStore store{*device, layout()};
  ParameterAverage average{*device, 0.9, store.layout()};
  test::Reachable<StepState> step_memory{1, test::FromDevice<StepState>(*device)};
  StepState& step = step_memory[0];

  void set(std::uint64_t t) const {
    const auto draws = test::signed_draws(9, 1 + t, 37);
    for (std::size_t offset : {0, 48}) std::copy(draws.begin(), draws.end(), store.params() + offset);
  }
  void update(std::uint64_t t, std::size_t cut) {
    set(t);
    step.applied_steps = t;
    average.update(store, 0, cut, step, *stream);
    average.update(store, cut, store.layout().total_floats(), step, *stream);
    stream->synchronize();
  }
  std::vector<float> values(std::size_t offset) const {
    return {average.data() + offset, average.data() + offset + 37};
  }
};

class MovingAverage : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(MovingAverage);

TEST_P(MovingAverage, is_pytorchs_over_twenty_steps_wherever_buckets_cut) {
  const auto expected = nlohmann::json::parse(std::ifstream("tests/golden/average.json")).at("params");
  Averaged a(make_device()), b(make_device());
  for (std::uint64_t t = 0; t < 20; ++t) {
    a.update(t, 48);
    b.update(t, 19);
    if (t < 2) EXPECT_LE(test::relative_error(a.values(0), expected.at(t)), update_tolerance) << t;
  }
  EXPECT_LE(test::relative_error(a.values(0), expected.at(2)), update_tolerance);
  EXPECT_EQ(a.values(0), a.values(48));
  EXPECT_EQ(a.values(0), b.values(0));
  for (std::size_t i = 37; i < 48; ++i) EXPECT_EQ(a.average.data()[i], 0.0f);
}

TEST_P(MovingAverage, begins_with_the_parameters_and_passes_over_skipped_steps) {
  Averaged a(make_device());
  a.update(0, 48);
  EXPECT_EQ(a.values(0), test::signed_draws(9, 1, 37));
  const auto before = a.values(0);
  a.step.nonfinite = 1;
  a.update(5, 48);
  EXPECT_EQ(a.values(0), before);
  a.average.restart(a.store, *a.stream);
  a.stream->synchronize();
  EXPECT_EQ(a.values(0), test::signed_draws(9, 6, 37));
}

TEST_P(MovingAverage, changes_places_with_the_parameters_and_back) {
  const auto device = make_device();
  const auto stream = device->make_stream(StreamUse::compute);
  FlatLayout layout;  // more than a piece, and not a multiple of it
  layout.params.push_back({0, "a", Shape{700'000}, 0, 700'000, true});
  layout.param_floats = 700'000;
  const ParameterStore store(*device, layout);
  ParameterAverage average(*device, 0.5, layout);
  for (std::size_t i = 0; i < layout.param_floats; ++i) store.params()[i] = static_cast<float>(i);
  average.restart(store, *stream);
  stream->synchronize();
  for (std::size_t i = 0; i < layout.param_floats; ++i) average.data()[i] += 0.5f;
  store.params()[layout.param_floats] = 7;  // behind the parameters: kept states and extras
  for (const float shift : {0.5f, 0.0f}) {
    average.exchange(store, *stream);
    stream->synchronize();
    for (std::size_t i = 0; i < layout.param_floats; ++i) {
      ASSERT_EQ(store.params()[i], static_cast<float>(i) + shift);
      ASSERT_EQ(average.data()[i], static_cast<float>(i) + 0.5f - shift);
    }
  }
  EXPECT_EQ(store.params()[layout.param_floats], 7.0f);
}

}  // namespace
}  // namespace dtrain
