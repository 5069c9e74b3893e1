// Whether the training samples are those that the run began with: sums over ranks, steps, stops and other numbers of
// ranks, and what is said where one byte is another.
#include "launch/data/data_check.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "io/hdf5/hdf5_writer.hpp"
#include "runtime/program/batch_layout.hpp"
#include "tests/support/thread_group.hpp"

namespace dtrain::launch {
namespace {

constexpr std::uint64_t rows = 150, width = 5, global = 12;  // epochs end in the middle of steps

class DataCheckTest : public testing::Test {
 protected:
  DataCheckTest() : folder_(std::filesystem::temp_directory_path() / fmt::format("dtrain-data-check-{}", getpid())) {
    std::filesystem::create_directories(folder_);
    write();
  }
  ~DataCheckTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  /// `changed`: a row with another byte; -1: none.
  void write(std::int64_t changed = -1) const {
    std::vector<std::uint8_t> x(rows * width);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint8_t>(i * 31 % 251);
    if (changed >= 0) x[static_cast<std::size_t>(changed) * width + 3] ^= 1;
    const std::uint64_t half = rows / 2;
    for (const std::uint64_t first : {std::uint64_t{0}, half}) {
      io::h5::Writer file((folder_ / (first == 0 ? "a.h5" : "b.h5")).string());
      const std::uint64_t dims[] = {half, width};
      file.write(file.add("x", io::StoredType::u8, dims), 0, half, x.data() + first * width);
      file.commit();
    }
  }
  io::Dataset open(double cache_mib = 0) const {
    io::DatasetOptions options;
    options.ports = {{"x", PortUse::input, false, "x", {}, {}}};
    options.cache_mib = cache_mib;
    return io::Dataset(std::vector<std::string>{(folder_ / "a.h5").string(), (folder_ / "b.h5").string()}, options);
  }

  struct Run {
    std::vector<std::string> said;  // by rank 0
    std::string text;               // for the checkpoint at its end
  };
  /// Reads the steps [begin, end) on so many ranks, as training does; `saved` is that of the checkpoint at `begin`.
  Run run(int ranks, std::uint64_t begin, std::uint64_t end, const std::string& saved = "", bool force = false) const {
    Run result;
    test::run_ranks(ranks, [&](Group& group) {
      const io::Dataset data = open();
      Graph graph(static_cast<std::int64_t>(global) / ranks / 2);
      graph.add_input(PortUse::input, "x", TensorDesc::of_sample(DType::f32, graph.batch(), {Shape{width}.extents()}));
      io::LoaderOptions options;
      options.layout = batch_layout(graph);
      options.ports.resize(1);
      options.ports[0].source = 0;
      options.global_batch = static_cast<std::int64_t>(global);
      options.rank = group.rank();
      options.ranks = ranks;
      options.hash_rows = true;
      const auto loader = io::Loader::training(data, options);
      loader->seek(begin);
      DataCheck check(data, global, std::nullopt, force);
      std::vector<std::string> said;
      if (begin > 0) said = check.resume(group, saved, "run/step-1", begin);
      for (std::uint64_t step = begin; step < end; ++step) {
        for (std::int64_t j = 0; j < loader->batches(); ++j) {
          check.add(loader->next());
          loader->release();
        }
        for (auto& text : check.step_done(group, step + 1)) said.push_back(std::move(text));
      }
      const std::string text = check.text(group, end);
      if (group.rank() == 0) result = {std::move(said), text};
    });
    return result;
  }
  template <class Error, class F>
  static std::string message_of(F work) {
    try {
      work();
    } catch (const Error& e) {
      return e.what();
    }
    return "nothing was thrown";
  }

