// Whole runs of two losses with masks: the same numbers however ranks and micro batches share a step, on cpus and on
// devices that compute later, gone on with or not; and steps in which nothing weighs.
#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "runtime/random/rng.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test::AsyncDevice;
using test_training::Json;
using test_training::Outcome;

constexpr std::uint64_t samples = 96, length = 5, features = 6;
// f32 sums of a few hundred terms in another order, over a few steps.
constexpr double tolerance = 1e-6, parameters_tolerance = 1e-5;

/// Where the losses' data are in `data`, MASKED is the weights.
const std::string text = R"(name: weights
threads: 1
model:
  inputs: {x: [5, 6]}
  layers:
    - dense: {units: 12, activation: tanh, name: trunk}
    - dense: {units: 7, name: classes, from: trunk}
    - dense: {units: 2, name: prices, from: trunk}
  outputs: {class: classes, price: prices}
  losses:
    class: {cross_entropy: {of: class, target: label, weight: each, ignore: 255}}
    price: {mean_squared_error: {of: price, target: price, weight: whole}, factor: 0.5}
data:
  train: FILE
  inputs: {x: /x}
  targets: {label: /label, price: /price}
  weights: {each: /each, whole: /whole}
  eval: FILE
batch: {global: 16}
optimizer: {sgd: {learning_rate: 0.2, momentum: 0.9}}
train: {steps: 9, eval_every_steps: 4}
log: {every_steps: 1}
checkpoint: {every_steps: 4}
communication: {algorithm: fixed_order, bucket_mib: 0.001, last_bucket_mib: 0.0005}
)";

class WeightsTraining : public test_training::Training {
 protected:
  /// `zero`: all weights.
  std::string file(const std::string& name, bool zero = false) const {
    std::string path = (folder_ / (name + ".h5")).string();
    const auto draw = [](std::uint64_t item, std::uint64_t i) {
      return to_unit(draw4(random_key(23, Purpose::test), item, 0, static_cast<std::uint32_t>(i)).v[0]);
    };
    std::vector<float> x, price, each, whole;
    std::vector<std::uint8_t> label;
    for (std::uint64_t i = 0; i < samples * length * features; ++i) x.push_back(2 * draw(0, i) - 1);
    for (std::uint64_t i = 0; i < samples * length * 2; ++i) price.push_back(draw(1, i));
    for (std::uint64_t i = 0; i < samples * length; ++i) {
      label.push_back(i % 11 == 3 ? 255 : static_cast<std::uint8_t>(draw(2, i) * 7));
      each.push_back(zero || i % 5 == 0 ? 0.0f : 0.3f + draw(3, i));
    }
    for (std::uint64_t i = 0; i < samples; ++i) whole.push_back(zero ? 0.0f : static_cast<float>(i % 3) * 0.7f);
    io::h5::Writer writer(path);
    const auto put = [&](const char* key, io::StoredType type, std::vector<std::uint64_t> dims, const void* values) {
      const std::size_t index = writer.add(key, type, dims);
      writer.write(index, 0, samples, values);
    };
    put("x", io::StoredType::f32, {samples, length, features}, x.data());
    put("price", io::StoredType::f32, {samples, length, 2}, price.data());
    put("label", io::StoredType::u8, {samples, length}, label.data());
    put("each", io::StoredType::f32, {samples, length}, each.data());
    put("whole", io::StoredType::f32, {samples}, whole.data());
    writer.commit();
    return path;
  }

