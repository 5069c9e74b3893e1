// Every row of the op table on each device: values and gradients against PyTorch and finite differences, write
// rules, and what bits must not depend on.
#include <cmath>
#include <fstream>
#include <map>
#include <span>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "runtime/cuda/library/cudnn_graphs.hpp"
#include "runtime/cuda/library/graph_check.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

/// Against PyTorch in double: sums of at most a few hundred f32 products.
constexpr double value_tolerance = 1e-5;
/// bfloat16 keeps eight bits, so a rounded tensor is off by 2e-3 of its norm; float16 keeps eleven, but its rows are
/// held against inputs that were not rounded.
constexpr double half_tolerance = 1e-2;
/// TF32 rounds factors to ten bits: each product is off by up to 1e-3, their sums by a third of that.
constexpr double tf32_tolerance = 1e-3;
/// Finite differences of an f32 forward pass, directional, accumulated in double.
constexpr double difference_tolerance = 5e-3;
/// Where a parameter moves many units of a relu, some cross its kink within the step.
constexpr double kink_tolerance = 3e-2;
/// oneDNN may cut a product otherwise for another number of threads; in bfloat16 some results then round otherwise.
constexpr double thread_tolerance = 1e-6, bf16_thread_tolerance = 2e-3;

const nlohmann::json& goldens() {
  static const nlohmann::json json = nlohmann::json::parse(std::ifstream("tests/golden/ops.json"));
  return json;
}

bool computes_in_half(const OpRow& row) {
  const auto* cast = std::get_if<Cast>(&row.op);
  return test::dtype_of(row) != DType::f32 || (cast && cast->to != DType::f32);
}

/// What a library multiplies.
bool is_product(const OpSpec& op) {
  return std::holds_alternative<Dense>(op) || std::holds_alternative<LinearCrossEntropy>(op) ||
         std::holds_alternative<Conv>(op) || std::holds_alternative<ConvTranspose>(op);
}

/// A row on a device.
struct Case {
  test::AvailableDevice device;
  OpRow row;
  bool tf32 = false;
  std::unique_ptr<Device> make() const { return tf32 ? device.make_tf32() : device.make(); }
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.device << ' ' << c.row.name; }
};
/// The cpu has none, and linear and convolution of the simulated device are the cpu's.
bool has_float16(const test::AvailableDevice& device, const OpSpec& op) {
  if (device.name == "simulated") return !is_product(op) || std::holds_alternative<ConvTranspose>(op);
  return device.name != "cpu";
}
std::vector<Case> cases(bool (*chosen)(const OpRow&)) {
  std::vector<Case> all;
  for (const auto& device : test::available_devices())
    for (const OpRow& row : test::op_table())
      if (chosen(row) && (test::dtype_of(row) != DType::f16 || has_float16(device, row.op)))
        all.push_back({device, row});
  return all;
}
/// What TF32 changes: products and convolutions of float32.
std::vector<Case> tf32_cases() {
  std::vector<Case> all;
  for (const Case& c : cases([](const OpRow& row) { return test::dtype_of(row) == DType::f32 && is_product(row.op); }))
    if (c.device.make_tf32 != nullptr) all.push_back({c.device, c.row, true});
  return all;
}
std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return info.param.device.name + "_" + info.param.row.name;
}
/// Rows in float16 have the inputs of those in bfloat16.
std::string golden_name(const OpRow& row) {
  return test::dtype_of(row) == DType::f16 ? row.name.substr(0, row.name.rfind('_')) + "_bf16" : row.name;
}

class Ops : public testing::TestWithParam<Case> {
 protected:
  const OpRow& row_ = GetParam().row;
  std::unique_ptr<Device> device_ = GetParam().make();
  OpRun run_{*device_, row_};
  bool loss() const { return test::is_loss(row_); }
  bool half() const { return computes_in_half(row_); }
  double tolerance() const { return half() ? half_tolerance : GetParam().tf32 ? tf32_tolerance : value_tolerance; }
  std::size_t params() const { return run_.shape().params.size(); }

  /// Gradients of all inputs that have one, then of all parameters.
  std::vector<std::vector<float>> grads(const OpRun& run) const {
    std::vector<std::vector<float>> all;
    for (std::size_t i = 0; i < run.differentiable().size(); ++i) all.push_back(run.grad_in(i));
    for (std::size_t p = 0; p < params(); ++p) all.push_back(run.grad_param(p));
    return all;
  }
  /// Output, gradients and kept statistics of one forward and backward pass.
  std::vector<std::vector<float>> results(OpRun& run) const {
    run.forward();
    std::vector<std::vector<float>> all{run.out()};
    run.backward(Write::overwrite, Write::overwrite);
    for (auto& grad : grads(run)) all.push_back(std::move(grad));
    for (std::size_t s = 0; s < run.shape().state.size(); ++s) all.push_back(run.state_sum(s));
    return all;
  }
};

