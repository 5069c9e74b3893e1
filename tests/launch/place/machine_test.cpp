#include "launch/place/machine.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <unistd.h>

namespace dtrain::launch {
namespace {

namespace fs = std::filesystem;

/// A root of /proc and /sys that says what the test wants.
class MachineFacts : public ::testing::Test {
 protected:
  MachineFacts() : root_(fs::temp_directory_path() / ("dtrain-machine-" + std::to_string(getpid()))) {
    put("proc/cpuinfo",
        "processor\t: 0\nmodel name\t: A Processor\nphysical id\t: 0\ncore id\t: 0\nflags\t: fpu avx2 avx512f "
        "amx_bf16\n"
        "processor\t: 1\nmodel name\t: A Processor\nphysical id\t: 0\ncore id\t: 0\nflags\t: fpu avx2\n"
        "processor\t: 2\nmodel name\t: A Processor\nphysical id\t: 1\ncore id\t: 0\nflags\t: fpu avx2\n");
    put("proc/meminfo", "MemTotal:  1024 kB\nMemFree: 1 kB\nMemAvailable:   512 kB\n");
  }
  ~MachineFacts() override { fs::remove_all(root_); }
  void put(const std::string& name, const std::string& text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  Machine read() const { return read_machine(root_.string()); }
  fs::path root_;
};

TEST_F(MachineFacts, ProcessorsAndMemory) {
  const Machine m = read();
  EXPECT_EQ(m.cpu, "A Processor");
  EXPECT_EQ(m.cpus, 3);
  EXPECT_EQ(m.cores, 2);
  EXPECT_EQ(m.sockets, 2);
  EXPECT_TRUE(m.has("amx_bf16"));
  EXPECT_FALSE(m.has("avx512_bf16"));
  EXPECT_EQ(m.memory, 1024u * 1024);
  EXPECT_EQ(m.memory_available, 512u * 1024);
  EXPECT_EQ(m.memory_limit, Machine::unlimited);
  EXPECT_EQ(m.cpu_quota, 0);
}

TEST_F(MachineFacts, LimitsOfAllParentGroupsHold) {
  put("proc/self/cgroup", "0::/pod/job\n");
  put("sys/fs/cgroup/pod/job/cpu.max", "max 100000\n");
  put("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
  put("sys/fs/cgroup/pod/job/memory.max", "4096\n");
  put("sys/fs/cgroup/pod/memory.max", "max\n");
  EXPECT_EQ(read().cpu_quota, 1.5);
  EXPECT_EQ(read().memory_limit, 4096u);
}

TEST_F(MachineFacts, LimitsOfTheFirstVersionOfGroups) {
  put("proc/self/cgroup", "3:memory:/host/path/that/is/not/here\n2:cpu,cpuacct:/\n1:pids:/\n");
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
  EXPECT_EQ(read().cpu_quota, 0);
  EXPECT_EQ(read().memory_limit, 8192u);
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  EXPECT_EQ(read().cpu_quota, 2);
  EXPECT_EQ(read().memory_limit, Machine::unlimited);
}

TEST_F(MachineFacts, ADiskIsMeasuredWhereARunWouldWrite) {
  const Disk disk = measure_disk((root_ / "runs" / "new").string(), 1 << 20);
  EXPECT_EQ(disk.directory, fs::canonical(root_).string());
  EXPECT_EQ(disk.problem, "");
  EXPECT_GT(disk.write_rate, 0);
  EXPECT_GT(disk.free, 0u);
  EXPECT_EQ(std::distance(fs::directory_iterator(root_), fs::directory_iterator()), 1);  // nothing is left behind
  EXPECT_NE(measure_disk((root_ / "proc" / "meminfo").string(), 1 << 20).problem, "");
}

TEST(Programs, AreFoundInThePath) {
  EXPECT_NE(find_program("sh"), "");
  EXPECT_EQ(find_program("no-such-program-as-this"), "");
}

}  // namespace
}  // namespace dtrain::launch
