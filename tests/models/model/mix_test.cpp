// Models whose samples are mixed in pairs: loss and gradients beside PyTorch's cross-entropy of soft targets.
#include <algorithm>
#include <fstream>
#include <memory>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "models/model/build.hpp"
#include "runtime/optim/step_math.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/program/program.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain::models {
namespace {

constexpr std::int64_t samples = 8;
// Against PyTorch in double.
constexpr double tolerance = 1e-5;

ModelConfig one_layer(double smoothing) {
  ModelConfig m;
  m.input = {12};
  m.layers = {{"dense_1", Dense{.units = 5}, 0, {}, {}}};
  m.loss.label_smoothing = smoothing;
  return m;
}

StoredPorts mixed() {
  StoredPorts stored;
  stored.mixed = true;
  return stored;
}

TEST(Mix, GivesTheLossTwoLabels) {
  const Graph g = build(one_layer(0), 4, DType::f32, mixed());
  ASSERT_EQ(g.inputs().size(), 3u);
  EXPECT_EQ(g.desc(g.inputs()[1].value).shape, (Shape{4, 2}));
  EXPECT_EQ(g.desc(g.inputs()[2].value).shape, (Shape{4, 2}));
  EXPECT_TRUE(g.losses()[0].counted);
  const Graph plain = build(one_layer(0), 4, DType::f32);
  EXPECT_EQ(plain.desc(plain.inputs()[1].value).shape, (Shape{4}));
  EXPECT_EQ(g.params().size(), plain.params().size()) << "checkpoints are the same";
}

TEST(Mix, LossAndGradientsArePyTorchs) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/mix.json"));
  for (const auto& example : golden.at("cases")) {
    SCOPED_TRACE(example.at("smoothing").dump());
    const auto device = make_cpu_device(1);
    const auto stream = device->make_stream(StreamUse::compute);
    Program program(*device, build(one_layer(example.at("smoothing")), samples, DType::f32, mixed()), {});
    const FlatLayout& layout = program.plan().layout;
    const ParameterStore store(*device, layout);
    const auto param = [&](std::size_t p, float* memory) { return memory + layout.of(static_cast<ParamId>(p)).offset; };
    const auto weight = example.at("weight").get<std::vector<float>>(),
               bias = example.at("bias").get<std::vector<float>>();
    std::copy(weight.begin(), weight.end(), param(0, store.params()));
    std::copy(bias.begin(), bias.end(), param(1, store.params()));
    program.pack(store, *stream);
    const InputSlot& slot = program.slot(0);
    const auto x = example.at("x").get<std::vector<float>>();
    std::copy(x.begin(), x.end(), slot.inputs[0].as<float>());
    for (std::size_t i = 0; i < samples; ++i) {
      const float own = example.at("own").at(i);
      for (std::size_t k = 0; k < 2; ++k) {
        slot.inputs[1].as<std::int32_t>()[2 * i + k] = example.at("labels").at(i).at(k);
        slot.inputs[2].as<float>()[2 * i + k] = k == 0 ? own : 1 - own;
      }
      slot.positions.as<std::uint64_t>()[i] = i;
    }
    StepState state;
    state.loss_weight[0] = samples;
    const LossRule rule = program.plan().graph.loss_rule();
    weigh_losses(state, rule);
    NoHooks hooks;
    program.run({Mode::train, true, true}, 0, store, state, hooks, *stream);
    const float* sums = store.loss_sums().as<float>();
    EXPECT_NEAR(static_cast<double>(sums[loss_sum]) / samples, example.at("loss").get<double>(), tolerance);
    EXPECT_NEAR(sums[weight_sum], samples, 1e-6);
    for (std::size_t p = 0; p < 2; ++p) {
      const float* at = param(p, store.gradients());
      const auto expected = example.at(p == 0 ? "weight_gradient" : "bias_gradient").get<std::vector<float>>();
      EXPECT_LE(test::relative_error({at, at + expected.size()}, expected), tolerance);
    }
  }
}

}  // namespace
}  // namespace dtrain::models
