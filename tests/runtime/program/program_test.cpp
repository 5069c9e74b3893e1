#include "runtime/program/program.hpp"

#include <cmath>
#include <cstring>
#include <numeric>

#include <gtest/gtest.h>

#include "runtime/ops/kernels.hpp"
#include "runtime/optim/update.hpp"
#include "runtime/random/rng.hpp"
#include "tests/support/reachable_device.hpp"

namespace dtrain {
namespace {

// Sums of the same few hundred f32 terms in another order: some 1e-7 relative each.
constexpr double reordering_tolerance = 2e-6;
// A GPU's libraries choose other algorithms for other batches: each within what the op table allows.
constexpr double algorithm_tolerance = 1e-5;
constexpr std::uint64_t seed = 11;

Graph small_cnn(std::int64_t batch) {
  Graph g(batch);
  const auto x = g.add_input(PortUse::input, "sample", {DType::f32, Shape{batch, 10, 10, 2}});
  const auto y = g.add_input(PortUse::target, "target", {DType::i32, Shape{batch}});
  const auto w = g.add_input(PortUse::weight, "weight", {DType::f32, Shape{batch}});
  auto v = g.add("conv2d_1", Conv{.filters = 4, .kernel = {3, 3}, .activation = Activation::relu}, {x});
  v = g.add("maxpool2d_1", MaxPool{}, {v});
  v = g.add("conv2d_2", Conv{.filters = 8, .kernel = {3, 3}}, {v});
  v = g.add("relu_1", Activate{Activation::relu}, {v});
  v = g.add("flatten_1", Flatten{}, {v});
  v = g.add("dropout_1", Dropout{.rate = 0.25, .id = 1}, {v});
  v = g.add("dense_1", Dense{.units = 16, .activation = Activation::relu}, {v});
  v = g.add("dense_2", Dense{.units = 5}, {v});
  g.add("loss", SoftmaxCrossEntropy{}, {v, y, w});
  return g;
}

/// Fills rows [0, batch) of a slot with the samples at stream positions first, first + 1, ...
void fill(const InputSlot& slot, std::uint64_t first, float weight = 1) {
  const std::int64_t batch = slot.inputs[0].desc.shape[0];
  const std::int64_t elements = slot.inputs[0].elements() / batch;
  for (std::int64_t n = 0; n < batch; ++n) {
    const std::uint64_t position = first + static_cast<std::uint64_t>(n);
    for (std::int64_t i = 0; i < elements; ++i)
      slot.inputs[0].as<float>()[n * elements + i] =
          2 * to_unit(draw4(random_key(seed, Purpose::test), position, 0, static_cast<std::uint32_t>(i)).v[0]) - 1;
    slot.inputs[1].as<std::int32_t>()[n] = static_cast<std::int32_t>(position % 5);
    slot.inputs[2].as<float>()[n] = weight;
    slot.positions.as<std::uint64_t>()[n] = position;
  }
}

struct Bound {
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream = device->make_stream(StreamUse::compute);
  Program program;
  ParameterStore store;
  test::Reachable<StepState> state_memory{1, test::FromDevice<StepState>(*device)};
  StepState& state = state_memory[0];
  NoHooks hooks;
  Bound(std::unique_ptr<Device> on, std::int64_t batch)
      : device(std::move(on)), program(*device, small_cnn(batch), {}), store(*device, program.plan().layout) {
    initialize(store.params(), store.layout(), program.plan().graph, seed);
    pack();
    state.seed = seed;
  }
  void run(std::uint64_t position, bool first, bool last, int slot = 0) {
    fill(program.slot(slot), position);
    run({Mode::train, first, last}, slot);
  }
  void run(Pass pass, int slot = 0) {
    program.run(pass, slot, store, state, hooks, *stream);
    stream->synchronize();
  }
  void pack() {
    program.pack(store, *stream);
    stream->synchronize();
  }
  std::vector<float> gradients() const { return {store.gradients(), store.gradients() + store.layout().param_floats}; }
  double sum(LossSum which) const { return static_cast<double>(store.loss_sums().as<float>()[which]); }
};

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double d = 0, n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    d += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    n += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(d / n);
}

class Programs : public test::OnEachDevice {
 protected:
  static double tolerance(const Bound& b) {
    return b.device->kind() == DeviceKind::cpu ? reordering_tolerance : algorithm_tolerance;
  }
  /// A device that computes as another does.
  static std::unique_ptr<Device> alike(const Bound& b) {
    auto device = make_device();
    device->kernels().use(b.device->kernels().choices());
    return device;
  }
};
DTRAIN_ON_EACH_DEVICE(Programs);

TEST_P(Programs, AddUpMicroBatchesToTheBatchWithDropoutOn) {
  Bound whole(make_device(), 8), parts(make_device(), 4);
  whole.run(100, true, true);
  parts.run(100, true, false, 0);
  parts.run(104, false, true, 1);
  // Flat orders are equal: the layout does not depend on the batch.
  EXPECT_LT(relative_difference(parts.gradients(), whole.gradients()), tolerance(whole));
  EXPECT_NEAR(parts.sum(loss_sum), whole.sum(loss_sum), 5 * tolerance(whole));
  EXPECT_EQ(parts.sum(weight_sum), 8);
}

TEST_P(Programs, OverwriteWhatIsThereInTheFirstMicroBatch) {
  Bound b(make_device(), 4);
  b.run(0, true, true);
  const auto once = b.gradients();
  std::fill_n(b.store.gradients(), b.store.layout().param_floats, std::nanf(""));
  b.run(0, true, true);
  const auto again = b.gradients();
  for (const FlatParam& p : b.store.layout().params)
    EXPECT_EQ(std::memcmp(once.data() + p.offset, again.data() + p.offset, p.size * sizeof(float)), 0) << p.name;
}

TEST_P(Programs, CountWeightedSamplesOnlyInEvaluationAndHaveNoDropout) {
  Bound four(make_device(), 4), eight(make_device(), 8);
  fill(four.program.slot(0), 0);
  four.run({Mode::evaluate, true, true});
  fill(eight.program.slot(0), 0);
  for (int i = 4; i < 8; ++i) eight.program.slot(0).inputs[2].as<float>()[i] = 0;
  eight.run({Mode::evaluate, true, true});
  EXPECT_EQ(eight.sum(weight_sum), 4);
  EXPECT_NEAR(eight.sum(loss_sum), four.sum(loss_sum), 5 * tolerance(four));
  EXPECT_EQ(eight.sum(correct_sum), four.sum(correct_sum));
}

TEST_P(Programs, GiveTheGradientsOfTheLoss) {
  // A step along the gradient changes the loss by step * |gradient|^2: first order, so a small step and a loose bound;
  // wrong signs, missing layers and doubled contributions are far outside of it.
  Bound b(make_device(), 8);
  b.run(0, true, true);
  const double before = b.sum(loss_sum);
  const auto g = b.gradients();
  double square = 0;
  for (float v : g) square += static_cast<double>(v) * static_cast<double>(v);
  const double step = 1e-3 * before / square;
  for (std::size_t i = 0; i < g.size(); ++i) b.store.params()[i] -= static_cast<float>(step) * g[i];
  b.pack();
  b.run(0, true, true);
  EXPECT_NEAR((before - b.sum(loss_sum)) / (step * square), 1.0, 0.02);
}

TEST_P(Programs, RepeatBitForBit) {
  Bound a(make_device(), 8), b(alike(a), 8);
  a.run(40, true, true);
  b.run(0, true, true);
  b.run(40, true, true);
  EXPECT_EQ(a.gradients(), b.gradients());
}

/// Parameters arrive when they are asked for, not before.
class LateParameters final : public StepHooks {
 public:
  LateParameters(const ParameterStore& store, std::vector<float> values) : store_(store), values_(std::move(values)) {}
  void bucket_ready(int, Stream&) override {}
  void params_needed(int bucket, Stream&) override {
    const Bucket b = parameters_of(store_.layout(), static_cast<std::size_t>(bucket));
    std::copy(values_.begin() + static_cast<long>(b.begin), values_.begin() + static_cast<long>(b.end),
              store_.params() + b.begin);
    ++asked;
  }
  int asked = 0;

