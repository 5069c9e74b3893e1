// Training on several ranks, each with an asynchronous device: over the simulated NCCL and over the
// host's memory the same bits as on cpus, from recorded steps or not, with the optimizer's state sharded or not.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "launch/base/alone.hpp"
#include "launch/base/signals.hpp"
#include "launch/config/config_file.hpp"
#include "launch/train/train.hpp"
#include "tests/comm/nccl/simulated_nccl.hpp"
#include "tests/support/allocations.hpp"
#include "tests/support/async_device.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using Json = nlohmann::json;
using test::AsyncDevice;
using test::simulated_nccl;
using test_training::Outcome;
using test_training::Steps;

const std::string mlp = test_training::digits_config(
    "flatten, dense: {units: 96, activation: relu}, dropout: {rate: 0.2}, dense: {units: 64, activation: relu}, "
    "dense: {units: 10}",
    R"(batch: {global: 48}
optimizer: {adam: {learning_rate: 0.002}}
train: {steps: 14, eval_every_steps: 6}
log: {every_steps: 1}
checkpoint: {every_steps: 5}
communication: {algorithm: fixed_order, bucket_mib: 0.004, last_bucket_mib: 0.002}
)");

const std::string cnn = test_training::digits_config(test_training::cnn_layers, R"(batch: {global: 48, micro: 6}
optimizer: {sgd: {learning_rate: 0.1, momentum: 0.9}}
train: {steps: 14, ema: {decay: 0.9}, clip_norm: 1.5}
log: {every_steps: 3}
communication: {algorithm: fixed_order, bucket_mib: 0.004, last_bucket_mib: 0.002}
)",
                                                     test_training::augmented, "batch_norm: {sync: true}");

enum class On : std::uint8_t { cpus, nccl, staged };

using Overrides = std::vector<std::string>;

class RanksTraining : public test_training::Training, public testing::WithParamInterface<int> {
 protected:
  ~RanksTraining() override { simulated_nccl().reset(); }

  LoadedConfig config(On on, const std::string& text, Overrides overrides, const std::string& name) const {
    if (on != On::cpus)
      overrides.push_back(on == On::nccl ? "communication.transport=nccl" : "communication.transport=staged");
    return Training::config(text, std::move(overrides), name);
  }

  /// Runs, first to its middle and then to its end, have the bits of `whole`.
  void expect_goes_on(int ranks, const Overrides& settings, const Outcome& whole, const std::string& name) const {
    Overrides first = settings;
    first.emplace_back("train.steps=7");
    run(ranks, On::nccl, mlp, first, name);
    Outcome second = run(ranks, On::nccl, mlp, settings, name);
    second.metrics = whole.metrics;  // with an evaluation more
    expect_same(whole, second, "gone on");
  }

