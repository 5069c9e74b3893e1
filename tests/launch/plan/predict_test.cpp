#include "launch/plan/predict.hpp"

#include <filesystem>

#include <gtest/gtest.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

StepModel two_buckets() {
  StepModel m;
  m.before = 10;
  m.backward = 8;
  m.ready = {4, 8};
  m.sum = {2, 1};
  m.processor = {0.5, 0.5};
  m.update = {1, 0.5};
  return m;
}

TEST(Predict, OverlapHidesWhatFitsBehindBackward) {
  const SimulatedStep s = simulate(two_buckets());
  // Bucket 0 is summed from 14 to 16, behind backward; bucket 1 from 18 to 19, while bucket 0 is updated (18 to 19).
  EXPECT_DOUBLE_EQ(s.seconds, 19.5);
  EXPECT_DOUBLE_EQ(s.exposed, 0);
}

TEST(Predict, SumsWaitForEachOther) {
  StepModel m = two_buckets();
  m.sum = {10, 5};
  const SimulatedStep s = simulate(m);
  // 14 to 24, then 24 to 29; waits 18 to 24 and, after an update of 1, 25 to 29.
  EXPECT_DOUBLE_EQ(s.seconds, 29.5);
  EXPECT_DOUBLE_EQ(s.exposed, 10);
}

TEST(Predict, ASharedProcessorSlowsBoth) {
  StepModel m = two_buckets();
  m.shares_processor = true;
  m.processor = {1, 1};
  const SimulatedStep s = simulate(m);
  // Bucket 0 shares 4 seconds (2 of its own), backward ends at 20; bucket 1 then shares 2 seconds with the update of
  // bucket 0 and is done with it.
  EXPECT_DOUBLE_EQ(s.seconds, 22.5);
  EXPECT_DOUBLE_EQ(s.exposed, 0);
  m.processor = {0, 0};
  EXPECT_DOUBLE_EQ(simulate(m).seconds, 19.5);
}

TEST(Predict, WithoutBucketsAStepIsItsComputation) {
  StepModel m;
  m.before = 2;
  m.backward = 3;
  EXPECT_DOUBLE_EQ(simulate(m).seconds, 5);
}

TEST(Predict, AllReduceIsReadBetweenPointsAndScaledToRanks) {
  const CommProfile c{2, 1, "auto", {{1000, 1e-3, 1}, {1e6, 1e-2, 1}, {1e7, 1e-1, 1}}};
  EXPECT_DOUBLE_EQ(all_reduce_seconds(c, 10, 2), 1e-3);
  EXPECT_DOUBLE_EQ(all_reduce_seconds(c, 1e6, 2), 1e-2);
  EXPECT_NEAR(all_reduce_seconds(c, 2e7, 2), 2e-1, 1e-12);
  EXPECT_NEAR(all_reduce_seconds(c, 31622.7766, 2), 3.16227766e-3, 1e-9);
  // Four ranks: twice the latency, 1.5 times the bytes through each.
  EXPECT_NEAR(all_reduce_seconds(c, 1e6, 4), 2e-3 + 1.5 * 9e-3, 1e-12);
  EXPECT_EQ(all_reduce_seconds(c, 1e6, 1), 0);
}

class PredictConfig : public ::testing::Test {
 protected:
  PredictConfig()
      : loaded_(parse_config("name: x\nmodel: {input: [4], layers: [dense: {units: 2}], loss: cross_entropy}\n"
                             "data: {train: x.h5}\nbatch: {global: 8}\n",
                             "x.yaml")) {
    StepProfile s;
    s.work = work_hash(loaded_);
    s.cpus = 2;
    s.update = 0.5;
    for (const std::int64_t micro : {4, 8}) {
      s.micro = micro;
      s.forward = 1 + static_cast<double>(micro);
      s.backward = 2 * s.forward;
      s.ready = {s.backward};
      s.ends = {40};
      profile_.steps.push_back(s);
    }
    profile_.comm.push_back({2, 1, "auto", {{40, 2, 0.5}, {400, 3, 0.5}}});
  }
  LoadedConfig loaded_;
  Profile profile_;
};

TEST_F(PredictConfig, OneAndTwoRanksFromTheirParts) {
  const Prediction one = predict(profile_, loaded_, {40}, 1, 0);
  EXPECT_DOUBLE_EQ(one.step, 27.5);
  EXPECT_TRUE(one.notes.empty());
  const Prediction two = predict(profile_, loaded_, {40}, 2, 0);
  EXPECT_DOUBLE_EQ(two.compute, 15.5);
  EXPECT_DOUBLE_EQ(two.step, 17.5);
  EXPECT_DOUBLE_EQ(two.exposed, 2);
  EXPECT_DOUBLE_EQ(two.speedup, 27.5 / 17.5);
  EXPECT_DOUBLE_EQ(two.samples_per_second, 8 / 17.5);
  ASSERT_EQ(two.notes.size(), 1u);  // computation of two ranks at once was not measured
}

TEST_F(PredictConfig, OthersBySayingHow) {
  const Prediction four = predict(profile_, loaded_, {40}, 4, 2);
  EXPECT_EQ(four.hosts, 2);
  EXPECT_DOUBLE_EQ(four.compute, 3 + 6 + 0.5);  // the line through 4 and 8, at 2
  EXPECT_DOUBLE_EQ(four.step, 9.5 + 4);
  EXPECT_EQ(four.notes.size(), 3u);
}

TEST_F(PredictConfig, SaysWhatToMeasure) {
  const auto text_of_error = [&](int ranks) -> std::string {
    try {
      predict(profile_, loaded_, {40}, ranks, 0);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  profile_.comm.clear();
  EXPECT_EQ(text_of_error(1), "");
  EXPECT_NE(text_of_error(2).find("mpirun -np 2 dtrain bench comm --profile FILE"), std::string::npos);
  profile_.steps[0].work = profile_.steps[1].work = "another";
  EXPECT_NE(text_of_error(1).find("dtrain bench step x.yaml --profile FILE"), std::string::npos);
}

TEST_F(PredictConfig, AProfileIsAddedToAndReadBack) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("dtrain-profile-" + std::to_string(getpid()))).string();
  for (const auto& s : profile_.steps) note(path, s);
  note(path, profile_.comm[0]);
  profile_.steps[0].update = 7;
  note(path, profile_.steps[0]);  // replaces
  const Profile read = read_profile(path);
  ASSERT_EQ(read.steps.size(), 2u);
  EXPECT_EQ(read.steps[1].update, 7);
  EXPECT_EQ(read.steps[1].ready, profile_.steps[0].ready);
  EXPECT_EQ(read.comm[0].points[1].seconds, 3);
  std::filesystem::remove(path);
  EXPECT_THROW(read_profile(path), ConfigError);
}

}  // namespace
}  // namespace dtrain::launch
