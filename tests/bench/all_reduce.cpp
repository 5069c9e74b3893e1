// All-reduce by size: MPI_Allreduce called directly, the same through our Collective on a communication stream, and in
// fixed order. Checks every sum first, then prints medians of interleaved runs; the ratio is against the direct call.
//   mpirun -np 2 bench_all_reduce [seconds a size] [KiB ...]
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "comm/collective/reducer.hpp"
#include "comm/world/world.hpp"
#include "runtime/device/device.hpp"

using namespace dtrain;
using namespace dtrain::comm;

namespace {

struct Variant {
  const char* name;
  std::function<void(float*, std::size_t)> run;
  std::vector<double> seconds;
};

double median(std::vector<double>& v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Tensor view(float* data, std::size_t n) {
  Tensor t;
  t.desc.shape = Shape{static_cast<std::int64_t>(n)};
  t.data = data;
  return t;
}

void measure(World& world, Group& group, std::vector<Variant>& variants, std::size_t n, double budget) {
  std::vector<float> data(n);
  for (Variant& v : variants) {
    for (std::size_t i = 0; i < n; ++i) data[i] = static_cast<float>((i + static_cast<std::size_t>(world.rank())) % 17);
    v.run(data.data(), n);
    group.agree([&] {
      for (std::size_t i = 0; i < n; ++i) {
        float sum = 0;
        for (int r = 0; r < world.size(); ++r) sum += static_cast<float>((i + static_cast<std::size_t>(r)) % 17);
        if (data[i] != sum) throw CommError(fmt::format("{}: element {} is {}, not {}", v.name, i, data[i], sum));
      }
    });
    v.seconds.clear();
  }
  std::fill(data.begin(), data.end(), 0.0f);
  // Rank 0 decides when to stop: clocks differ.
  const double begin = seconds_now();
  for (bool more = true; more; more = group.any(world.rank() == 0 && seconds_now() - begin < budget)) {
    for (Variant& v : variants) {
      group.barrier();
      const double start = seconds_now();
      v.run(data.data(), n);
      v.seconds.push_back(seconds_now() - start);
    }
  }
  if (world.rank() != 0) return;
  const double bytes = static_cast<double>(n) * sizeof(float);
  const double bus = 2.0 * (world.size() - 1) / world.size();
  double direct = 0;
  for (Variant& v : variants) {
    const double t = median(v.seconds);
    if (direct == 0) direct = t;
    fmt::print("{:>10.0f} KiB  {:<22} {:>10.3f} ms  {:>8.3f} GB/s  bus {:>8.3f} GB/s  {:>5.2f}x  ({} runs)\n",
               bytes / 1024, v.name, t * 1e3, bytes / t / 1e9, bus * bytes / t / 1e9, direct / t, v.seconds.size());
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  World world;
  try {
    const double budget = argc > 1 ? std::atof(argv[1]) : 2;
    std::vector<std::size_t> kib;
    for (int i = 2; i < argc; ++i) kib.push_back(std::strtoul(argv[i], nullptr, 10));
    if (kib.empty()) kib = {4, 64, 1024, 4096, 25600};

    const auto group = world.make_group();
    const auto direct = world.make_communicator();
    const auto ordered = world.make_communicator(Algorithm::fixed_order);
    const auto collective = world.make_collective();
    const auto ordered_collective = world.make_collective(Algorithm::fixed_order);
    const auto device = make_cpu_device(1);
    const auto stream = device->make_stream(StreamUse::communication);
    const auto on_stream = [&](Collective& c) {
      return [&c, &stream](float* data, std::size_t n) {
        c.all_reduce(view(data, n), Reduce::sum, *stream);
        stream->synchronize();
      };
    };
    std::vector<Variant> variants{
        {"MPI_Allreduce", [&](float* d, std::size_t n) { direct->all_reduce(d, n, DType::f32, Reduce::sum); }, {}},
        {"on a stream", on_stream(*collective), {}},
        {"fixed order", [&](float* d, std::size_t n) { ordered->all_reduce(d, n, DType::f32, Reduce::sum); }, {}},
        {"fixed order, on a stream", on_stream(*ordered_collective), {}},
    };
    if (world.rank() == 0) {
      fmt::print("all-reduce of float32 over {} ranks on {} hosts; sums checked first\n", world.size(), [&] {
        auto hosts = world.hosts();
        std::sort(hosts.begin(), hosts.end());
        return std::unique(hosts.begin(), hosts.end()) - hosts.begin();
      }());
    }
    for (std::size_t k : kib) measure(world, *group, variants, k * 256, budget);
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    world.abort(e.code());
  }
  return world.finish(ExitCode::ok);
}
