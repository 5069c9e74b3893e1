// Overlap without a model: a step of fixed computation that makes buckets ready one after another, against
// max(computation + processor time of the transport, communication). Checks the sums first.
//   mpirun -np 2 bench_overlap [automatic|fixed_order] [compute ms a step] [MiB a step] [buckets] [steps]
// Behind a slow link: tests/support/two_nodes.sh -r 1gbit bench_overlap ...
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <time.h>

#include "comm/collective/reducer.hpp"
#include "comm/world/world.hpp"

using namespace dtrain;
using namespace dtrain::comm;

namespace {

double cpu_seconds(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Arithmetic that stays in registers: its time does not depend on what else uses the memory.
double burn(double x, long rounds) {
  for (long i = 0; i < rounds; ++i) x = x * 0.999999 + 1e-6;
  return x;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  World world;
  try {
    const auto argument = [&](int i, double otherwise) { return argc > i ? std::atof(argv[i]) : otherwise; };
    const auto algorithm =
        argc > 1 && std::string(argv[1]) == "fixed_order" ? Algorithm::fixed_order : Algorithm::automatic;
    const double compute_seconds = argument(2, 100) / 1e3;
    const std::size_t floats = static_cast<std::size_t>(argument(3, 8) * (1 << 18));
    const int buckets = static_cast<int>(argument(4, 8)), steps = static_cast<int>(argument(5, 10));

    const auto group = world.make_group();
    const auto collective = world.make_collective(algorithm);
    const auto device = make_cpu_device(1);
    const auto compute = device->make_stream(StreamUse::compute);
    FlatLayout layout;
    layout.param_floats = floats;
    const std::size_t total = layout.total_floats(), n = static_cast<std::size_t>(buckets);
    for (std::size_t b = 0; b < n; ++b) layout.buckets.push_back({total * b / n, total * (b + 1) / n});
    const ParameterStore store(*device, layout);
    GradientReducer reducer(*device, *collective, store, {});

    // Read before and written after each burn, so that the compiler cannot move it past the clock.
    volatile double sink = 1.0;
    const double per_round = [&] {
      const double begin = cpu_seconds(CLOCK_THREAD_CPUTIME_ID);
      sink = burn(sink, 20000000);
      return (cpu_seconds(CLOCK_THREAD_CPUTIME_ID) - begin) / 20000000;
    }();
    const long rounds = static_cast<long>(compute_seconds / buckets / per_round);

    const auto step = [&](bool with_compute, bool with_communication) {
      group->barrier();
      const double begin = seconds_now();
      reducer.begin_step();
      for (int b = 0; b < buckets; ++b) {
        if (with_compute) sink = burn(sink, rounds);
        if (with_communication) reducer.bucket_ready(b, *compute);
      }
      if (with_communication) reducer.wait_all(*compute);
      return seconds_now() - begin;
    };

    std::fill_n(store.gradients(), total, static_cast<float>(world.rank() + 1));
    step(false, true);
    group->agree([&] {
      const auto expected = static_cast<float>(world.size() * (world.size() + 1) / 2);
      if (std::any_of(store.gradients(), store.gradients() + total, [&](float x) { return x != expected; })) {
        throw CommError("a bucket's sum is wrong");
      }
    });
    std::fill_n(store.gradients(), total, 0.0f);

    std::vector<double> alone, communication, both, exposed, transport;
    for (int s = 0; s < steps; ++s) {
      alone.push_back(step(true, false));
      const double process = cpu_seconds(CLOCK_PROCESS_CPUTIME_ID);
      communication.push_back(step(false, true));
      transport.push_back(cpu_seconds(CLOCK_PROCESS_CPUTIME_ID) - process);
      both.push_back(step(true, true));
      exposed.push_back(reducer.exposed_seconds());
    }
    if (world.rank() == 0) {
      const double c = median(alone), m = median(communication), t = median(transport), b = median(both);
      const double bound = std::max(c + t, m);
      fmt::print(
          "{} ranks, {} MiB in {} buckets, {} steps: compute {:.1f} ms, communication {:.1f} ms ({:.1f} MB/s) of which "
          "processor {:.1f} ms\n",
          world.size(), static_cast<double>(floats) / (1 << 18), buckets, steps, c * 1e3, m * 1e3,
          static_cast<double>(total) * 4 / m / 1e6, t * 1e3);
      fmt::print(
          "step {:.1f} ms, exposed {:.1f} ms: {:.2f}x max(compute + processor, communication) = {:.1f} ms, "
          "{:.2f}x max(compute, communication) = {:.1f} ms\n",
          b * 1e3, median(exposed) * 1e3, b / bound, bound * 1e3, b / std::max(c, m), std::max(c, m) * 1e3);
    }
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    world.abort(e.code());
  }
  return world.finish(ExitCode::ok);
}