  Outcome run(int ranks, On on, const std::string& text, const Overrides& overrides, const std::string& name) const {
    const LoadedConfig loaded = config(on, text, overrides, name);
    simulated_nccl().reset();
    Outcome result;
    std::atomic<int> failures{0};
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    try {
      StopSignals stop;
      comm::run_local(ranks, [&](comm::LocalRank& rank) {
        comm::World world(rank);
        std::unique_ptr<Device> device;
        AsyncDevice::Options options;
        options.compute_delay_us = 5 * rank.rank();  // no two alike
        options.model = model_;
        options.algorithm = fmt::format("{} of rank {}", quickest_, rank.rank());
        if (on != On::cpus) device = std::make_unique<AsyncDevice>(options);
        if (train(loaded, world, stop, std::move(device)) != ExitCode::ok) ++failures;
        world.finish(ExitCode::ok);
      });
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
    result.out = testing::internal::GetCapturedStdout();
    result.error = testing::internal::GetCapturedStderr();
    result.calls = simulated_nccl().calls;
    EXPECT_EQ(failures, 0) << name << ": " << result.error << result.out;
    if (failures == 0) result.code = ExitCode::ok;
    read_files(name, result);
    return result;
  }

  std::string model_, quickest_;  // of devices that choose algorithms; empty: they do not
};

INSTANTIATE_TEST_SUITE_P(Ranks, RanksTraining, testing::Values(2, 4));

TEST_P(RanksTraining, has_the_bits_of_cpus_over_each_carrier_and_from_recorded_steps) {
  const int ranks = GetParam();
  for (const auto& [name, text] : {std::pair{"mlp", mlp}, std::pair{"cnn", cnn}}) {
    SCOPED_TRACE(name);
    const auto named = [&](const char* how) { return fmt::format("{}-{}", name, how); };
    const Outcome cpus = run(ranks, On::cpus, text, {}, named("cpus"));
    const Outcome recorded = run(ranks, On::nccl, text, {}, named("recorded"));
    const Outcome eager = run(ranks, On::nccl, text, {"cuda.graphs=false"}, named("eager"));
    expect_same(cpus, recorded, "recorded");
    expect_same(cpus, eager, "not recorded");
    EXPECT_EQ(recorded.error, "");
    EXPECT_LT(recorded.calls, eager.calls * 3 / 4);  // most steps are replayed, their collectives, too
    expect_same(cpus, run(ranks, On::staged, text, {}, named("staged")), "staged");
  }
}

TEST_P(RanksTraining, shards_have_the_bits_of_the_whole_and_so_does_a_run_that_goes_on) {
  const int ranks = GetParam();
  for (const char* decay : {"0", "0.9"}) {
    SCOPED_TRACE(decay);
    const std::string ema = fmt::format("train.ema={{decay: {}}}", decay);
    const auto named = [&](const char* how) { return fmt::format("{}-{}", how, decay); };
    const Outcome whole = run(ranks, On::nccl, mlp, {ema}, named("whole"));
    const Overrides shard{ema, "optimizer.shard=true"};
    Overrides eager = shard;
    eager.push_back("cuda.graphs=false");
    const Outcome recorded = run(ranks, On::nccl, mlp, shard, named("recorded"));
    const Outcome as_it_is = run(ranks, On::nccl, mlp, eager, named("eager"));
    expect_same(whole, recorded, "recorded");
    expect_same(whole, as_it_is, "not recorded");
    EXPECT_LT(recorded.calls, as_it_is.calls * 3 / 4);
    expect_same(whole, run(ranks, On::staged, mlp, shard, named("staged")), "staged");
    expect_same(whole, run(ranks, On::cpus, mlp, shard, named("cpus")), "cpus");
    // Moments of all ranks are in the checkpoint.
    expect_goes_on(ranks, shard, whole, named("halves"));
  }
}

TEST_P(RanksTraining, shards_of_whole_parameters_have_the_bits_of_the_whole_and_so_does_a_run_that_goes_on) {
  const int ranks = GetParam();
  for (const char* optimizer : {"lamb: {learning_rate: 0.01}", "lars: {learning_rate: 0.5, trust_coefficient: 0.1}",
                                "muon: {learning_rate: 0.02}"}) {
    SCOPED_TRACE(optimizer);
    const auto named = [&](const char* how) { return fmt::format("{}-{:.4}", how, optimizer); };
    // With a clipping norm, which every rank forms of all gradients.
    const auto settings = [&](const char* shard) {
      return Overrides{fmt::format("optimizer={{{}, shard: {}}}", optimizer, shard), "train.clip_norm=0.5",
                       "train.ema={decay: 0.9}"};
    };
    const Outcome whole = run(ranks, On::cpus, mlp, settings("false"), named("whole"));
    expect_same(whole, run(ranks, On::cpus, mlp, settings("true"), named("cpus")), "cpus");
    expect_same(whole, run(ranks, On::nccl, mlp, settings("true"), named("recorded")), "recorded");
    expect_same(whole, run(ranks, On::staged, mlp, settings("true"), named("staged")), "staged");
    expect_goes_on(ranks, settings("true"), whole, named("halves"));
    // A checkpoint of shards is whole: a run without shards goes on from it, and the other way round.
    Overrides first = settings("true");
    first.emplace_back("train.steps=7");
    run(ranks, On::cpus, mlp, first, named("mixed"));
    Outcome mixed = run(ranks, On::cpus, mlp, settings("false"), named("mixed"));
    mixed.metrics = whole.metrics;
    expect_same(whole, mixed, "gone on without shards");
    expect_same(run(1, On::cpus, mlp, settings("false"), named("alone")),
                run(1, On::cpus, mlp, settings("true"), named("alone-sharded")), "one rank");
  }
}

TEST_P(RanksTraining, kernels_pack_what_all_ranks_have_updated) {
  // Evaluations between the steps leave packed parameters behind, and must find none that are old.
  for (const char* precision : {"precision=float32", "precision=bfloat16"}) {
    SCOPED_TRACE(precision);
    const Overrides common{precision, "train={steps: 14, eval_every_steps: 3}", "batch={global: 48}"};
    Overrides shard = common, eager = common;
    shard.push_back("optimizer.shard=true");
    eager = shard;
    eager.push_back("cuda.graphs=false");
    const auto named = [&](const char* how) { return fmt::format("{}-{}", how, precision); };
    const Outcome whole = run(GetParam(), On::cpus, cnn, common, named("whole"));
    expect_same(whole, run(GetParam(), On::nccl, cnn, shard, named("recorded")), "recorded");
    expect_same(whole, run(GetParam(), On::nccl, cnn, eager, named("eager")), "not recorded");
  }
}

TEST_P(RanksTraining, gradients_that_travel_as_bfloat16_are_those_of_cpus) {
  const int ranks = GetParam();
  for (const char* shard : {"optimizer.shard=false", "optimizer.shard=true"}) {
    SCOPED_TRACE(shard);
    const auto named = [&](const char* how) { return fmt::format("{}-{}", how, shard); };
    const Overrides narrow{shard, "communication.gradient_dtype=bfloat16"};
    const Outcome cpus = run(ranks, On::cpus, mlp, narrow, named("cpus"));
    expect_same(cpus, run(ranks, On::nccl, mlp, narrow, named("nccl")), "nccl");
    expect_same(cpus, run(ranks, On::staged, mlp, narrow, named("staged")), "staged");
  }
}

TEST_P(RanksTraining, algorithms_are_those_of_rank_0_and_of_the_run_that_goes_on) {
  const int ranks = GetParam();
  const auto kept = [&] {
    std::ifstream in(folder_ / "kept" / "choices.txt");
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const auto count = [](const std::string& text, const std::string& word) {
    int n = 0;
    for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
    return n;
  };
  const auto go_on = [&](const char* model, const char* quickest, int steps) {
    model_ = model;
    quickest_ = quickest;
    return run(ranks, On::nccl, mlp, {fmt::format("train.steps={}", steps)}, "kept").out;
  };
  const std::string again = "algorithms were measured again";
  EXPECT_EQ(count(go_on("H1", "first", 3), again), 0);
  const std::string first = kept();
  EXPECT_GE(count(first, "algorithm/H1: "), 4);
  EXPECT_EQ(count(first, "algorithm/H1: "), count(first, " = first of rank 0\n"));
  EXPECT_EQ(count(go_on("H1", "later", 6), again), 0);
  EXPECT_EQ(kept(), first);
  EXPECT_EQ(count(go_on("H2", "other", 9), again), 1);
  EXPECT_EQ(count(kept(), " = other of rank 0\n"), count(first, " = first of rank 0\n"));
  EXPECT_EQ(count(kept(), "of rank 1"), 0);
}

TEST_P(RanksTraining, all_skip_the_same_steps_of_a_dynamic_loss_scale) {
  const int ranks = GetParam();
  // float32 gradients are infinite at the upper end.
  const Overrides dynamic{
      "train.loss_scale=dynamic",
      "train.dynamic_loss_scale={initial: 2.1267647932558654e+37, growth_steps: 2, maximum: 8.507059173023462e+37}"};
  for (const char* shard : {"optimizer.shard=false", "optimizer.shard=true"}) {
    SCOPED_TRACE(shard);
    const auto named = [&](const char* how) { return fmt::format("{}-{}", how, shard); };
    Overrides settings = dynamic;
    settings.emplace_back(shard);
    const Outcome cpus = run(ranks, On::cpus, mlp, settings, named("cpus"));
    const int skipped = cpus.summary["loss_scale"]["skipped_steps"].get<int>();
    EXPECT_GT(skipped, 1);
    EXPECT_LT(skipped, 10);
    expect_same(cpus, run(ranks, On::nccl, mlp, settings, named("nccl")), "nccl");
    expect_same(cpus, run(ranks, On::staged, mlp, settings, named("staged")), "staged");
    expect_goes_on(ranks, settings, cpus, named("halves"));
  }
}

TEST_P(RanksTraining, elastic_bits_are_those_of_one_rank) {
  const Overrides elastic{"deterministic=elastic", "batch={global: 48, micro: 6}"};
  const auto without_evaluation = [](Outcome o) {  // whose sums in double each rank forms of its own samples
    o.summary.erase("eval");
    for (Json& line : o.metrics) line.erase("eval");
    return o;
  };
  const Outcome one = without_evaluation(run(1, On::cpus, mlp, elastic, "one"));
  for (On on : {On::nccl, On::staged}) {
    const char* const name = on == On::nccl ? "nccl" : "staged";
    expect_same(one, without_evaluation(run(GetParam(), on, mlp, elastic, name)), name);
  }
}

TEST_P(RanksTraining, bucket_sizes_of_gpus_are_chosen_at_start_and_kept) {
  const Overrides open{"communication={algorithm: fixed_order}"};
  const Outcome cpus = run(GetParam(), On::cpus, mlp, open, "cpus");
  EXPECT_EQ(cpus.out.find("chosen in"), std::string::npos);
  for (On on : {On::nccl, On::staged}) {
    const char* const name = on == On::nccl ? "nccl" : "staged";
    const Outcome gpus = run(GetParam(), on, mlp, open, name);
    EXPECT_NE(gpus.out.find(", chosen in "), std::string::npos) << gpus.out;
    expect_same(cpus, gpus, name);
    Overrides more = open;
    more.push_back("train.steps=20");
    const Outcome resumed = run(GetParam(), on, mlp, more, name);
    EXPECT_NE(resumed.out.find(", as this run chose before"), std::string::npos) << resumed.out;
  }
}

TEST_P(RanksTraining, sums_of_nccl_itself_give_the_same_bits_recorded_or_not) {
  const Overrides plain{"communication.algorithm=auto"};
  const Overrides eager{"communication.algorithm=auto", "cuda.graphs=false"};
  expect_same(run(GetParam(), On::nccl, cnn, plain, "recorded"), run(GetParam(), On::nccl, cnn, eager, "eager"),
              "nccl");
}

/// Ranks that take steps, each on its thread, until they all have done `work`.
using RankWork = std::function<void(Steps&, Group&)>;
void on_ranks(int ranks, const LoadedConfig& config, const RankWork& work) {
  comm::run_local(ranks, [&](comm::LocalRank& rank) {
    Steps s(config, std::make_unique<AsyncDevice>(), &rank);
    const auto group = s.world.make_group();
    work(s, *group);
    group->barrier();
  });
}

TEST_P(RanksTraining, steps_with_collectives_neither_wait_nor_allocate) {
  for (const char* shard : {"optimizer.shard=false", "optimizer.shard=true"}) {
    SCOPED_TRACE(shard);
    on_ranks(GetParam(), config(On::nccl, mlp, {shard}, "counted"), [](Steps& s, Group& group) {
      s.go(40);
      s.read(0);
      group.barrier();
      const int calls = simulated_nccl().calls, replays = s.device.replays, kernels = s.device.kernel_calls;
      const int streams = s.device.stream_waits, on_device = s.device.allocations;
      group.barrier();
      s.device.hold();
      const auto allocations = test::thread_allocation_count();
      s.run();  // whoever waits for the device, or the other ranks, now waits for ever
      s.run();
      EXPECT_EQ(test::thread_allocation_count(), allocations);
      s.device.go();
      s.go(18);
      s.read(0);
      group.barrier();
      EXPECT_EQ(simulated_nccl().calls, calls);
      EXPECT_EQ(s.device.replays, replays + 20);
      EXPECT_EQ(s.device.kernel_calls, kernels);
      EXPECT_EQ(s.device.stream_waits, streams);
      EXPECT_EQ(s.device.allocations, on_device);
    });
    simulated_nccl().reset();
  }
}

TEST_P(RanksTraining, the_death_of_a_rank_ends_the_others_soon) {
  std::atomic<int> ended{0};
  const int ranks = GetParam();
  on_ranks(ranks, config(On::nccl, mlp, {}, "death"), [&](Steps& s, Group& group) {
    s.go(20);
    group.barrier();
    if (s.world.rank() + 1 == ranks) {
      simulated_nccl().dead_rank = ranks - 1;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      simulated_nccl().noticed = true;
      while (ended < ranks - 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return;
    }
    while (simulated_nccl().dead_rank < 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const auto begin = std::chrono::steady_clock::now();
    try {
      s.go(200);
      ADD_FAILURE() << "nothing was noticed";
    } catch (const RankFailure& e) {
      EXPECT_EQ(e.code(), ExitCode::communication);
      EXPECT_NE(std::string(e.what()).find("remote process exited"), std::string::npos) << e.what();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
    ++ended;
  });
}

TEST_P(RanksTraining, a_timeline_changes_no_bits_and_recorded_steps_tell_of_each_bucket) {
  const int ranks = GetParam();
  for (const char* shard : {"optimizer.shard=false", "optimizer.shard=true"}) {
    SCOPED_TRACE(shard);
    const auto named = [&](const char* how) { return fmt::format("{}-{}", how, shard); };
    const Outcome plain = run(ranks, On::nccl, mlp, {shard, "train.steps=24"}, named("plain"));
    const Overrides with{shard, "train.steps=24", "log.trace={first_step: 15, steps: 6}"};
    const Outcome traced = run(ranks, On::nccl, mlp, with, named("traced"));
    expect_same(plain, traced, "with a timeline");
    EXPECT_LT(plain.calls, traced.calls);  // steps of the timeline are not replayed
    std::size_t buckets = 0;
    for (const Json& line : plain.metrics) {
      if (!line.contains("loss")) continue;
      const Json& sums = line.at("communication");
      buckets = sums.at("exposed").size();
      EXPECT_GE(buckets, 1u);  // a share of each of four ranks is large
      EXPECT_GT(sums.at("sums").get<double>(), 0);
      EXPECT_GT(sums.at("bus_bytes_per_second").get<double>(), 0);
      double exposed = 0;
      for (const Json& seconds : sums.at("exposed")) {
        EXPECT_GE(seconds.get<double>(), 0);
        exposed += seconds.get<double>();
      }
      // Shards also wait for norms and parameters.
      EXPECT_GE(line.at("seconds").at("communication_exposed").get<double>(), 0.999 * exposed);
    }
    std::ifstream file(folder_ / named("traced") / "trace.json");
    const Json trace = Json::parse(file);
    EXPECT_EQ(trace.at("otherData").at("replayed"), false);
    std::size_t sums = 0, steps = 0, passes = 0;
    for (const Json& event : trace.at("traceEvents")) {
      sums += event.at("name") == "sum";
      steps += event.at("name") == "step";
      passes += event.at("name") == "backward";
    }
    const auto all = static_cast<std::size_t>(6 * ranks);
    EXPECT_EQ(steps, all);
    EXPECT_EQ(passes, all);
    EXPECT_EQ(sums, all * buckets);
  }
}

}  // namespace
}  // namespace dtrain::launch