  Outcome run(int ranks, bool devices, const std::string& of, std::vector<std::string> overrides,
              const std::string& name) const {
    std::string with_file = text;
    for (auto at = with_file.find("FILE"); at != std::string::npos; at = with_file.find("FILE"))
      with_file.replace(at, 4, of);
    if (devices) overrides.emplace_back("communication.transport=staged");
    const LoadedConfig loaded = config(with_file, overrides, name);
    Outcome result;
    std::atomic<int> failures{0};
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    try {
      StopSignals stop;
      comm::run_local(ranks, [&](comm::LocalRank& rank) {
        comm::World world(rank);
        std::unique_ptr<Device> device;
        if (devices) device = std::make_unique<AsyncDevice>();
        if (train(loaded, world, stop, std::move(device)) != ExitCode::ok) ++failures;
        world.finish(ExitCode::ok);
      });
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
    result.out = testing::internal::GetCapturedStdout();
    result.error = testing::internal::GetCapturedStderr();
    EXPECT_EQ(failures, 0) << name << ": " << result.error << result.out;
    if (failures == 0) result.code = ExitCode::ok;
    read_files(name, result);
    return result;
  }
};

void expect_near(const Json& a, const Json& b, double within) {
  EXPECT_NEAR(a.get<double>(), b.get<double>(), within * std::abs(b.get<double>()));
}

/// Losses of steps and of evaluations, within what sums in another order leave.
void expect_alike(const Outcome& a, const Outcome& b) {
  ASSERT_EQ(a.metrics.size(), b.metrics.size());
  for (std::size_t i = 0; i < a.metrics.size(); ++i) {
    const bool evaluation = b.metrics[i].contains("eval");
    const Json &x = evaluation ? a.metrics[i]["eval"] : a.metrics[i],
               &y = evaluation ? b.metrics[i]["eval"] : b.metrics[i];
    expect_near(x.at("loss"), y.at("loss"), parameters_tolerance);
    for (const char* loss : {"class", "price"}) {
      const Json &of_x = x.at("losses").at(loss), &of_y = y.at("losses").at(loss);
      expect_near(evaluation ? of_x.at("loss") : of_x, evaluation ? of_y.at("loss") : of_y, parameters_tolerance);
    }
  }
  expect_near(a.metrics[0]["loss"], b.metrics[0]["loss"], tolerance);
  expect_near(a.metrics[0]["grad_norm"], b.metrics[0]["grad_norm"], tolerance);
}

TEST_F(WeightsTraining, numbers_do_not_depend_on_who_computes_what) {
  const std::string data = file("masked");
  const Outcome one = run(1, false, data, {}, "one");
  ASSERT_EQ(one.code, ExitCode::ok) << one.error;
  for (std::size_t i = 0; i < one.metrics.size(); ++i) {
    const Json& line = one.metrics[i].contains("eval") ? one.metrics[i]["eval"] : one.metrics[i];
    const Json& losses = line.at("losses");
    const bool evaluation = one.metrics[i].contains("eval");
    const double of_class = (evaluation ? losses["class"]["loss"] : losses["class"]).get<double>();
    const double of_price = (evaluation ? losses["price"]["loss"] : losses["price"]).get<double>();
    EXPECT_NEAR(line["loss"].get<double>(), of_class + 0.5 * of_price, tolerance);
  }
  for (const bool devices : {false, true}) {
    for (const int ranks : {1, 2, 4}) {
      for (const int micro : {16 / ranks, 8 / ranks, 2}) {
        SCOPED_TRACE(fmt::format("{} ranks, micro {}, devices {}", ranks, micro, devices));
        expect_alike(run(ranks, devices, data, {fmt::format("batch.micro={}", micro)},
                         fmt::format("split-{}-{}-{}", ranks, micro, devices)),
                     one);
      }
    }
  }
}

TEST_F(WeightsTraining, elastic_runs_have_the_same_bits_on_any_number_of_ranks) {
  const std::string data = file("masked");
  const std::vector<std::string> settings{"deterministic=elastic", "batch.micro=2"};
  const Outcome one = run(1, false, data, settings, "elastic-1");
  ASSERT_EQ(one.code, ExitCode::ok) << one.error;
  for (const int ranks : {2, 4, 8}) {
    SCOPED_TRACE(ranks);
    const Outcome seen = run(ranks, false, data, settings, fmt::format("elastic-{}", ranks));
    EXPECT_EQ(seen.summary["parameter_hash"], one.summary["parameter_hash"]);
    for (std::size_t i = 0; i < one.metrics.size(); ++i) {
      if (one.metrics[i].contains("eval")) continue;
      EXPECT_EQ(seen.metrics.at(i)["loss"], one.metrics[i]["loss"]);
      EXPECT_EQ(seen.metrics.at(i)["losses"], one.metrics[i]["losses"]);
    }
  }
}

TEST_F(WeightsTraining, a_run_that_goes_on_counts_its_first_weights_again) {
  const std::string data = file("masked");
  for (const bool devices : {false, true}) {
    const auto named = [&](const char* what) { return fmt::format("{}-{}", what, devices); };
    const Outcome whole = run(2, devices, data, {}, named("whole"));
    run(2, devices, data, {"train.steps=6"}, named("parts"));
    Outcome parts = run(2, devices, data, {}, named("parts"));
    EXPECT_EQ(parts.summary["parameter_hash"], whole.summary["parameter_hash"]);
    EXPECT_EQ(parts.metrics.at(parts.metrics.size() - 2)["losses"],
              whole.metrics.at(whole.metrics.size() - 2)["losses"]);
  }
}

TEST_F(WeightsTraining, steps_without_any_weight_leave_the_parameters_alone) {
  const std::string data = file("nothing", true);
  for (const bool devices : {false, true}) {
    SCOPED_TRACE(devices);
    const auto named = [&](const char* what) { return fmt::format("{}-{}", what, devices); };
    const Outcome none = run(2, devices, data, {"train.eval_every_steps=100"}, named("none"));
    const Outcome first = run(2, devices, data, {"train.steps=1", "train.eval_every_steps=100"}, named("first"));
    ASSERT_EQ(none.code, ExitCode::ok) << none.error;
    EXPECT_EQ(none.summary["parameter_hash"], first.summary["parameter_hash"]);
    for (const Json& line : none.metrics) {
      if (line.contains("eval")) continue;
      EXPECT_EQ(line["loss"], 0);
      EXPECT_EQ(line["grad_norm"], 0);
      EXPECT_TRUE(line["losses"]["class"].is_null());
    }
    const Outcome decayed = run(
        2, devices, data, {"optimizer={sgd: {learning_rate: 0.2, weight_decay: 0.1}}", "train.eval_every_steps=100"},
        named("decayed"));
    EXPECT_EQ(decayed.code, ExitCode::ok);
    EXPECT_NE(decayed.summary["parameter_hash"], none.summary["parameter_hash"]);
  }
}

}  // namespace
}  // namespace dtrain::launch
