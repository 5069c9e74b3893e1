// Measures a save and a load against what the disk does alone: the same bytes by write and fsync, without checksums.
// usage: checkpoint_write DIRECTORY [MiB] [repetitions]; runs on one rank; checks what it loads before it prints.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <fmt/format.h>

#include "io/checkpoint/checkpoint_writer.hpp"
#include "runtime/random/rng.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

double raw_write(const std::string& path, std::span<const std::byte> data) {
  auto& files = dtrain::io::posix_file_system();
  const auto start = Clock::now();
  dtrain::io::File file(files, path, O_WRONLY | O_CREAT | O_TRUNC);
  file.allocate(data.size());
  constexpr std::size_t chunk = std::size_t{4} << 20;
  for (std::size_t at = 0; at < data.size(); at += chunk)
    file.write(data.subspan(at, std::min(chunk, data.size() - at)));
  file.sync();
  file.close();
  const double seconds = seconds_since(start);
  dtrain::io::remove_tree(files, path);
  return seconds;
}

int run(const std::string& directory, std::size_t mib, int repetitions) {
  using namespace dtrain;
  using namespace dtrain::io;
  constexpr int tensors = 16;
  const std::size_t floats = (mib << 20) / sizeof(float) / tensors;
  std::vector<float> data(floats * tensors), loaded(floats * tensors);
  const auto key = random_key(1, Purpose::test);
  for (std::size_t i = 0; i < data.size(); ++i) {
    data[i] = to_unit(draw4(key, i / 4, 0, 0).v[i % 4]);
  }
  const auto views = [&](std::vector<float>& of) {
    std::vector<StateTensor> out;
    for (std::size_t i = 0; i < tensors; ++i) {
      out.push_back(
          {fmt::format("param/{}", i), DType::f32, Shape{static_cast<std::int64_t>(floats)}, of.data() + i * floats});
    }
    return out;
  };
  const auto bytes = std::as_bytes(std::span(data));
  const double size = static_cast<double>(bytes.size()) / 1048576.0;
  SoloGroup group;
  CheckpointConfig config;
  config.directory = directory + "/checkpoint_write";
  std::vector<double> raw, save, stall, load;
  {
    CheckpointWriter writer(group, config, "bench");
    RunState state;
    const auto saved = views(data);
    const auto filled = views(loaded);
    for (int i = 0; i <= repetitions; ++i) {
      const double raw_seconds = raw_write(directory + "/checkpoint_write.raw", bytes);
      state.step = static_cast<std::uint64_t>(i) + 1;
      writer.save(state, saved);
      const auto report = writer.finish();
      if (!report || !report->durable) throw CheckpointError(report ? report->error : "nothing saved");
      std::fill(loaded.begin(), loaded.end(), 0.0f);
      const auto start = Clock::now();
      load_checkpoint(group, report->path, filled);
      const double load_seconds = seconds_since(start);
      if (std::memcmp(data.data(), loaded.data(), bytes.size()) != 0) throw CheckpointError("loaded other bytes");
      if (i == 0) continue;  // the first one allocates the host buffer
      raw.push_back(raw_seconds);
      save.push_back(report->write_seconds);
      stall.push_back(report->copy_seconds);
      load.push_back(load_seconds);
    }
  }
  remove_tree(posix_file_system(), config.directory);
  fmt::print("state                  {:8.1f} MiB, median of {}\n", size, repetitions);
  fmt::print("raw write + fsync      {:8.1f} MiB/s   (the bound)\n", size / median(raw));
  fmt::print("save, start to durable {:8.1f} MiB/s   {:.2f} of the bound (aim 0.8)\n", size / median(save),
             median(raw) / median(save));
  fmt::print("training stalls        {:8.1f} ms      copy, checksum and look for NaN: {:.1f} MiB/s\n",
             1e3 * median(stall), size / median(stall));
  fmt::print("load, page cache       {:8.1f} MiB/s   both checksums verified\n", size / median(load));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: checkpoint_write DIRECTORY [MiB] [repetitions]\n");
    return 2;
  }
  try {
    return run(argv[1], argc > 2 ? std::stoul(argv[2]) : 256, argc > 3 ? std::stoi(argv[3]) : 5);
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