  std::filesystem::path folder_;
};

TEST_F(DataCheckTest, AnEpochComesToTheSumsOfTheSetHoweverItIsRead) {
  const RowSums all = sum_rows(open(1024));
  EXPECT_EQ(sum_rows(open()), all);
  const auto saved = [](const std::string& text) { return saved_sums_from(text, "checkpoint"); };
  for (const int ranks : {1, 2, 3}) {
    const Run whole = run(ranks, 0, 13);  // 12.5 steps are an epoch
    EXPECT_TRUE(whole.said.empty());
    ASSERT_TRUE(saved(whole.text).all.has_value());
    EXPECT_EQ(*saved(whole.text).all, all) << ranks << " ranks";
    EXPECT_EQ(saved(whole.text).part->begin, rows);
    EXPECT_EQ(saved(whole.text).part->end, 13 * global);
    // Stopped in the middle, and gone on with on other ranks.
    const Run begun = run(ranks, 0, 5), next = run(3 - ranks % 3, 5, 9, begun.text);
    EXPECT_FALSE(saved(begun.text).all.has_value());
    EXPECT_EQ(next.said, std::vector<std::string>{"the training samples are compared with the checkpoint in every byte "
                                                  "when epoch 2 was read"});
    const Run ended = run(ranks, 9, 25, next.text);
    EXPECT_EQ(*saved(ended.text).all, all);
    ASSERT_EQ(ended.said.size(), 2u);
    EXPECT_EQ(ended.said[1], "every byte of the training samples is as it was in checkpoint run/step-1");
    EXPECT_FALSE(saved(ended.text).part.has_value()) << "two epochs are 25 steps";
    // An older checkpoint has no sums: the next whole epoch gives them.
    const Run old = run(ranks, 5, 26);
    EXPECT_TRUE(old.said.empty());
    EXPECT_EQ(*saved(old.text).all, all);
  }
}

TEST_F(DataCheckTest, OneOtherByteIsFoundByTheEndOfTheNextWholeEpoch) {
  const Run begun = run(2, 0, 5), whole = run(2, 0, 15);
  std::vector<std::uint64_t> read(5 * global);  // until the first stop
  io::SampleStream(rows, io::LoaderOptions().seed, true).indices(0, read);
  for (const std::int64_t row : {static_cast<std::int64_t>(read[7]), std::int64_t{0}, std::int64_t{149}}) {
    write(row);
    const std::string of_file = row < 75 ? (folder_ / "a.h5").string() : (folder_ / "b.h5").string();
    const std::int64_t in_file = row % 75, first = row / 3 * 3 % 75;
    SCOPED_TRACE(fmt::format("row {} of {}", in_file, of_file));
    for (const std::uint64_t begin : {5u, 15u}) {
      const std::string text = begin == 5 ? begun.text : whole.text;
      const std::string found = message_of<DataError>([&] { run(2, begin, begin == 5 ? 25 : 38, text); });
      if (begin == 5 && std::find(read.begin(), read.end(), static_cast<std::uint64_t>(row)) == read.end()) {
        EXPECT_EQ(found, "nothing was thrown") << "nobody has read another byte there";
        continue;
      }
      EXPECT_NE(found.find("the training samples are not those of checkpoint run/step-1: "), std::string::npos)
          << found;
      EXPECT_NE(found.find(fmt::format("rows {} to {} of {}", first, first + 2, of_file)), std::string::npos) << found;
      EXPECT_NE(found.find("bring the files back as they were and go on from run/step-1"), std::string::npos) << found;
    }
    const Run forced = run(2, 15, 38, whole.text, true);
    ASSERT_GE(forced.said.size(), 2u);
    EXPECT_EQ(forced.said[1].find("forced: the training samples are not those"), 0u) << forced.said[1];
    EXPECT_EQ(*saved_sums_from(forced.text, "checkpoint").all, sum_rows(open())) << "these are its samples now";
    // In memory, where it is known at once.
    const io::Dataset data = open(1024);
    test::run_ranks(1, [&](Group& group) {
      DataCheck check(data, global, sum_rows(data), false);
      const std::string at_once =
          message_of<CheckpointError>([&] { check.resume(group, whole.text, "run/step-1", 15); });
      EXPECT_NE(at_once.find(fmt::format("rows {} to {} of {} differ", first, first + 2, of_file)), std::string::npos)
          << at_once;
      DataCheck accepting(data, global, sum_rows(data), true);
      EXPECT_EQ(accepting.resume(group, whole.text, "run/step-1", 15).at(0).find("forced: "), 0u);
    });
    write();
  }
}

TEST_F(DataCheckTest, WhatACheckpointSaysIsCheckedBeforeItIsBelieved) {
  const std::string good = run(1, 0, 15).text;
  EXPECT_TRUE(saved_sums_from(good, "checkpoint").part.has_value());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const std::string& bad :
       {std::string("[]"), std::string("{}"), std::string("nonsense"), with("\"count\":150", "\"count\":0"),
        with("\"count\":150", "\"count\":-150"), with("\"begin\":150", "\"begin\":149"),
        with("\"begin\":150", "\"begin\":180"), with("\"end\":180", "\"end\":1e300"), with("\"all\":\"", "\"all\":\"0"),
        with("\"all\":\"", "\"all\":\"x"), with("\"sums\":\"", "\"sums\":[\"")}) {
    const std::string said = message_of<CheckpointError>([&] { saved_sums_from(bad, "checkpoint run/step-15"); });
    EXPECT_EQ(said.find("checkpoint run/step-15 is corrupt: data_sums has "), 0u) << bad << "\n" << said;
  }
  // Sums of another step than the manifest's.
  EXPECT_NE(message_of<CheckpointError>([&] {
              run(1, 16, 17, good);
            }).find("data_sums has samples up to 180, and it was written at sample 192"),
            std::string::npos);
}

}  // namespace
}  // namespace dtrain::launch