TEST_P(Ops, value_and_gradients_are_pytorchs) {
  const auto& golden = goldens().at(golden_name(row_));
  ASSERT_EQ(golden.at("seed").get<std::uint64_t>(), row_.seed);
  run_.forward();
  if (loss()) {
    const auto sums = golden.at("sums").get<std::vector<float>>();
    const auto out = run_.out();
    // Logits that the op makes itself are rounded.
    const double each = std::holds_alternative<LinearCrossEntropy>(row_.op) ? tolerance() : value_tolerance;
    for (std::size_t i = 0; i < sums.size(); ++i) EXPECT_NEAR(out[i], sums[i], each * std::abs(sums[i]));
  } else {
    EXPECT_LE(test::relative_error(run_.out(), golden.at("out")), tolerance());
  }
  run_.backward(Write::overwrite, Write::overwrite);
  ASSERT_EQ(golden.at("grad_in").size(), run_.differentiable().size());
  for (std::size_t i = 0; i < run_.differentiable().size(); ++i)
    EXPECT_LE(test::relative_error(run_.grad_in(i), golden.at("grad_in").at(i)), tolerance()) << "input " << i;
  for (std::size_t p = 0; p < params(); ++p)
    EXPECT_LE(test::relative_error(run_.grad_param(p), golden.at("grad_params").at(p)), tolerance()) << p;
}

TEST_P(Ops, bits_depend_on_neither_repetition_nor_threads_nor_aliases) {
  const auto expected = results(run_);
  run_.poison();
  EXPECT_EQ(results(run_), expected);

  const bool cpu = device_->kind() == DeviceKind::cpu;
  const auto two = cpu ? make_cpu_device(2) : GetParam().make();
  two->kernels().use(device_->kernels().choices());  // what was measured to be quickest, as a run keeps it
  OpRun on_two(*two, row_);
  const auto seen = results(on_two);
  const bool vendor = cpu && is_product(row_.op);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    if (vendor)
      EXPECT_LE(test::relative_error(seen[i], expected[i]), half() ? bf16_thread_tolerance : thread_tolerance) << i;
    else
      EXPECT_EQ(seen[i], expected[i]) << i;
  }

  for (const Alias& alias : run_.shape().may_share) {
    OpRun shared(*device_, row_);
    shared.share(alias);
    const std::string which = alias.kind == Alias::Kind::out_over_in ? "output over input " : "gradient of input ";
    if (alias.kind == Alias::Kind::out_over_in && (run_.shape().backward_reads.in >> alias.from & 1u)) {
      shared.forward();  // the plan shares only what backward does not read
      EXPECT_EQ(shared.out(), expected[0]) << which << int{alias.from};
    } else {
      EXPECT_EQ(results(shared), expected) << which << int{alias.from};
    }
  }
}

TEST_P(Ops, slots_are_overwritten_added_to_or_left_alone) {
  run_.forward();
  run_.backward(Write::overwrite, Write::overwrite);
  const auto expected = grads(run_);
  run_.set_grads(0.5f);
  run_.backward(Write::accumulate, Write::accumulate);
  const auto added = grads(run_);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    auto plus_half = expected[i];
    for (float& f : plus_half) f += 0.5f;
    EXPECT_LE(test::relative_error(added[i], plus_half), half() ? half_tolerance : 1e-6) << i;
  }

  const auto all_seven = [](const std::vector<float>& v) {
    return std::all_of(v.begin(), v.end(), [](float f) { return f == 7.0f; });
  };
  const std::size_t slots = expected.size(), inputs = slots - params();
  run_.set_grads(7.0f);
  run_.backward_activation();
  run_.backward_only(Write::none, std::vector<Write>(params(), Write::none));
  for (const auto& grad : grads(run_)) EXPECT_TRUE(all_seven(grad));
  for (std::size_t one = 0; one < slots; ++one) {
    std::vector<Write> writes(slots, Write::none);
    writes[one] = Write::overwrite;
    run_.set_grads(7.0f);
    run_.backward_only({writes.begin(), writes.begin() + static_cast<std::ptrdiff_t>(inputs)},
                       {writes.begin() + static_cast<std::ptrdiff_t>(inputs), writes.end()});
    const auto seen = grads(run_);
    for (std::size_t i = 0; i < slots; ++i) EXPECT_EQ(all_seven(seen[i]), i != one) << one << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Ops, testing::ValuesIn(cases([](const OpRow&) { return true; })), name_of_case);
