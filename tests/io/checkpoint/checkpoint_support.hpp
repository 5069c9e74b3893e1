// What the checkpoint tests share: a small state of many kinds of tensors, a scratch directory, a file system that
// records and fails calls at will. Used by one test at a time; the file system may be called from several threads.
#pragma once

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "io/checkpoint/checkpoint.hpp"
#include "io/checkpoint/checkpoint_writer.hpp"
#include "runtime/random/rng.hpp"
#include "tests/support/thread_group.hpp"

namespace dtrain::test {

namespace fs = std::filesystem;

class Scratch {
 public:
  Scratch() {
    auto name = (fs::path(testing::TempDir()) / "dtrain-checkpoint-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// Tensors of odd sizes and all kinds, one larger than the rest, so that cuts fall into the middle of it.
struct SmallState {
  struct Entry {
    std::string name;
    DType dtype;
    Shape shape;
    std::vector<std::byte> bytes;
  };
  std::vector<Entry> entries;

  explicit SmallState(std::uint64_t salt) {
    add("param/dense_1.weight", DType::f32, {33, 61}, salt);
    add("param/dense_1.bias", DType::f32, {61}, salt);
    add("optimizer/first_moment/dense_1.weight", DType::f32, {33, 61}, salt);
    add("state/nothing", DType::f32, {0, 3}, salt);
    add("state/counter", DType::i64, {}, salt);
    add("state/half", DType::bf16, {7, 3}, salt);
    add("state/mask", DType::u8, {101}, salt);
    add("state/double", DType::f64, {5}, salt);
  }
  void add(const std::string& name, DType dtype, Shape shape, std::uint64_t salt) {
    Entry e{name, dtype, shape, std::vector<std::byte>(static_cast<std::size_t>(shape.elements()) * size_of(dtype))};
    const auto key = random_key(salt, Purpose::test);
    for (std::size_t i = 0; i < e.bytes.size(); ++i) {
      // The top byte of each element stays small, so that no float is a NaN.
      const auto top = i % size_of(dtype) == size_of(dtype) - 1;
      e.bytes[i] = static_cast<std::byte>(draw4(key, i, static_cast<std::uint32_t>(entries.size()), 0).v[0] &
                                          (top ? 0x3fu : 0xffu));
    }
    entries.push_back(std::move(e));
  }
  std::vector<io::StateTensor> views() {
    std::vector<io::StateTensor> out;
    for (auto& e : entries) out.push_back({e.name, e.dtype, e.shape, e.bytes.data()});
    return out;
  }
  void clear() {
    for (auto& e : entries) std::fill(e.bytes.begin(), e.bytes.end(), std::byte{0xee});
  }
  bool same(const SmallState& o) const {
    for (std::size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].bytes != o.entries[i].bytes) return false;
    }
    return entries.size() == o.entries.size();
  }
};

inline io::RunState run_state(std::uint64_t step) {
  io::RunState s;
  s.step = step;
  s.applied_steps = step - (step > 3 ? 3 : 0);
  s.samples = step * 128;
  s.epoch = static_cast<double>(step) * 128 / 60000;
  s.global_batch = 128;
  s.seed = 0xfedcba9876543210ull;
  s.loss_scale = 1024;
  s.good_steps = 77;
  s.data_fingerprint = "f00d";
  s.configuration = "seed: 1\nname: \"ümläut\"\n";
  s.configuration_hash = "99dac62abcfee333";  // XXH3 of it
  s.fields = {{"batch.global", "128"}, {"optimizer.adam.learning_rate", "0.001"}, {"train.epochs", "5"}};
  s.choices = {{"conv2d_1", "implicit-gemm"}};
  s.metrics = {{"accuracy", 0.985}};
  s.versions = {{"dtrain", "0.1.0"}};
  s.world_size = 2;
  s.run_id = "1111222233334444";
  s.parent_run_id = "5555666677778888";
  s.parameter_hash = "0123456789abcdef";
  return s;
}

inline io::CheckpointConfig config_for(const std::string& directory) {
  io::CheckpointConfig c;
  c.directory = directory;
  return c;
}

/// Saves one step and waits for it.
inline io::SaveReport save_and_finish(io::CheckpointWriter& writer, std::uint64_t step, SmallState& state) {
  const auto views = state.views();
  writer.save(run_state(step), views);
  auto report = writer.finish();
  if (!report) throw std::runtime_error("nothing was saved");
  return *report;
}

/// One rank writes these steps into the directory, each from SmallState(step).
inline void write_steps(const std::string& directory, const std::vector<std::uint64_t>& steps, int ranks = 1) {
  run_ranks(ranks, [&](Group& group) {
    auto config = config_for(directory);
    config.keep = 100;
    io::CheckpointWriter writer(group, config, "writer");
    for (const auto step : steps) {
      SmallState state(step);
      const auto report = save_and_finish(writer, step, state);
      if (!report.durable) throw std::runtime_error(report.error);
    }
  });
}

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::string& path, const std::string& text) {
  fs::remove(path);  // a file that is cut and written again is flushed to the disk by some file systems
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// Passes everything on to the real file system; counts and records the calls that change something or can fail in a
/// save, and asks `before` what to do: 0 goes on, a negative errno fails the call.
class FaultFileSystem final : public io::FileSystem {
 public:
  struct Call {
    std::string operation, path;
    std::size_t index = 0;
  };
  std::function<int(const Call&)> before;
  /// Each write takes at most so many bytes.
  std::size_t write_at_most = static_cast<std::size_t>(-1);

  std::vector<Call> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  void forget() {
    const std::lock_guard lock(mutex_);
    calls_.clear();
  }

  int open(const std::string& path, int flags, unsigned mode) override {
    if (const int r = ask("open", path); r < 0) return r;
    const int fd = real_.open(path, flags, mode);
    const std::lock_guard lock(mutex_);
    if (fd >= 0) paths_[fd] = path;
    return fd;
  }
  std::int64_t write(int fd, const void* data, std::size_t bytes) override {
    if (const int r = ask("write", path_of(fd)); r < 0) return r;
    return real_.write(fd, data, std::min(bytes, write_at_most));
  }
  std::int64_t read(int fd, void* data, std::size_t bytes) override {
    if (const int r = ask("read", path_of(fd)); r < 0) return r;
    return real_.read(fd, data, bytes);
  }
  int allocate(int fd, std::uint64_t bytes) override {
    if (const int r = ask("allocate", path_of(fd)); r < 0) return r;
    return real_.allocate(fd, bytes);
  }
  void start_writeback(int fd, std::uint64_t offset, std::uint64_t bytes) override {
    real_.start_writeback(fd, offset, bytes);
  }
  int truncate(int fd, std::uint64_t bytes) override {
    if (const int r = ask("truncate", path_of(fd)); r < 0) return r;
    return real_.truncate(fd, bytes);
  }
  int sync(int fd) override {
    if (const int r = ask("sync", path_of(fd)); r < 0) return r;
    return real_.sync(fd);
  }
  int close(int fd) override {
    const int r = ask("close", path_of(fd));
    const int closed = real_.close(fd);  // the descriptor is gone even where close fails
    return r < 0 ? r : closed;
  }
  int rename(const std::string& from, const std::string& to) override {
    if (const int r = ask("rename", from); r < 0) return r;
    return real_.rename(from, to);
  }
  int make_directory(const std::string& path) override {
    if (const int r = ask("make_directory", path); r < 0) return r;
    return real_.make_directory(path);
  }
  int remove_file(const std::string& path) override {
    if (const int r = ask("remove_file", path); r < 0) return r;
    return real_.remove_file(path);
  }
  int remove_directory(const std::string& path) override {
    if (const int r = ask("remove_directory", path); r < 0) return r;
    return real_.remove_directory(path);
  }
  int list(const std::string& path, std::vector<std::string>& names) override {
    if (const int r = ask("list", path); r < 0) return r;
    return real_.list(path, names);
  }
  int status(const std::string& path, io::FileStatus& out) override {
    if (const int r = ask("status", path); r < 0) return r;
    return real_.status(path, out);
  }
  int try_lock(int fd) override {
    if (const int r = ask("try_lock", path_of(fd)); r < 0) return r;
    return real_.try_lock(fd);
  }

 private:
  int ask(const char* operation, const std::string& path) {
    Call call;
    {
      const std::lock_guard lock(mutex_);
      call = {operation, path, calls_.size()};
      calls_.push_back(call);
    }
    return before ? before(call) : 0;
  }
  std::string path_of(int fd) const {
    const std::lock_guard lock(mutex_);
    const auto it = paths_.find(fd);
    return it == paths_.end() ? "?" : it->second;
  }

  io::FileSystem& real_ = io::posix_file_system();
  mutable std::mutex mutex_;
  std::vector<Call> calls_;
  std::map<int, std::string> paths_;
};

}  // namespace dtrain::test
