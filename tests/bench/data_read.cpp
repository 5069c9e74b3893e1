// Reads a set through the Loader as training would, and prints what it saw and how fast: one JSON object.
// Run by data_read_peer.py, which compares it with h5py and a PyTorch DataLoader.
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "io/dataset/loader.hpp"
#include "runtime/tensor/error.hpp"

// data_read FILE BATCH STEPS THREADS CACHE_MIB
int main(int argc, char** argv) {
  using namespace dtrain;
  if (argc != 6) {
    fmt::print(stderr, "usage: data_read FILE BATCH STEPS THREADS CACHE_MIB\n");
    return 2;
  }
  try {
    const auto begin = std::chrono::steady_clock::now();
    io::DatasetOptions set_options;
    set_options.cache_mib = std::atof(argv[5]);
    const io::Dataset set(std::vector<std::string>{argv[1]}, set_options);
    const auto opened = std::chrono::steady_clock::now();
    const std::int64_t size = std::atoll(argv[2]);
    Graph graph(size);
    graph.add_input(PortUse::input, "input", TensorDesc::of_sample(DType::f32, size, set.port(0).row.extents()));
    graph.add_input(PortUse::target, "target", {DType::i32, Shape{size}});
    graph.add_input(PortUse::weight, "weight", {DType::f32, Shape{size}});
    io::LoaderOptions options;
    options.layout = batch_layout(graph);
    options.ports.resize(3);
    options.ports[0].source = 0;
    options.ports[0].normalize = {1.0 / 255, {0.1307}, {0.3081}};
    options.ports[1].use = PortUse::target;
    options.ports[1].source = 1;
    options.ports[2].use = PortUse::weight;
    options.global_batch = size;
    options.threads = std::atoi(argv[4]);
    const long steps = std::atol(argv[3]);
    const auto loader = io::Loader::training(set, options);
    const auto started = std::chrono::steady_clock::now();
    const std::clock_t processor = std::clock();  // of all threads
    double sum = 0, labels = 0;
    for (long s = 0; s < steps; ++s) {
      const io::Batch& batch = loader->next();
      // Both sides touch each batch alike, so that nothing is left undone.
      const float* x = batch.ports[0].as<float>();
      float part[16]{};
      const std::int64_t n = batch.ports[0].elements();
      std::int64_t i = 0;
      for (; i + 16 <= n; i += 16) {
        for (int k = 0; k < 16; ++k) part[k] += x[i + k];
      }
      for (; i < n; ++i) part[0] += x[i];
      for (const float p : part) sum += static_cast<double>(p);
      for (std::int64_t k = 0; k < batch.valid; ++k) labels += batch.ports[1].as<std::int32_t>()[k];
      loader->release();
    }
    const auto end = std::chrono::steady_clock::now();
    const double processor_seconds = static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
    const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
    fmt::print(
        "{{\"samples\": {}, \"open_seconds\": {:.6f}, \"seconds\": {:.6f}, \"waited_seconds\": {:.6f}, "
        "\"processor_seconds\": {:.6f}, \"sum\": "
        "{:.17g}, "
        "\"label_sum\": {:.17g}}}\n",
        steps * options.global_batch, seconds(begin, opened), seconds(started, end), loader->waited_seconds(),
        processor_seconds, sum, labels);
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