INSTANTIATE_TEST_SUITE_P(TF32, Ops, testing::ValuesIn(tf32_cases()), name_of_case);

// ---- beside the CPU -------------------------------------------------------------------------------------------------

class BesideCpu : public Ops {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BesideCpu);

TEST_P(BesideCpu, values_and_gradients_are_the_same) {
  const auto cpu = make_cpu_device(1);
  OpRun there(*cpu, row_);
  const auto expected = results(there), seen = results(run_);
  ASSERT_EQ(seen.size(), expected.size());
  for (std::size_t i = 0; i < seen.size(); ++i)
    EXPECT_LE(test::relative_error(seen[i], expected[i]), 2 * tolerance()) << i;  // either is off by so much
}

std::vector<Case> cases_beside_cpu() {
  std::vector<Case> all =
      cases([](const OpRow& row) { return test::dtype_of(row) != DType::f16; });  // which the CPU has not
  std::erase_if(all, [](const Case& c) { return c.device.name == "cpu"; });
  return all;
}
INSTANTIATE_TEST_SUITE_P(Table, BesideCpu, testing::ValuesIn(cases_beside_cpu()), name_of_case);

/// Shapes that fill many blocks; float16 beside the CPU's bfloat16, of the same inputs, which both types have.
class LargeBesideCpu : public BesideCpu {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LargeBesideCpu);

TEST_P(LargeBesideCpu, values_and_gradients_are_the_same) {
  const auto cpu = make_cpu_device(1);
  OpRun there(*cpu, test::dtype_of(row_) == DType::f16 ? test::in_dtype(row_, DType::bf16) : row_);
  run_.step.loss_scale = there.step.loss_scale = 8;
  const auto expected = results(there), seen = results(run_);
  ASSERT_EQ(seen.size(), expected.size());
  for (std::size_t i = 0; i < seen.size(); ++i)
    EXPECT_LE(test::relative_error(seen[i], expected[i]), tolerance()) << row_.in.shape.str() << " " << i;
}

std::vector<Case> large_cases_beside_cpu() {
  std::vector<Case> all;
  for (const auto& device : test::available_devices()) {
    if (device.name == "cpu") continue;
    for (const OpRow& row : test::large_ops())
      for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
        if (dtype != DType::f16 || has_float16(device, row.op)) all.push_back({device, test::in_dtype(row, dtype)});
  }
  return all;
}
INSTANTIATE_TEST_SUITE_P(Large, LargeBesideCpu, testing::ValuesIn(large_cases_beside_cpu()), [](const auto& instance) {
  return name_of_case(instance) + "_" + std::to_string(instance.index);
});

/// Where own kernels and an engine of cuDNN can do an op: each of them, whichever is quicker.
class EitherWay : public LargeBesideCpu {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EitherWay);

/// The graphs of an op, by their keys, each with an engine for it.
std::map<std::string, std::string> engines_of(const test::AvailableDevice& device, const OpRow& row) {
  Graph graph(row.in.shape[0]);
  graph.add("op", row.op, {graph.add_input(PortUse::input, "x", row.in)});
  std::map<std::string, std::string> engines;
  for (const cuda::CudnnGraph& g : cuda::graphs_of(row.op, std::span(&row.in, 1), false))
    engines[cuda::key_of(g)] = "eng1_k2=3";
  if (device.name == "simulated") return engines;
  for (const cuda::GraphSupport& support : cuda::check_graphs(graph, {}, false))
    engines[support.key] = support.favourite;
  return engines;
}

TEST_P(EitherWay, values_and_gradients_are_the_same) {
  const auto cpu = make_cpu_device(1);
  OpRun there(*cpu, test::dtype_of(row_) == DType::f16 ? test::in_dtype(row_, DType::bf16) : row_);
  const auto expected = results(there);
  const AlgorithmChoices quicker = device_->kernels().choices();
  const auto engines = engines_of(GetParam().device, row_);
  for (const bool own : {true, false}) {
    AlgorithmChoices wanted;
    for (const auto& [choice, algorithm] : quicker.all())
      for (const auto& [key, engine] : engines)
        if (choice.ends_with(": " + key) || choice.ends_with(": " + key + " added"))
          wanted.set(choice, own ? "own" : engine);
    // With vectors of channels cuDNN has engines for all of these.
    if (row_.in.channels() % 8 == 0) {
      EXPECT_EQ(wanted.all().size(), engines.size());
    }
    const auto device = GetParam().make();
    device->kernels().use(wanted);
    OpRun run(*device, row_);
    const AlgorithmChoices taken = device->kernels().choices();
    for (const auto& [key, engine] : wanted.all()) EXPECT_EQ(*taken.find(key), engine) << key;
    const auto seen = results(run);
    ASSERT_EQ(seen.size(), expected.size());
    for (std::size_t i = 0; i < seen.size(); ++i)
      EXPECT_LE(test::relative_error(seen[i], expected[i]), tolerance()) << (own ? "own " : "cuDNN ") << i;
  }
}

