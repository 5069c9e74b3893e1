// Muon: its matrices against PyTorch's, the other parameters against AdamW, and which parameters are matrices.
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/device/device.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/optim/matrices.hpp"
#include "runtime/optim/optimizer.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/op_table.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

/// Of the way that the parameters went in so many steps, in f32 against PyTorch in f64: a Newton-Schulz step multiplies
/// what rounding left of small singular values with 3.4.
constexpr double way_tolerance = 2e-5;
/// The same with products of bfloat16.
constexpr double half_tolerance = 0.05;

struct Row {
  Shape shape;
  std::vector<std::int64_t> rows;
  Muon rule;
};

const std::map<std::string, Row>& rows() {
  using Scale = Muon::Scale;
  static const std::map<std::string, Row> all{
      {"wide", {Shape{13, 37}, {13}, {.learning_rate = 0.02}}},
      {"tall", {Shape{70, 19}, {70}, {.learning_rate = 0.03, .momentum = 0.9, .scale = Scale::original}}},
      {"plain",
       {Shape{24, 24}, {24}, {.learning_rate = 0.02, .weight_decay = 0, .nesterov = false, .scale = Scale::original}}},
      {"filters", {Shape{8, 3, 3, 3}, {8}, {.learning_rate = 0.02, .weight_decay = 0.01}}},
      {"parts", {Shape{36, 15}, {16, 10, 10}, {.learning_rate = 0.02}}},
  };
  return all;
}

/// A matrix, and behind it the same values as a parameter that Muon leaves to AdamW.
struct Fixture {
  std::unique_ptr<Device> device;
  FlatLayout layout;
  std::size_t size, other;
  test::Reachable<float> w{reach<float>()}, g{reach<float>()}, m{reach<float>()}, v{reach<float>()};
  test::Reachable<double> norms{reach<double>()};
  test::Reachable<std::byte> scratch{reach<std::byte>()};
  test::Reachable<StepState> step_memory{1, reach<StepState>()};
  StepState& step = step_memory[0];

  template <class T>
  test::FromDevice<T> reach() const {
    return test::FromDevice<T>(*device);
  }
  Fixture(std::unique_ptr<Device> on, const Row& row)
      : device(std::move(on)), size(static_cast<std::size_t>(row.shape.elements())), other((size + 15) / 16 * 16) {
    layout.params.push_back({0, "matrix", row.shape, 0, size, true, {}, row.rows});
    layout.params.push_back({1, "other", row.shape, other, size, true});
    layout.param_floats = 2 * other;
    norms.resize(norm_scratch(layout));
    scratch.resize(matrix_scratch(layout));
    for (auto* buffer : {&w, &g, &m, &v}) buffer->assign(layout.total_floats(), 0.0f);
    const auto start = test::signed_draws(9, 0, static_cast<std::int64_t>(size));
    for (const std::size_t at : {std::size_t{0}, other})
      std::copy(start.begin(), start.end(), w.begin() + static_cast<long>(at));
    step.learning_rate = static_cast<float>(row.rule.learning_rate);
    step.sum_weight = 1;
  }
  void apply(const UpdateRule& rule, std::uint64_t t, float scale = 1) {
    const auto draws = test::signed_draws(9, 1 + t, static_cast<std::int64_t>(size));
    for (std::size_t i = 0; i < size; ++i) g[i] = g[other + i] = scale * draws[i];
    step.applied_steps = t;
    const auto stream = device->make_stream(StreamUse::compute);
    UpdateArgs args{w.data(), g.data(), {m.data(), v.data()}, 0, layout.param_floats, &layout, &step, norms.data()};
    args.matrices = scratch.data();
    device->kernels().update(rule, args, *stream);
    stream->synchronize();
  }
  std::vector<float> param(std::size_t offset) const {
    return {w.begin() + static_cast<long>(offset), w.begin() + static_cast<long>(offset + size)};
  }
  /// Of the matrix from its start.
  std::vector<float> way(std::vector<float> to) const {
    const auto start = test::signed_draws(9, 0, static_cast<std::int64_t>(size));
    for (std::size_t i = 0; i < size; ++i) to[i] -= start[i];
    return to;
  }
};

class MuonUpdates : public test::OnEachDevice {};
DTRAIN_ON_EACH_DEVICE(MuonUpdates);

