// Choices of a run: rank 0's on all ranks, kept in the run's directory, and measured again only where nobody knows
// them.
#include "launch/report/run_choices.hpp"

#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "comm/world/local.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"
#include "tests/support/async_device.hpp"

namespace dtrain::launch {
namespace {

using test::AsyncDevice;

AsyncDevice::Options gpu(const std::string& model, int rank) {
  AsyncDevice::Options o;
  o.model = model;
  o.algorithm = fmt::format("by rank {}", rank);
  return o;
}

/// Prepares two ops; one twice.
void prepare_ops(AsyncDevice& device) {
  const TensorDesc in{DType::f32, Shape{4, 8}};
  for (const std::int64_t units : {16, 16}) device.kernels().prepare(Dense{.units = units}, {&in, 1}, {});
  device.kernels().prepare(Activate{}, {&in, 1}, {});
}

class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / fmt::format("dtrain-choices-{}", getpid())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string str() const { return path_.string(); }
  std::string file() const { return (path_ / "choices.txt").string(); }

 private:
  std::filesystem::path path_;
};

TEST(RunChoices, rank_0_measures_for_all_that_have_its_gpu) {
  comm::run_local(4, [](comm::LocalRank& rank) {
    const auto group = rank.make_group();
    AsyncDevice device(gpu(rank.rank() < 2 ? "H1" : "H2", rank.rank()));
    RunChoices choices(*group);
    const auto tally = choices.prepare(device, [&] { prepare_ops(device); });
    EXPECT_EQ(device.measured, rank.rank() == 1 ? 0 : 2);
    EXPECT_EQ(tally.recalled, 0u);
    EXPECT_EQ(tally.measured, 2u);
    // The same on all: rank 0's, and of the others rank 2's, the first with such a GPU.
    ASSERT_EQ(choices.all().size(), 4u);
    for (const auto& [name, text] : choices.all())
      EXPECT_EQ(text, name.starts_with("algorithm/H1") ? "by rank 0" : "by rank 2") << name;
    // A run that goes on from there measures nothing, on whichever rank.
    AsyncDevice again(gpu(rank.rank() % 2 == 0 ? "H1" : "H2", 7));
    RunChoices later(*group);
    later.recall(choices.all());
    const auto nothing = later.prepare(again, [&] { prepare_ops(again); });
    EXPECT_EQ(again.measured, 0);
    EXPECT_EQ(nothing.recalled, 4u);
    EXPECT_EQ(nothing.measured, 0u);
    EXPECT_EQ(later.all(), choices.all());
    // On another GPU it measures, and knows it.
    AsyncDevice other(gpu("H3", rank.rank()));
    const auto anew = later.prepare(other, [&] { prepare_ops(other); });
    EXPECT_EQ(other.measured, rank.rank() == 0 ? 2 : 0);
    EXPECT_EQ(anew.measured, 2u);
    EXPECT_EQ(later.all().size(), 6u);
  });
}

TEST(RunChoices, an_error_on_one_rank_is_everybodys) {
  comm::run_local(3, [](comm::LocalRank& rank) {
    const auto group = rank.make_group();
    for (int guilty = 0; guilty < 3; ++guilty) {
      AsyncDevice device(gpu("H1", 0));
      RunChoices choices(*group);
      EXPECT_THROW(choices.prepare(device,
                                   [&] {
                                     if (rank.rank() == guilty) throw DeviceError("no algorithm");
                                   }),
                   DeviceError);
    }
  });
}

TEST(RunChoices, anything_can_be_chosen_once_by_rank_0) {
  comm::run_local(3, [](comm::LocalRank& rank) {
    const auto group = rank.make_group();
    RunChoices choices(*group);
    const auto answer = [&] {
      group->barrier();  // ranks may measure together
      return fmt::format("{}", 25 + rank.rank());
    };
    EXPECT_EQ(choices.find("communication.bucket_mib, 3 ranks"), nullptr);
    EXPECT_EQ(choices.choose("communication.bucket_mib, 3 ranks", answer), "25");
    EXPECT_EQ(choices.choose("communication.bucket_mib, 3 ranks", [] { return std::string("is known"); }), "25");
    EXPECT_EQ(*choices.find("communication.bucket_mib, 3 ranks"), "25");
    EXPECT_EQ(choices.all().size(), 1u);
  });
}

TEST(RunChoices, the_directory_keeps_them_and_a_checkpoint_counts_more) {
  const Folder folder;
  comm::run_local(2, [&](comm::LocalRank& rank) {
    const auto group = rank.make_group();
    RunChoices first(*group);
    first.recall(folder.str());  // there is none
    first.write(folder.str());   // and nothing to keep
    group->barrier();
    EXPECT_FALSE(std::filesystem::exists(folder.file()));
    first.choose("size", [] { return std::string("large"); });
    first.choose("place", [] { return std::string("here"); });
    first.write(folder.str());
    group->barrier();
    RunChoices second(*group);
    second.recall(folder.str());
    EXPECT_EQ(second.all(), first.all());
    second.recall({{"size", "small"}});
    EXPECT_EQ(*second.find("size"), "small");
    EXPECT_EQ(*second.find("place"), "here");
    EXPECT_THROW(second.recall({{"two\nlines", "x"}}), CheckpointError);
  });
}

TEST(RunChoices, a_file_that_was_spoilt_is_named) {
  const Folder folder;
  std::ofstream(folder.file()) << "size = large\nnonsense\n";
  comm::run_local(2, [&](comm::LocalRank& rank) {
    const auto group = rank.make_group();
    RunChoices choices(*group);
    try {
      choices.recall(folder.str());
      FAIL() << "nothing was noticed";
    } catch (const CheckpointError& e) {
      const std::string text = e.what();
      EXPECT_NE(text.find(folder.file() + ": line 2 "), std::string::npos) << text;
      EXPECT_NE(text.find("remove the file to measure again"), std::string::npos) << text;
    }
  });
}

}  // namespace
}  // namespace dtrain::launch
