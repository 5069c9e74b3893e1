// A graph beside the one that is trained computes with the same parameters: they are found by their names.
#include <vector>

#include <gtest/gtest.h>

#include "runtime/program/program.hpp"
#include "tests/support/devices.hpp"

namespace dtrain {
namespace {

/// Two branches from one input; `swapped`: their layers, and so their parameters, in the other order. `loss`: trained.
Graph branches(std::int64_t batch, bool swapped, bool loss, std::int64_t units = 3) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "x", {DType::f32, Shape{batch, 4}});
  ValueId a = -1, b = -1;
  const auto add_a = [&] { a = g.add("a", Dense{.units = units, .activation = Activation::relu}, {x}); };
  const auto add_b = [&] { b = g.add("b", BatchNorm{}, {g.add("b_in", Dense{.units = units}, {x})}); };
  if (swapped) add_b();
  add_a();
  if (!swapped) add_b();
  const auto out = g.add("sum", Add{}, {a, b});
  g.add_output("output", out);
  if (loss) {
    const auto y = g.add_input(PortUse::target, "y", {DType::i32, Shape{batch}});
    const auto w = g.add_input(PortUse::weight, "w", {DType::f32, Shape{batch}});
    g.add_loss("loss", SoftmaxCrossEntropy{}, {out, y, w});
  }
  return g;
}

PlanOptions evaluation() {
  PlanOptions options;
  options.train = false;
  return options;
}

class OtherGraph : public ::testing::Test {
 protected:
  std::unique_ptr<Device> device_ = make_cpu_device(1);
  std::unique_ptr<Stream> stream_ = device_->make_stream(StreamUse::compute);
  Program trained_{*device_, branches(4, false, true), {}};
  ParameterStore store_{*device_, trained_.plan().layout};
  NoHooks hooks_;

  OtherGraph() {
    initialize(store_.params(), store_.layout(), trained_.plan().graph, 3);
    // Running statistics that a graph which looks elsewhere would not have.
    for (const FlatState& s : store_.layout().states)
      for (std::size_t i = 0; i < s.size; ++i) store_.params()[s.offset + i] = 0.5f + static_cast<float>(i);
  }
  std::vector<float> outputs(Program& program, std::int64_t batch) {
    const Tensor& x = program.input(0, "x");
    for (std::int64_t i = 0; i < 4 * batch; ++i) x.as<float>()[i] = static_cast<float>(i % 4) - 1.5f;
    for (std::size_t i = 1; i < program.slot(0).inputs.size(); ++i) {
      const Tensor& other = program.slot(0).inputs[i];
      std::fill_n(other.as<std::byte>(), other.bytes(), std::byte{0});
    }
    StepState state;
    program.pack(store_, *stream_);
    program.run({Mode::evaluate, true, true}, 0, store_, state, hooks_, *stream_);
    const Tensor out = program.output(0);
    return {out.as<float>(), out.as<float>() + 3};  // of the first sample
  }
};

TEST_F(OtherGraph, FindsParametersAndStatesByTheirNames) {
  Program predicts(*device_, branches(2, true, false), evaluation());
  ASSERT_NE(predicts.plan().graph.params()[0].name, trained_.plan().graph.params()[0].name);
  EXPECT_EQ(outputs(predicts, 2), outputs(trained_, 4));
}

TEST_F(OtherGraph, SaysWhichParameterIsNotThereOrAnother) {
  const auto message = [&](Graph graph) -> std::string {
    Program program(*device_, std::move(graph), evaluation());
    try {
      program.pack(store_, *stream_);
    } catch (const ShapeError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(message(branches(2, false, false, 5)), "the parameter a.weight has shape [3, 4]; expected [5, 4]");
  Graph more(2);
  more.add_output("y",
                  more.add("c", Dense{.units = 2}, {more.add_input(PortUse::input, "x", {DType::f32, Shape{2, 4}})}));
  EXPECT_EQ(message(std::move(more)), "the model has no parameter c.weight");
}

}  // namespace
}  // namespace dtrain
