// Whole runs on a GPU without a GPU: the CUDA device's own kernels on the host, behind streams that work later and
// replay recorded steps. float16 with its loss scale, packed copies that the update leaves, algorithms that are kept.
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "io/checkpoint/checkpoint.hpp"
#include "tests/runtime/cuda/simulated_device.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test::AsyncDevice;
using namespace test_training;

/// Packed: the weights of a convolution, those behind `flatten` and plain ones.
const std::string small_cnn = digits_config(
    "conv2d: {filters: 4, kernel: 3, activation: relu}, conv2d: {filters: 6, kernel: 3}, maxpool2d: {size: 2}, "
    "flatten, "
    "dense: {units: 16, activation: relu}, dense: {units: 10}",
    R"(batch: {global: 12, micro: 6}
optimizer: {sgd: {learning_rate: 0.05, momentum: 0.9}}
train: {steps: 30}
log: {every_steps: 1}
)",
    "eval: []");

/// Packs by Kernel::pack(): an update that leaves no copies of its own.
class PlainUpdates final : public Device {
 public:
  DeviceKind kind() const noexcept override { return of_.kind(); }
  std::string name() const override { return of_.name(); }
  void* allocate(std::size_t bytes) override { return of_.allocate(bytes); }
  void release(void* memory) noexcept override { of_.release(memory); }
  std::unique_ptr<Stream> make_stream(StreamUse use) override { return of_.make_stream(use); }
  std::unique_ptr<Event> make_event() override { return of_.make_event(); }
  void copy(void* to, const void* from, std::size_t n, Stream& s) override { of_.copy(to, from, n, s); }
  void zero(void* to, std::size_t n, Stream& s) override { of_.zero(to, n, s); }
  Kernels& kernels() override { return kernels_; }

 private:
  struct Hidden final : Kernel {
    explicit Hidden(std::unique_ptr<Kernel> k) : of(std::move(k)) {}
    Needs needs() const override { return of->needs(); }
    void pack(std::span<const Tensor> master, Tensor packed, Stream& s) override { of->pack(master, packed, s); }
    void forward(const OpArgs& a, Stream& s) override { of->forward(a, s); }
    void backward_activation(const OpArgs& a, Tensor g, Stream& s) override { of->backward_activation(a, g, s); }
    void backward(const OpArgs& a, const OpGrads& g, Stream& s) override { of->backward(a, g, s); }
    std::unique_ptr<Kernel> of;
  };
  class PlainKernels final : public Kernels {
   public:
    explicit PlainKernels(Kernels& of) : of_(of) {}
    std::unique_ptr<Kernel> prepare(const OpSpec& op, std::span<const TensorDesc> in, const OpUse& use) override {
      return std::make_unique<Hidden>(of_.prepare(op, in, use));
    }
    void update(const UpdateRule& rule, const UpdateArgs& args, Stream& s) override {
      if (!args.packed.empty()) throw BugError("packed copies of kernels that have none");
      of_.update(rule, args, s);
    }
    void update_states(const StateUpdateArgs& args, Stream& s) override { of_.update_states(args, s); }
    void average(float* average, const float* params, std::size_t n, double decay, const StepState& step,
                 Stream& s) override {
      of_.average(average, params, n, decay, step, s);
    }
    void sum_squares(const float* x, std::size_t n, double* partial, Stream& s) override {
      of_.sum_squares(x, n, partial, s);
    }
    void finish_gradients(const GradientArgs& args, Stream& s) override { of_.finish_gradients(args, s); }
    void finish_step(const FinishArgs& args, Stream& s) override { of_.finish_step(args, s); }
    void load_images(const ImageFormat& f, const ImageBatch& b, Stream& s) override { of_.load_images(f, b, s); }
    void add(std::span<const float* const> parts, float* out, std::size_t begin, std::size_t end, Stream& s) override {
      of_.add(parts, out, begin, end, s);
    }
    void cast(Tensor from, Tensor to, Stream& s) override { of_.cast(from, to, s); }

   private:
    Kernels& of_;
  };
  test::SimulatedDevice of_;
  PlainKernels kernels_{of_.kernels()};
};

template <class Near>
std::unique_ptr<AsyncDevice> gpu() {
  AsyncDevice::Options o;
  o.near = [] { return std::make_unique<Near>(); };
  return std::make_unique<AsyncDevice>(o);
}

class SimulatedTraining : public Training {};

