// Started by mpirun: the comm suite on MPI ranks, or one of the ways in which a run can end.
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include <signal.h>
#include <unistd.h>

#include "comm/watch/watchdog.hpp"
#include "comm/world/world.hpp"
#include "tests/comm/collective/device_suite.hpp"
#include "tests/comm/collective/reducer_suite.hpp"
#include "tests/comm/collective/suite.hpp"
#include "tests/support/async_device.hpp"

using namespace dtrain;
using namespace dtrain::comm;

namespace {

int suite_of(World& world) {
  const auto maker = suite::maker_of(world);
  suite::check_group(maker);
  suite::check_communicators(maker);
  const auto device = make_cpu_device(1);
  suite::check_collectives(maker, *device);
  suite::check_reducers(maker);
  test::AsyncDevice far;
  const auto staged = [&](Algorithm algorithm) {
    CommConfig config;
    config.algorithm = algorithm;
    config.transport = Transport::staged;
    return world.make_collective(far, config);
  };
  suite::check_device_collectives({world.rank(), world.size(), &far, staged, true});
  return 0;
}

void print_error(const std::string& text) {
  std::fprintf(stderr, "error: %s\n", text.c_str());
}

// All ranks meet the same error: rank 0 alone prints it.
int agreed_error(World& world) {
  const auto group = world.make_group();
  try {
    group->agree([&] {
      if (world.rank() == world.size() - 1) throw DataError("data.h5: truncated");
    });
  } catch (const Error& e) {
    // The others are done long before rank 0 prints: they must wait for it.
    if (world.rank() == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      print_error(e.what());
    }
    return world.finish(e.code());
  }
  return 1;
}

[[noreturn]] void lonely_error(World& world) {
  if (world.rank() == 1) {
    print_error("rank 1 alone");
    world.abort(ExitCode::numeric);
  }
  world.make_group()->barrier();
  std::this_thread::sleep_for(std::chrono::seconds(60));
  std::_Exit(99);
}

// A rank stops or dies before the second all_reduce, for which the others wait.
int lost(World& world, int signal, double timeout, int victim = 1) {
  Watchdog& watchdog = world.watchdog();
  watchdog.limit(timeout);
  const auto communicator = world.make_communicator();
  float x = 1;
  watchdog.beat("all_reduce", 1);
  communicator->all_reduce(&x, 1, DType::f32, Reduce::sum);
  watchdog.beat("all_reduce", 2);
  // The messages of a second between hosts are said first.
  if (victim > 1 || world.hosts().front() != world.hosts().back()) std::this_thread::sleep_for(std::chrono::seconds(2));
  if (world.rank() == victim) kill(getpid(), signal);
  communicator->all_reduce(&x, 1, DType::f32, Reduce::sum);
  return 0;
}

// All exchange for ever, with a deadline that is far away.
int talking(World& world) {
  world.watchdog().limit(300);
  const auto communicator = world.make_communicator();
  float x = 1;
  for (std::uint64_t step = 1;; ++step) {
    world.watchdog().beat("all_reduce", step);
    communicator->all_reduce(&x, 1, DType::f32, Reduce::max);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// Rank 1 dies while the others compute and nobody expects anything of it.
int dies_alone(World& world) {
  if (world.rank() == 1) kill(getpid(), SIGKILL);
  std::this_thread::sleep_for(std::chrono::seconds(60));
  return 99;
}

// The last rank lets the others wait for longer than a warning, and shorter than the deadline.
int slow(World& world) {
  world.watchdog().limit(10);
  world.watchdog().beat("data", 1);
  if (world.rank() == world.size() - 1) std::this_thread::sleep_for(std::chrono::milliseconds(7500));
  world.make_group()->barrier();
  return 0;
}

// All are busy for a while, and end at different times.
int uneven(World& world) {
  world.watchdog().limit(1);
  for (int i = 0; i < 30 + 10 * world.rank(); ++i) {
    world.watchdog().beat("data", 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return 0;
}

/// The suite of device tensors: on this rank's GPU, which ranks share where there are fewer, or on the simulated
/// device, which stays in this process; over what carries sums.
int device_suite_of(World& world, const std::string& kind, const std::string& transport) {
  std::string why;
  const int gpus = kind == "cuda" ? cuda_device_count(why) : 0;
  if (kind == "cuda" && gpus == 0) throw DeviceError("there is no usable GPU: " + why);
  const auto device = gpus > 0 ? make_cuda_device(world.local_rank() % gpus) : std::make_unique<test::AsyncDevice>();
  const auto make = [&](Algorithm algorithm) {
    CommConfig config;
    config.algorithm = algorithm;
    config.transport = transport == "nccl" ? Transport::nccl : Transport::staged;
    return world.make_collective(*device, config);
  };
  suite::check_device_collectives({world.rank(), world.size(), device.get(), make});
  if (world.rank() == 0)
    std::printf("%d ranks on %s over %s\n", world.size(), device->name().c_str(), transport.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "suite";
  // As dtrain does: mpirun sends it to all where one rank died, and kills them a second later.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  try {
    World world;
    try {
      int result = 2;
      if (mode == "suite") result = suite_of(world);
      if (mode == "device" && argc == 4) result = device_suite_of(world, argv[2], argv[3]);
      if (mode == "info") {
        std::printf("rank %d of %d, local %d of %d, host %s, %d cpus, note '%s'\n", world.rank(), world.size(),
                    world.local_rank(), world.local_size(), world.hosts()[0].c_str(), world.cpus(),
                    world.notes().empty() ? "" : world.notes()[0].c_str());
        result = 0;
      }
      if (mode == "agreed") return agreed_error(world);
      if (mode == "lonely") lonely_error(world);
      if (mode == "stopped") result = lost(world, SIGSTOP, 4);
      if (mode == "stopped-last") result = lost(world, SIGSTOP, 6, world.size() - 1);
      if (mode == "talking") result = talking(world);
      if (mode == "killed") result = lost(world, SIGKILL, 60);
      if (mode == "killed-alone") result = dies_alone(world);
      if (mode == "slow") result = slow(world);
      if (mode == "uneven") result = uneven(world);
      if (result == 0) return world.finish(ExitCode::ok);
      return result;
    } catch (const std::exception& e) {
      print_error(e.what());
      world.abort(ExitCode::bug);
    }
  } catch (const Error& e) {
    print_error(e.what());
    return static_cast<int>(e.code());
  }
}