std::vector<Case> cases_of_either_way() {
  std::vector<Case> all = large_cases_beside_cpu();
  std::erase_if(all, [](const Case& c) {
    const OpSpec& op = c.row.op;
    if (const auto* attention = std::get_if<Attention>(&op)) return attention->dropout > 0;
    return !std::holds_alternative<BatchNorm>(op) && !std::holds_alternative<LayerNorm>(op) &&
           !std::holds_alternative<MaxPool>(op) && !std::holds_alternative<AveragePool>(op) &&
           !std::holds_alternative<GlobalAveragePool>(op);
  });
  return all;
}
INSTANTIATE_TEST_SUITE_P(Large, EitherWay, testing::ValuesIn(cases_of_either_way()), [](const auto& instance) {
  return name_of_case(instance) + "_" + std::to_string(instance.index);
});

// ---- finite differences, in float32: the steps of bfloat16 are coarser than the difference
// ---------------------------

class Differences : public Ops {};

/// The scalar that the gradients belong to: a loss, or the output's product with its gradient.
double scalar(OpRun& run, bool loss) {
  run.forward();
  const auto out = run.out();
  if (loss) return static_cast<double>(out[loss_sum]);
  double sum = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    sum += static_cast<double>(out[i]) * static_cast<double>(run.grad_out[i]);
  return sum;
}

/// Central difference along a drawn direction, against the gradient's product with it.
void expect_difference(OpRun& run, std::vector<float>& values, const std::vector<float>& gradient, bool loss,
                       std::uint64_t seed, double tolerance) {
  constexpr float h = 1e-3f;
  double largest = 0;
  for (std::uint64_t trial = 0; trial < 3; ++trial) {
    // A few elements at a time: less chance of crossing a kink than moving all.
    const auto direction = test::signed_draws(seed, 900 + trial, static_cast<std::int64_t>(values.size()));
    const auto before = values;
    double expected = 0, norm = 0;
    std::vector<bool> moved(values.size());
    for (std::size_t i = trial; i < values.size(); i += 1 + values.size() / 12) {
      expected += static_cast<double>(gradient[i]) * static_cast<double>(direction[i]);
      norm += std::abs(static_cast<double>(gradient[i]) * static_cast<double>(direction[i]));
      moved[i] = true;
    }
    const auto shifted = [&](float by) {
      for (std::size_t i = 0; i < values.size(); ++i)
        if (moved[i]) values[i] = before[i] + by * direction[i];
      const double s = scalar(run, loss);
      values = before;
      return s;
    };
    const double difference = (shifted(h) - shifted(-h)) / (2 * static_cast<double>(h));
    EXPECT_NEAR(difference, expected, tolerance * std::max(norm, 0.2)) << "trial " << trial;
    largest = std::max(largest, norm);
  }
  EXPECT_GT(largest, 0.0) << "the check moved nothing";
}

TEST_P(Differences, gradients_are_those_of_finite_differences) {
  if (std::holds_alternative<MaxPool>(row_.op))
    for (float& v : run_.x) v *= 8.0f;  // near-equal maxima further apart than the step
  if (row_.name == "batch_norm_relu" || row_.name == "batch_normalize")
    for (std::size_t c = 0; c < run_.params[1].size(); ++c)
      run_.params[1][c] = c % 2 == 0 ? 8.0f : -8.0f;  // a moved mean moves a whole channel: keep all off the kink
  run_.forward();
  run_.backward(Write::overwrite, Write::overwrite);
  const auto gradients = grads(run_);
  const double tolerance = run_.shape().epilogue ? kink_tolerance : difference_tolerance;
  const auto inputs = run_.differentiable();
  for (std::size_t i = 0; i < inputs.size() && inputs[i] < run_.inputs.size(); ++i)  // no moment
    expect_difference(run_, run_.inputs[inputs[i]], gradients[i], loss(), row_.seed, tolerance);
  for (std::size_t p = 0; p < params(); ++p) {
    expect_difference(run_, run_.params[p], gradients[run_.differentiable().size() + p], loss(), row_.seed, tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Differences,
                         testing::ValuesIn(cases([](const OpRow& row) { return !computes_in_half(row); })),
                         name_of_case);

}  // namespace
}  // namespace dtrain
