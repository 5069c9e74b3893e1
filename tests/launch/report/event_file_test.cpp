#include "launch/report/event_file.hpp"

#include <filesystem>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

namespace dtrain::launch {
namespace {

namespace fs = std::filesystem;

TEST(EventFile, ChecksumsAreThePublishedOnes) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(masked_crc32c(std::string(32, '\0')), 0x0fd7fffau);
}

// A record can end anywhere when a machine dies: what is whole and not later than the step stays, whatever follows.
TEST(EventFile, IsCutAfterTheLastWholeRecordOfTheStep) {
  const fs::path directory = fs::temp_directory_path() / ("dtrain-events-" + std::to_string(getpid()));
  fs::create_directories(directory);
  const auto files = [&] {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(directory)) out.push_back(entry.path());
    return out;
  };
  const Scalar scalar{"loss", 0.5};
  std::vector<std::uintmax_t> sizes;  // after the version and each step
  {
    EventFile events(directory.string(), 0);
    ASSERT_EQ(files().size(), 1u);
    sizes.push_back(fs::file_size(files()[0]));
    for (std::int64_t step = 1; step <= 3; ++step) {
      events.write(step, {&scalar, 1});
      sizes.push_back(fs::file_size(files()[0]));
    }
  }
  const fs::path file = directory / "events.out.tfevents.0000000001.host.00.dtrain",
                 whole = directory.string() + ".whole";
  fs::copy_file(files()[0], whole);
  for (std::uintmax_t bytes = 0; bytes <= sizes[3]; ++bytes) {
    for (const fs::path& old : files()) fs::remove(old);
    fs::copy_file(whole, file);
    fs::resize_file(file, bytes);
    const EventFile next(directory.string(), 2);
    const std::uintmax_t kept = bytes >= sizes[2] ? sizes[2] : bytes >= sizes[1] ? sizes[1] : 0;
    EXPECT_EQ(fs::exists(file) ? fs::file_size(file) : 0, kept) << bytes;
  }
  fs::remove_all(directory);
  fs::remove(whole);
}

}  // namespace
}  // namespace dtrain::launch
