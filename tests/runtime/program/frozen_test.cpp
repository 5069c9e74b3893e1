// Gradients of a model with frozen or tied parameters, on each device.
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/optim/groups.hpp"
#include "runtime/program/program.hpp"
#include "runtime/random/rng.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

constexpr std::uint64_t seed = 5;
constexpr std::int64_t batch = 6;
// A GPU's library may compute the gradients that are left by another algorithm: within what the op table allows.
constexpr double algorithm_tolerance = 1e-5;
// f32 sums of two contributions, in another order.
constexpr double sum_tolerance = 1e-6;

Graph layered(const std::vector<ParameterGroup>& groups) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{batch, 8, 8, 2}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{batch}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
  // Behind an activation: a bias right before a batch norm has a gradient of rounding errors alone.
  auto v = g.add("conv_1", Conv{.filters = 4, .kernel = {3, 3}, .activation = Activation::tanh}, {x});
  v = g.add("batch_1", BatchNorm{.activation = Activation::relu}, {v});
  v = g.add("conv_2", Conv{.filters = 8, .kernel = {3, 3}, .activation = Activation::relu}, {v});
  v = g.add("flatten", Flatten{}, {v});
  v = g.add("dense_1", Dense{.units = 16}, {v});
  v = g.add("norm_1", LayerNorm{}, {v});
  v = g.add("dense_2", Dense{.units = 16, .activation = Activation::relu}, {v});
  v = g.add("dense_3", Dense{.units = 5}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  apply_groups(g, groups);
  return g;
}

using Values = std::map<std::string, std::vector<float>>;

struct Bound {
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream = device->make_stream(StreamUse::compute);
  Program program;
  ParameterStore store;
  test::Reachable<StepState> state_memory{1, test::FromDevice<StepState>(*device)};
  NoHooks hooks;

  Bound(std::unique_ptr<Device> on, Graph graph, const PlanOptions& options = {})
      : device(std::move(on)), program(*device, std::move(graph), options), store(*device, program.plan().layout) {
    initialize(store.params(), store.layout(), program.plan().graph, seed);
  }
  void run(int passes = 2) {
    program.pack(store, *stream);
    const InputSlot& slot = program.slot(0);
    const RandomKey key = random_key(seed, Purpose::test);
    for (std::int64_t i = 0; i < slot.inputs[0].elements(); ++i)
      slot.inputs[0].as<float>()[i] = 2 * to_unit(draw4(key, static_cast<std::uint64_t>(i), 0, 0).v[0]) - 1;
    for (std::int64_t n = 0; n < batch; ++n) {
      slot.inputs[1].as<std::int32_t>()[n] = static_cast<std::int32_t>(n % 5);
      slot.inputs[2].as<float>()[n] = 1;
    }
    for (int p = 0; p < passes; ++p)
      program.run({Mode::train, p == 0, p + 1 == passes}, 0, store, state_memory[0], hooks, *stream);
    stream->synchronize();
  }
  Values gradients() const {
    Values values;
    for (const FlatParam& p : store.layout().trained()) {
      const float* at = store.gradients() + p.offset;
      values[p.name].assign(at, at + p.size);
    }
    return values;
  }
  /// Of the batch norms: mean and variance of the batch.
  std::vector<float> statistics() const {
    const FlatLayout& l = store.layout();
    return {store.gradients() + l.param_floats, store.gradients() + l.state_end()};
  }
};

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double d = 0, n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    d += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    n += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(d / std::max(n, 1e-30));
}

class FrozenParameters : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(FrozenParameters);

TEST_P(FrozenParameters, leave_the_gradients_of_the_others_as_they_are) {
  Bound all(make_device(), layered({}));
  all.run();
  const Values expected = all.gradients();
  for (const std::vector<std::string>& frozen : std::vector<std::vector<std::string>>{
           {"conv_*", "batch_1.*"},                 // a trunk
           {"conv_2.*", "dense_1.*", "dense_2.*"},  // in between: data gradients go through
           {"batch_1.*", "norm_1.*"},               // norms, which give all gradients at once
           {"batch_1.bias", "norm_1.weight"},       // one of two parameters
           {"conv_1.bias", "conv_2.weight", "dense_?.bias"},
           {"conv_1.weight", "dense_1.weight", "dense_3.weight", "batch_1.weight", "norm_1.bias"}}) {
    std::vector<ParameterGroup> groups;
    for (const std::string& pattern : frozen) groups.push_back({pattern, 1, {}, true});
    SCOPED_TRACE(testing::PrintToString(frozen));
    Bound some(make_device(), layered(groups));
    EXPECT_EQ(parameter_hash(some.store.params(), some.store.layout()),
              parameter_hash(all.store.params(), all.store.layout()));
    some.run();
    const Values found = some.gradients();
    EXPECT_LT(found.size(), expected.size());
    for (const auto& [name, values] : found) {
      if (some.device->kind() == DeviceKind::cpu)
        EXPECT_EQ(values, expected.at(name)) << name;
      else
        EXPECT_LE(relative_error(values, expected.at(name)), algorithm_tolerance) << name;
    }
    EXPECT_EQ(some.statistics(), all.statistics());  // of frozen batch norms as well
    EXPECT_EQ(some.store.loss_sums().as<float>()[loss_sum], all.store.loss_sums().as<float>()[loss_sum]);
    EXPECT_THROW((void)some.store.gradient(some.store.layout().frozen().front().id), BugError);
  }
}