TEST_F(SimulatedTraining, float16_scales_its_loss_by_itself) {
  // 2^24 is too much for float16 at once, so that it begins with skipped steps.
  const std::vector<std::string> f16{"precision=float16",
                                     "train.dynamic_loss_scale={initial: 16777216, growth_steps: 8}"};
  const Outcome run = train_on(gpu<test::SimulatedDevice>(), small_cnn, f16, "f16");
  ASSERT_EQ(run.code, ExitCode::ok) << run.error;
  const Json& scale = run.summary["loss_scale"];
  EXPECT_GT(scale["skipped_steps"].get<int>(), 2);
  EXPECT_LT(scale["skipped_steps"].get<int>(), 20);
  EXPECT_LT(scale["last"].get<double>(), 16777216);
  EXPECT_TRUE(run.metrics.front()["grad_norm"].is_null());
  EXPECT_EQ(run.metrics.front()["skipped"], 1);
  // Beside float32, of the same steps without skipped ones.
  const Outcome f32 = train_on(gpu<test::SimulatedDevice>(), small_cnn, {}, "f32");
  const Outcome mild =
      train_on(gpu<test::SimulatedDevice>(), small_cnn, {"precision=float16", "train.loss_scale=1024"}, "mild");
  ASSERT_EQ(mild.metrics.size(), f32.metrics.size());
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(mild.metrics[i]["loss"].get<double>(), f32.metrics[i]["loss"].get<double>(), 0.01) << i;
    EXPECT_NEAR(mild.metrics[i]["grad_norm"].get<double>() / f32.metrics[i]["grad_norm"].get<double>(), 1, 0.02) << i;
  }
  EXPECT_NEAR(mild.summary["train"]["loss"].get<double>(), f32.summary["train"]["loss"].get<double>(), 0.1);
  // It goes on where it was.
  Outcome parts;
  for (const int steps : {4, 13, 30}) {
    auto some = f16;
    some.push_back(fmt::format("train.steps={}", steps));
    parts = train_on(gpu<test::SimulatedDevice>(), small_cnn, some, "parts");
  }
  expect_same(run, parts);
}

TEST_F(SimulatedTraining, updates_leave_the_packed_copies_with_the_same_bits) {
  const char* rules[] = {"{sgd: {learning_rate: 0.05, momentum: 0.9}}", "{adamw: {learning_rate: 0.002}}",
                         "{lamb: {learning_rate: 0.01}}", "{muon: {learning_rate: 0.01}}"};
  int number = 0;
  for (const char* precision : {"float32", "bfloat16", "float16"}) {
    for (const char* rule : rules) {
      SCOPED_TRACE(fmt::format("{} {}", precision, rule));
      const std::vector<std::string> settings{fmt::format("precision={}", precision), fmt::format("optimizer={}", rule),
                                              "train.steps=5", "train.loss_scale=1024", "train.ema={decay: 0.9}"};
      const Outcome kernels = train_on(gpu<PlainUpdates>(), small_cnn, settings, fmt::format("kernels-{}", number));
      const Outcome update =
          train_on(gpu<test::SimulatedDevice>(), small_cnn, settings, fmt::format("update-{}", number));
      expect_same(kernels, update);
      ++number;
    }
  }
}

TEST_F(SimulatedTraining, steps_pack_nothing_after_the_first_time) {
  const auto packs = [&](std::unique_ptr<AsyncDevice> device, const std::string& precision, int steps) {
    Steps s(config(small_cnn, {"cuda.graphs=false", "precision=" + precision}, "packs"), std::move(device));
    s.read(0);
    s.engine->compute().synchronize();
    const int before = s.device.packs;
    s.go(steps);
    s.read(0);
    return std::pair(before, s.device.packs - before);
  };
  // Two convolutions and two linear layers; of float32, the second convolution and the layer behind `flatten`.
  EXPECT_EQ(packs(gpu<PlainUpdates>(), "bfloat16", 6), std::pair(4, 4 * 6));
  EXPECT_EQ(packs(gpu<test::SimulatedDevice>(), "bfloat16", 6), std::pair(4, 0));
  EXPECT_EQ(packs(gpu<test::SimulatedDevice>(), "float16", 6), std::pair(4, 0));
  EXPECT_EQ(packs(gpu<test::SimulatedDevice>(), "float32", 6), std::pair(2, 0));
}

TEST_F(SimulatedTraining, a_float16_step_neither_waits_nor_allocates_after_warm_up) {
  Steps s(
      config(small_cnn,
             {"precision=float16", "train.dynamic_loss_scale={initial: 65536, growth_steps: 3}", "train.steps=1000"},
             "counted"),
      gpu<test::SimulatedDevice>());
  expect_steps_that_neither_wait_nor_allocate(s, 2);
}

TEST_F(SimulatedTraining, a_step_of_muon_is_recorded_and_neither_waits_nor_allocates_after_warm_up) {
  for (const char* products : {"float32", "bfloat16"}) {
    Steps s(config(small_cnn, {fmt::format("optimizer={{muon: {{products: {}}}}}", products), "train.steps=1000"},
                   fmt::format("counted-{}", products)),
            gpu<test::SimulatedDevice>());
    expect_steps_that_neither_wait_nor_allocate(s, 2);
  }
}

TEST_F(SimulatedTraining, algorithms_are_kept_in_checkpoints) {
  const Outcome run =
      train_on(gpu<test::SimulatedDevice>(), small_cnn, {"train.steps=2", "precision=bfloat16"}, "kept");
  ASSERT_EQ(run.code, ExitCode::ok) << run.error;
  const auto choices = io::read_run_state((folder_ / "kept/checkpoints/step-000000002").string()).choices;
  int blas = 0, cudnn = 0;
  for (const auto& [name, text] : choices) {
    blas += name.starts_with("algorithm/cublaslt simulated simulated: ") ? 1 : 0;
    cudnn += name.starts_with("algorithm/cudnn simulated simulated: ") ? 1 : 0;
  }
  EXPECT_GE(blas, 4);
  EXPECT_GE(cudnn, 4);
  EXPECT_EQ(choices.size(), static_cast<std::size_t>(blas + cudnn));
}

}  // namespace
}  // namespace dtrain::launch
