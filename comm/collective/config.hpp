// Plain settings of the comm floor, with their defaults.
// Values only; launch/ fills them from YAML, comm/ reads them.
#pragma once

#include <cstdint>

#include "runtime/tensor/tensor.hpp"

namespace dtrain::comm {

enum class Algorithm : std::uint8_t {
  automatic,    // MPI's own all-reduce; between hosts with one rank each fixed_order's exchange, which is faster
  fixed_order,  // exchange of shards, f32 sum in a fixed tree over ranks, all-gather
};

/// In place of a number of MiB.
constexpr double bucket_auto = 0;        // chosen at start, by measurement
constexpr double bucket_by_device = -1;  // bucket_auto on GPUs, 25 on a cpu

/// What carries the sums of GPUs.
enum class Transport : std::uint8_t {
  automatic,  // NCCL where the build has it
  nccl,
  staged,  // through the host's memory, over MPI
};

struct CommConfig {
  double bucket_mib = bucket_by_device;
  double last_bucket_mib = bucket_auto;  // beside a number of bucket_mib: 1
  int least_buckets = 4;                 // where bucket_mib is a number
  DType gradient_dtype = DType::f32;
  Algorithm algorithm = Algorithm::automatic;
  static constexpr double automatic_probe = -1;  // two seconds on GPUs, none on the cpu
  double probe_seconds = automatic_probe;
  Transport transport = Transport::automatic;
  // Without progress; which one counts when: deadlines.hpp.
  double timeout_seconds = 300;
  double set_up_timeout_seconds = 1800;
  double load_timeout_seconds = 1800;
  double first_step_timeout_seconds = 900;
  double save_timeout_seconds = 1800;
};

}  // namespace dtrain::comm