 private:
  const ParameterStore& store_;
  std::vector<float> values_;
};

TEST_P(Programs, PackParametersWhenTheyAreThereAndNotBefore) {
  Bound expected(make_device(), 8), late(alike(expected), 8);
  const std::size_t size = late.store.layout().total_floats();
  std::vector<float> updated(late.store.params(), late.store.params() + size);
  for (std::size_t i = 0; i < size; ++i) updated[i] *= 1.5f;
  std::copy(updated.begin(), updated.end(), expected.store.params());
  expected.pack();
  expected.run(0, true, true);

  LateParameters hooks(late.store, updated);
  std::fill_n(late.store.params(), size, std::nanf(""));
  late.program.parameters_changed();
  fill(late.program.slot(0), 0);
  late.program.run({Mode::train, true, true}, 0, late.store, late.state, hooks, *late.stream);
  late.stream->synchronize();
  EXPECT_EQ(hooks.asked, static_cast<int>(late.store.layout().buckets.size()));
  EXPECT_EQ(late.gradients(), expected.gradients());
  EXPECT_EQ(late.sum(loss_sum), expected.sum(loss_sum));
  // And evaluation as well.
  for (Bound* b : {&expected, &late}) {
    for (std::size_t i = 0; i < size; ++i) b->store.params()[i] *= 0.5f;
    b->program.parameters_changed();
    b->run({Mode::evaluate, true, true});
  }
  expected.pack();
  const double packed_before = late.sum(loss_sum);
  expected.run({Mode::evaluate, true, true});
  EXPECT_EQ(expected.sum(loss_sum), packed_before);
}

TEST_P(Programs, HaveTheNormOfTheFlatGradientsForClipping) {
  Bound b(make_device(), 8);
  b.run(0, true, true);
  double square = 0;
  for (float v : b.gradients()) square += static_cast<double>(v) * static_cast<double>(v);
  Optimizer optimizer(*b.device, {Sgd{}}, b.store.layout());
  const auto squares = optimizer.block_squares(b.store, *b.stream);
  b.stream->synchronize();
  const double norm = std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
  EXPECT_NEAR(norm, std::sqrt(square), 1e-9 * std::sqrt(square));
}

TEST_P(Programs, NameTheFirstNonfiniteInGraphOrder) {
  Bound b(make_device(), 4);
  EXPECT_EQ(first_nonfinite(b.store.params(), b.store.layout()), "");
  b.store.params()[b.store.layout().of(6).offset] = INFINITY;  // dense_2.weight
  b.store.params()[b.store.layout().of(3).offset] = std::nanf("");
  EXPECT_EQ(first_nonfinite(b.store.params(), b.store.layout()), "conv2d_2.bias");
}

TEST_P(Programs, HaveAParameterHashOfValuesAndNotOfFlatOrder) {
  Bound b(make_device(), 4);
  FlatLayout reversed = b.store.layout();
  std::vector<float> moved(reversed.total_floats(), 0.0f);
  std::size_t offset = 0;
  for (auto p = reversed.params.rbegin(); p != reversed.params.rend(); ++p) {
    std::memcpy(moved.data() + offset, b.store.params() + p->offset, p->size * sizeof(float));
    p->offset = offset;
    offset += p->size;
  }
  const std::string hash = parameter_hash(b.store.params(), b.store.layout());
  EXPECT_EQ(parameter_hash(moved.data(), reversed), hash);
  moved[3] += 1e-3f;
  EXPECT_NE(parameter_hash(moved.data(), reversed), hash);
}

}  // namespace
}  // namespace dtrain