TEST_P(MuonUpdates, of_matrices_are_pytorchs_over_twenty_steps) {
  const auto golden = nlohmann::json::parse(std::ifstream("tests/golden/muon.json"));
  for (const auto& [name, row] : rows()) {
    for (const auto products : {Muon::Products::float32, Muon::Products::bfloat16}) {
      const bool half = products == Muon::Products::bfloat16;
      UpdateRule rule{row.rule};
      std::get<Muon>(rule.kind).products = products;
      Fixture f(make_device(), row);
      for (std::uint64_t t = 0; t < 20; ++t) {
        f.apply(rule, t);
        if (t > 1 && t < 19) continue;
        const std::vector<float> expected = golden.at(name).at("params").at(t < 2 ? t : 2);
        EXPECT_LE(test::relative_error(f.way(f.param(0)), f.way(expected)), half ? half_tolerance : way_tolerance)
            << name << " step " << t << (half ? " in bfloat16" : "");
      }
      for (std::size_t i = f.size; i < f.other; ++i) EXPECT_EQ(f.w[i], 0.0f) << name;
      for (std::size_t i = 0; i < f.size; ++i) EXPECT_EQ(f.v[i], 0.0f) << name;  // a matrix has one state
    }
  }
}

TEST_P(MuonUpdates, of_other_parameters_are_adamws_with_its_own_rate_and_decay) {
  const Row& row = rows().at("wide");
  UpdateRule rule{row.rule};
  const AdamW adamw{.learning_rate = 0.005, .beta2 = 0.95, .weight_decay = 0.3};
  std::get<Muon>(rule.kind).adamw = adamw;
  Fixture f(make_device(), row), plain(make_device(), row);
  f.step.learning_rate *= 0.5f;  // as a schedule says, for both kinds
  plain.step.learning_rate = 0.5f * 0.005f;
  for (std::uint64_t t = 0; t < 5; ++t) {
    f.apply(rule, t);
    plain.apply({adamw}, t);
  }
  EXPECT_LE(test::relative_error(f.param(f.other), plain.param(f.other)), 1e-6);
  EXPECT_GT(test::relative_error(f.way(f.param(0)), plain.way(plain.param(0))), 0.1);  // matrices go another way
}

TEST_P(MuonUpdates, of_groups_have_their_own_rate_and_decay) {
  const Row& row = rows().at("parts");
  Row other = row;
  other.rule.weight_decay = 0.7;
  Fixture grouped(make_device(), row), plain(make_device(), other);
  grouped.layout.params[0].update = {.learning_rate_factor = 0.5, .weight_decay = 0.7};
  plain.step.learning_rate *= 0.5f;
  for (std::uint64_t t = 0; t < 3; ++t) {
    grouped.apply({row.rule}, t);
    plain.apply({other.rule}, t);
  }
  EXPECT_EQ(grouped.param(0), plain.param(0));
}

TEST_P(MuonUpdates, divide_by_the_sum_of_weights_and_the_loss_scale_and_clip) {
  const Row& row = rows().at("tall");
  Fixture plain(make_device(), row), scaled(make_device(), row);
  scaled.step.sum_weight = 64;
  scaled.step.loss_scale = 1024;
  scaled.step.gradient_scale = 0.5f;
  plain.apply({row.rule}, 0);
  scaled.apply({row.rule}, 0, 64 * 1024 * 2);
  EXPECT_EQ(plain.w, scaled.w);
}

TEST_P(MuonUpdates, of_a_step_that_is_not_finite_are_skipped_and_of_no_gradient_only_decay) {
  const Row& row = rows().at("wide");
  Fixture f(make_device(), row);
  const auto before = f.w;
  f.step.nonfinite = 1;
  f.apply({row.rule}, 0, NAN);
  EXPECT_EQ(f.w, before);
  for (const float m : f.m) EXPECT_EQ(m, 0.0f);
  f.step.nonfinite = 0;
  f.apply({row.rule}, 0, 0);
  const float shrink = static_cast<float>(1 - 0.02 * 0.1);
  for (std::size_t i = 0; i < f.size; ++i) EXPECT_FLOAT_EQ(f.w[i], shrink * before[i]);
}

TEST_P(MuonUpdates, refuse_a_part_of_a_matrix) {
  const Row& row = rows().at("wide");
  Fixture f(make_device(), row);
  const auto stream = f.device->make_stream(StreamUse::compute);
  UpdateArgs args{f.w.data(), f.g.data(), {f.m.data(), f.v.data()}, 0, 32, &f.layout, &f.step, f.norms.data()};
  args.matrices = f.scratch.data();
  EXPECT_THROW(
      {
        f.device->kernels().update({row.rule}, args, *stream);
        stream->synchronize();
      },
      BugError);
}

// ---- which parameters are matrices ----------------------------------------------------------------------------------

using Rows = std::vector<std::int64_t>;