TEST_P(FrozenParameters, leave_the_bits_with_recomputation) {
  const std::vector<ParameterGroup> groups{{"conv_1.*", 1, {}, true}, {"batch_1.*", 1, {}, true}};
  Bound kept(make_device(), layered(groups));
  kept.run();
  for (const RecomputePolicy policy : {RecomputePolicy::light, RecomputePolicy::block}) {
    PlanOptions options;
    options.recompute = policy;
    Bound again(make_device(), layered(groups), options);
    again.run();
    EXPECT_EQ(again.gradients(), kept.gradients());
    EXPECT_EQ(again.statistics(), kept.statistics());
  }
}

// ---- tied ----------------------------------------------------------------------------------------------------------

/// Dense layers of one shape; `tied`: the third and the fifth have the parameters of the first.
Graph chain(bool tied) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{batch, 64}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{batch}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
  const Dense same{.units = 64};
  std::vector<ParamId> first;
  auto v = x;
  for (int i = 1; i <= 5; ++i) {
    const std::string n = std::to_string(i);
    v = g.add("dense_" + n, same, {v}, tied && i % 2 == 1 ? first : std::vector<ParamId>());
    if (i == 1) first = g.nodes().back().params;
    v = g.add("norm_" + n, LayerNorm{}, {v});
    v = g.add("relu_" + n, Activate{Activation::relu}, {v});
  }
  v = g.add("head", Dense{.units = 5}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

PlanOptions small_buckets(RecomputePolicy policy) {
  PlanOptions options;
  options.recompute = policy;
  options.buckets = {.bucket_mib = 0.004, .last_bucket_mib = 0.002, .at_least = 1, .smallest_mib = 0.002};
  return options;
}

class TiedParameters : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(TiedParameters);

TEST_P(TiedParameters, have_the_sum_of_the_gradients_of_all_who_read_them) {
  Bound tied(make_device(), chain(true)), apart(make_device(), chain(false));
  const auto param = [](const Bound& b, const std::string& name) {
    for (const FlatParam& p : b.store.layout().params)
      if (p.name == name) return std::span<float>(b.store.params() + p.offset, p.size);
    return std::span<float>();
  };
  const auto shared_name = [](const std::string& name) {
    for (const char* layer : {"dense_3", "dense_5"})
      if (name.starts_with(layer)) return "dense_1" + name.substr(7);
    return name;
  };
  for (const FlatParam& p : apart.store.layout().params) {
    const auto from = param(tied, shared_name(p.name)), to = param(apart, p.name);
    ASSERT_EQ(from.size(), to.size()) << p.name;
    std::copy(from.begin(), from.end(), to.begin());
  }
  tied.run();
  apart.run();
  Values sums;
  for (const auto& [name, values] : apart.gradients()) {
    auto& sum = sums[shared_name(name)];
    sum.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
  }
  for (const auto& [name, values] : tied.gradients())
    EXPECT_LE(relative_error(values, sums.at(name)), sum_tolerance) << name;
}

TEST_P(TiedParameters, have_the_same_bits_when_values_are_computed_again) {
  Bound kept(make_device(), chain(true), small_buckets(RecomputePolicy::none));
  kept.run();
  for (const RecomputePolicy policy : {RecomputePolicy::light, RecomputePolicy::block}) {
    Bound again(make_device(), chain(true), small_buckets(policy));
    EXPECT_LT(again.program.plan().train.arena_bytes, kept.program.plan().train.arena_bytes);
    again.run();
    EXPECT_EQ(again.gradients(), kept.gradients());
  }
}

TEST(TiedPlan, a_bucket_is_ready_after_the_last_contribution_to_what_is_in_it) {
  for (const RecomputePolicy policy : {RecomputePolicy::none, RecomputePolicy::light, RecomputePolicy::block}) {
    const Plan plan = make_plan(chain(true), small_buckets(policy));
    ASSERT_GT(plan.layout.buckets.size(), 3u);
    std::vector<std::size_t> last(plan.graph.params().size()), ready(plan.layout.buckets.size());
    std::vector<int> contributions(plan.graph.params().size());
    for (std::size_t t = 0; t < plan.train.steps.size(); ++t) {
      const Step& step = plan.train.steps[t];
      if (const auto* b = std::get_if<BucketReady>(&step)) ready[static_cast<std::size_t>(b->bucket)] = t;
      NodeId n = -1;
      if (const auto* b = std::get_if<BackwardParams>(&step)) n = b->node;
      if (const auto* b = std::get_if<Backward>(&step)) n = b->node;
      if (n < 0) continue;
      for (const ParamId p : plan.graph.nodes()[static_cast<std::size_t>(n)].params) {
        last[static_cast<std::size_t>(p)] = t;
        ++contributions[static_cast<std::size_t>(p)];
      }
    }
    EXPECT_EQ(contributions[0], 3);  // dense_1.weight
    for (const FlatParam& p : plan.layout.params)
      for (std::size_t b = 0; b < ready.size(); ++b)
        if (p.offset < plan.layout.buckets[b].end && p.offset + p.size > plan.layout.buckets[b].begin)
          EXPECT_GT(ready[b], last[static_cast<std::size_t>(p.id)]) << p.name;
  }
}

}  // namespace
}  // namespace dtrain
