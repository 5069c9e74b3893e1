// Training samples that change between two parts of a run, all but the few that are looked at first: refused at once
// where they are in memory, else found when the first whole epoch was read; nothing is found where nothing changed.
#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/world/local.hpp"
#include "comm/world/world.hpp"
#include "io/checkpoint/checkpoint.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "launch/base/signals.hpp"
#include "launch/data/data_check.hpp"
#include "launch/train/train.hpp"
#include "tests/support/training.hpp"

namespace dtrain::launch {
namespace {

using test_training::Outcome;

constexpr std::uint64_t rows = 1024;
constexpr const char* text = R"(name: a
model: {input: [6], loss: mean_squared_error, layers: [dense: {units: 1}]}
data: {train: DIGITS, normalize: {scale: 0.004}}
batch: {global: 48, micro: 8}
optimizer: {sgd: {learning_rate: 0.001}}
checkpoint: {every_steps: 0}
)";

class ChangedData : public test_training::Training {
 protected:
  void write(bool zeroed) const {
    std::vector<std::uint8_t> x(rows * 6);
    std::vector<float> y(rows);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint8_t>(1 + i * 7 % 250);
    for (std::size_t i = 0; i < rows; ++i) y[i] = static_cast<float>(x[6 * i]) / 250;
    for (std::uint64_t i = 0; i < rows && zeroed; ++i) {
      bool sampled = false;  // by the fingerprint
      for (std::uint64_t k = 0; k < 16; ++k) sampled |= i == k * (rows - 1) / 15;
      if (!sampled) std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(6 * i), 6, std::uint8_t{0});
    }
    io::h5::Writer file(digits_);
    const std::uint64_t dims[] = {rows, 6};
    file.write(file.add("x", io::StoredType::u8, dims), 0, rows, x.data());
    file.write(file.add("y", io::StoredType::f32, {dims, 1}), 0, rows, y.data());
    file.commit();
  }

  Outcome run(int ranks, const std::string& name, std::vector<std::string> overrides) const {
    const LoadedConfig loaded = config(text, std::move(overrides), name);
    Outcome result;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    StopSignals stop;
    comm::run_local(ranks, [&](comm::LocalRank& rank) {
      comm::World world(rank);
      const ExitCode code = train(loaded, world, stop);
      if (rank.rank() == 0) result.code = code;
      world.finish(ExitCode::ok);
    });
    result.out = testing::internal::GetCapturedStdout();
    result.error = testing::internal::GetCapturedStderr();
    read_files(name, result);
    return result;
  }
  static bool says(const std::string& all, const std::string& part) { return all.find(part) != std::string::npos; }
};

TEST_F(ChangedData, IsRefusedAtTheStartOrFoundByTheEndOfTheFirstWholeEpoch) {
  for (const char* cache : {"data.cache_mib=64", "data.cache_mib=0"}) {
    const bool in_memory = std::string(cache) == "data.cache_mib=64";
    for (const int stopped : {30, 50}) {  // an epoch is 21.3 steps
      SCOPED_TRACE(fmt::format("{}, stopped after {} steps", cache, stopped));
      const std::string name = fmt::format("{}-{}", in_memory, stopped);
      write(false);
      ASSERT_EQ(run(2, name, {cache, fmt::format("train.steps={}", stopped)}).code, ExitCode::ok);
      write(true);
      const Outcome found = run(3, name, {cache, "train.steps=90"});
      EXPECT_EQ(found.code, in_memory ? ExitCode::checkpoint : ExitCode::data) << found.out;
      EXPECT_TRUE(says(found.error, "the training samples are not those of checkpoint ")) << found.error;
      EXPECT_TRUE(says(found.error, "rows 0 to 1023 of " + digits_ + " differ")) << found.error;
      EXPECT_TRUE(says(found.error, "checkpoint.force=true")) << found.error;
      EXPECT_FALSE(std::filesystem::exists(folder_ / name / "checkpoints" / "step-000000090"));
      // Without changes, on other ranks, the bits are those of a run that was not stopped.
      write(false);
      const Outcome back = run(2, name, {cache, "train.steps=90"});
      EXPECT_EQ(back.code, ExitCode::ok) << back.error;
      EXPECT_TRUE(says(back.out, in_memory ? "resume: every byte of the training samples is as it was"
                                           : "every byte of the training samples is as it was in checkpoint"))
          << back.out;
      const Outcome whole = run(2, name + "-whole", {cache, "train.steps=90"});
      EXPECT_FALSE(says(whole.out + whole.error, "training samples")) << whole.out << whole.error;
      EXPECT_EQ(back.summary["parameter_hash"], whole.summary["parameter_hash"]);
    }
  }
  write(true);
  const Outcome forced = run(1, "false-30", {"data.cache_mib=64", "train.steps=120", "checkpoint.force=true"});
  EXPECT_EQ(forced.code, ExitCode::ok) << forced.error;
  EXPECT_TRUE(says(forced.out, "resume: forced: the training samples are not those of checkpoint")) << forced.out;
}

}  // namespace
}  // namespace dtrain::launch