Rows matrices_of(const Graph& graph, const std::string& name) {
  for (const GraphParam& p : graph.params())
    if (p.name == name) return p.matrices;
  throw BugError(name);
}

void add_loss(Graph& g, ValueId of, std::int64_t positions) {
  const Shape shape = positions > 0 ? Shape{4, positions} : Shape{4};
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, shape});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{4}});
  g.add_loss("loss", SoftmaxCrossEntropy{}, {of, y, w});
}

/// An embedding with positions, attention with grouped queries, a gated dense part, and a head that may be tied.
Graph transformer(bool tied) {
  Graph g(4);
  const auto x = g.add_input(PortUse::input, "tokens", {DType::i32, Shape{4, 6}}, 11);
  const auto embedded = g.add("embed", Embedding{11, 16}, {x});
  auto v = g.add("positions", Positions{6}, {embedded});
  v = g.add("norm", RmsNorm{}, {v});
  v = g.add("qkv", Dense{.units = 32}, {v});
  v = g.add("attention", Attention{.heads = 4, .kv_heads = 2}, {v});
  v = g.add("o", Dense{.units = 16}, {v});
  v = g.add("gate_up", Dense{.units = 48}, {v});
  v = g.add("gate", Gated{}, {v});
  v = g.add("down", Dense{.units = 16}, {v});
  const std::vector<ParamId> shared = tied ? std::vector<ParamId>{0} : std::vector<ParamId>{};
  v = g.add("head", Dense{.units = 11, .bias = false}, {v}, shared);
  add_loss(g, v, 6);
  return g;
}

TEST(Matrices, are_hidden_weights_and_parts_of_fused_ones) {
  for (const bool tied : {false, true}) {
    Graph g = transformer(tied);
    mark_matrices(g, {Muon{}});
    EXPECT_EQ(matrices_of(g, "qkv.weight"), (Rows{16, 8, 8}));
    EXPECT_EQ(matrices_of(g, "o.weight"), Rows{16});
    EXPECT_EQ(matrices_of(g, "gate_up.weight"), (Rows{24, 24}));
    EXPECT_EQ(matrices_of(g, "down.weight"), Rows{16});
    for (const char* other : {"embed.weight", "positions.weight", "norm.weight", "qkv.bias"})
      EXPECT_EQ(matrices_of(g, other), Rows{}) << other;
    if (!tied) EXPECT_EQ(matrices_of(g, "head.weight"), Rows{});
  }
}

TEST(Matrices, are_filters_but_not_of_groups) {
  Graph g(4);
  auto v = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 8, 8, 4}});
  v = g.add("conv", Conv{.filters = 8, .kernel = {3, 3}}, {v});
  v = g.add("depthwise", Conv{.filters = 8, .kernel = {3, 3}, .groups = 8}, {v});
  v = g.add("flatten", Flatten{}, {v});
  v = g.add("dense", Dense{.units = 12}, {v});
  v = g.add("head", Dense{.units = 10}, {v});
  add_loss(g, v, 0);
  mark_matrices(g, {Muon{}});
  EXPECT_EQ(matrices_of(g, "conv.weight"), Rows{8});
  EXPECT_EQ(matrices_of(g, "depthwise.weight"), Rows{});
  EXPECT_EQ(matrices_of(g, "dense.weight"), Rows{12});
  EXPECT_EQ(matrices_of(g, "head.weight"), Rows{});
}

TEST(Matrices, are_only_muons_and_what_groups_leave_it) {
  Graph g = transformer(false);
  mark_matrices(g, {AdamW{}});
  for (const GraphParam& p : g.params()) EXPECT_EQ(p.matrices, Rows{}) << p.name;
  UpdateRule rule{Muon{}};
  rule.groups = {{.match = "o.*", .orthogonalize = false}, {.match = "down.*", .frozen = true}};
  apply_groups(g, rule.groups);
  mark_matrices(g, rule);
  EXPECT_EQ(matrices_of(g, "o.weight"), Rows{});
  EXPECT_EQ(matrices_of(g, "down.weight"), Rows{});
  EXPECT_EQ(matrices_of(g, "qkv.weight"), (Rows{16, 8, 8}));
}

TEST(Matrices, are_there_or_muon_is_refused) {
  Graph g(4);
  auto v = g.add_input(PortUse::input, "sample", {DType::f32, Shape{4, 8}});
  v = g.add("head", Dense{.units = 10}, {v});
  add_loss(g, v, 0);
  EXPECT_THROW(mark_matrices(g, {Muon{}}), ConfigError);
}

}  // namespace
}  // namespace dtrain
