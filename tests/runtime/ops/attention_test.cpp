// What attention promises beside its values: documents that do not see one another, bits that depend on no batch,
// memory that is linear in the positions, messages.
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "runtime/tensor/error.hpp"
#include "tests/support/devices.hpp"
#include "tests/support/op_table.hpp"

namespace dtrain {
namespace {

using test::OpRow;
using test::OpRun;

TensorDesc value(std::int64_t n, std::int64_t t, std::int64_t c) {
  return {DType::f32, Shape{n, t, c}};
}
TensorDesc documents(std::int64_t n, std::int64_t t) {
  return {DType::i32, Shape{n, t}};
}

class OneAttention : public testing::TestWithParam<test::AvailableDevice> {
 protected:
  std::unique_ptr<Device> device_ = GetParam().make();
};
INSTANTIATE_TEST_SUITE_P(Devices, OneAttention, testing::ValuesIn(test::available_devices()),
                         [](const auto& instance) { return instance.param.name; });

TEST_P(OneAttention, documents_do_not_see_one_another) {
  constexpr std::int64_t t = 150, c = 24, cut = 70;
  for (const bool causal : {true, false}) {
    const Attention op{.heads = 2, .causal = causal, .rotary = Rotary{}};
    OpRun run(*device_, {"attention", 1, op, value(1, t, c), {documents(1, t)}});
    for (std::size_t i = 0; i < t; ++i) run.inputs[1][i] = i < cut ? 0 : cut;
    const auto both = [&] {
      run.forward();
      run.backward(Write::overwrite, Write::overwrite);
      return std::pair(run.out(), run.grad_in());
    };
    const auto before = both();
    for (std::size_t i = cut * c; i < run.x.size(); ++i) run.x[i] = 0.5f - run.x[i];
    const auto after = both();
    for (std::size_t i = 0; i < t * c / 3; ++i)
      EXPECT_EQ(before.first[i] == after.first[i], i < cut * c / 3) << causal << " " << i;
    for (std::size_t i = 0; i < cut * c; ++i) EXPECT_EQ(before.second[i], after.second[i]) << causal << " " << i;
  }
}

TEST_P(OneAttention, documents_that_break_the_rule_give_nan) {
  for (const auto& [at, first] : {std::pair(3, 4.0f), std::pair(9, -1.0f), std::pair(9, 2.0f)}) {
    OpRun run(*device_, {"attention", 2, Attention{.heads = 2}, value(1, 12, 24), {documents(1, 12)}});
    for (std::size_t i = 0; i < 12; ++i) run.inputs[1][i] = i < 6 ? 0 : 6;
    run.inputs[1][static_cast<std::size_t>(at)] = first;
    run.forward();
    EXPECT_TRUE(std::isnan(run.out()[static_cast<std::size_t>(at) * 8])) << at << " " << first;
  }
}

TEST_P(OneAttention, a_sample_has_the_same_bits_alone_and_in_a_batch) {
  constexpr std::int64_t t = 140, c = 48;
  const Attention op{.heads = 4, .kv_heads = 2, .dropout = 0.1};
  OpRun batch(*device_, {"attention", 3, op, value(3, t, c)}), alone(*device_, {"attention", 3, op, value(1, t, c)});
  const auto run = [](OpRun& r) {
    r.forward();
    r.backward(Write::overwrite, Write::overwrite);
    return std::pair(r.out(), r.grad_in());
  };
  alone.grad_out.assign(batch.grad_out.begin(), batch.grad_out.begin() + t * c / 2);
  alone.x.assign(batch.x.begin(), batch.x.begin() + t * c);
  const auto [outs, grads] = run(batch);
  const auto [out, grad] = run(alone);
  for (std::size_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], outs[i]) << i;
  for (std::size_t i = 0; i < grad.size(); ++i) ASSERT_EQ(grad[i], grads[i]) << i;
}

TEST_P(OneAttention, dropout_keeps_all_weights_in_evaluation) {
  const OpRow plain{"attention", 4, Attention{.heads = 2}, value(2, 20, 24)};
  OpRow dropping = plain;
  dropping.op = Attention{.heads = 2, .dropout = 0.5};
  OpRun a(*device_, plain), b(*device_, dropping);
  a.forward({Mode::evaluate, true, true});
  b.forward({Mode::evaluate, true, true});
  EXPECT_EQ(a.out(), b.out());
}

TEST(Attention, memory_is_linear_in_the_positions) {
  const auto bytes = [](std::int64_t t) {
    const OpShape shape = infer(Attention{.heads = 12}, std::vector{value(2, t, 3 * 768)});
    return static_cast<double>(shape.saved[0].bytes() + shape.bounds.workspace);
  };
  EXPECT_LE(bytes(8192), 2 * bytes(4096));
  EXPECT_LE(bytes(4096), 2 * bytes(2048));
  // One square of scores of all heads would be 1.6 GB.
  EXPECT_LT(bytes(4096), 0.2e9);
}

TEST(Attention, counts_the_products_of_the_positions_that_see_one_another) {
  const auto flops = [](const Attention& op) { return infer(op, std::vector{value(1, 100, 12)}).flops; };
  EXPECT_EQ(flops({.causal = false}), 4.0 * 4 * 100 * 100);
  EXPECT_EQ(flops({.causal = true}), 4.0 * 4 * 5050);
  EXPECT_EQ(flops({.causal = true, .window = 1}), 4.0 * 4 * 100);
}

std::string message_of(const Attention& op, const std::vector<TensorDesc>& in) {
  try {
    infer(op, in);
  } catch (const ShapeError& e) {
    return e.what();
  }
  return "";
}

TEST(Attention, says_what_does_not_fit) {
  EXPECT_EQ(message_of({.heads = 5}, {value(2, 7, 36)}),
            "its queries, keys and values of shape [7, 36] have 36 channels, which are not 15 heads of one size; "
            "expected a multiple of 15");
  EXPECT_EQ(message_of({.heads = 4, .kv_heads = 3}, {value(2, 7, 40)}),
            "4 heads and 3 kv_heads; expected at least one head, and kv_heads that divide heads");
  EXPECT_EQ(message_of({.heads = 4, .kv_heads = 2}, {value(2, 7, 32), value(2, 7, 32), value(2, 7, 16)}),
            "its keys of shape [7, 32] have 32 channels; expected 16: 2 heads of the queries' size 8");
  EXPECT_EQ(message_of({.heads = 4}, {value(2, 7, 32), value(2, 8, 32), value(2, 8, 32)}),
            "its inputs have shapes [7, 32] and [8, 32]; expected the same positions");
  EXPECT_EQ(message_of({.heads = 1, .rotary = Rotary{}}, {value(2, 7, 15)}),
            "rotary: a head has 5 channels; expected an even number");
  EXPECT_EQ(message_of({.heads = 1}, {value(2, 7, 3 * 264)}),
            "a head has 264 channels; expected at most 256: more heads");
  EXPECT_EQ(message_of({.heads = 1}, {{DType::f32, Shape{2, 36}}}),
            "its input has shape [36]; expected positions, such as [length, channels]");
  EXPECT_EQ(
      message_of({.heads = 1}, {value(2, 7, 15), documents(2, 8)}),
      "the documents are int32, [8] a sample; expected int32, [7] a sample: the first position that each may see");
}

}  // namespace
}  // namespace dtrain
