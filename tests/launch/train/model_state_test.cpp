// What the trainer's loop reads and writes of the device, on a device whose memory the host cannot touch.
#include "launch/train/model_state.hpp"

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/plan/plan.hpp"
#include "tests/support/far_device.hpp"

namespace dtrain::launch {
namespace {

Graph small_model() {
  Graph g(4);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 3}});
  const auto target = g.add_input(PortUse::target, "target", {DType::i32, Shape{4}});
  const auto weight = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{4}});
  const auto logits = g.add("dense", Dense{5, true, Activation::none}, {x});
  g.add("loss", SoftmaxCrossEntropy{}, {logits, target, weight});
  return g;
}

/// A model on a device, with the state of Adam.
struct Bound {
  explicit Bound(Device& d)
      : device(d),
        plan(make_plan(small_model(), {})),
        store(d, plan.layout),
        optimizer(d, UpdateRule{Adam{}}, plan.layout),
        compute(d.make_stream(StreamUse::compute)),
        average(d, 0.5, plan.layout),
        model(d, store, optimizer, &average, *collective, *compute) {}
  Device& device;
  Plan plan;
  ParameterStore store;
  Optimizer optimizer;
  std::unique_ptr<Stream> compute;
  std::unique_ptr<Collective> collective = comm::make_host_collective(comm::make_solo_communicator());
  ParameterAverage average;
  ModelState model;
};

TEST(ModelState, initializes_a_device_as_it_does_the_cpu) {
  test::FarDevice far;
  const auto cpu = make_cpu_device(1);
  Bound a(far), b(*cpu);
  a.model.initialize(a.plan.graph, 7);
  b.model.initialize(b.plan.graph, 7);
  b.model.pull();
  EXPECT_EQ(test::FarDevice::at<float>(a.store.params()), b.store.params()[0]);
  a.model.pull();
  EXPECT_EQ(a.model.parameter_hash(), b.model.parameter_hash());
}

TEST(ModelState, what_is_loaded_reaches_the_device_and_comes_back) {
  test::FarDevice far;
  Bound run(far);
  float next = 1;
  for (const auto& t : run.model.tensors()) {
    for (std::size_t i = 0; i < t.bytes() / sizeof(float); ++i) static_cast<float*>(t.data)[i] = next++;
  }
  run.model.push();
  for (const auto& t : run.model.tensors()) std::memset(t.data, 0, t.bytes());
  run.model.pull();
  float expected = 1;
  std::vector<std::string> names;
  for (const auto& t : run.model.tensors()) {
    names.push_back(t.name);
    for (std::size_t i = 0; i < t.bytes() / sizeof(float); ++i)
      ASSERT_EQ(static_cast<const float*>(t.data)[i], expected++) << t.name;
  }
  EXPECT_EQ(names.size(), 8u);  // weight and bias: parameters, two moments and the average
}

TEST(ModelState, names_the_gradient_that_is_not_finite) {
  test::FarDevice far;
  Bound run(far);
  EXPECT_EQ(run.model.first_nonfinite_gradient(), "");
  const float bad = HUGE_VALF;
  far.copy(run.store.gradient(1).data, &bad, sizeof bad, *run.compute);
  EXPECT_EQ(run.model.first_nonfinite_gradient(), "dense.bias");
}

TEST(ModelState, copies_nothing_on_a_cpu) {
  const auto cpu = make_cpu_device(1);
  Bound run(*cpu);
  EXPECT_EQ(run.model.tensors().front().data, run.store.param(run.plan.layout.params.front().id).data);
}

}  // namespace
}  // namespace dtrain::launch
