#include "comm/collective/config.hpp"

#include <utility>

#include "comm/collective/deadlines.hpp"
#include "comm/collective/tables.hpp"

namespace dtrain::comm {

TypePtr<CommConfig> communication_table() {
  static const TypePtr<CommConfig> table = [] {
    Table<CommConfig> communication("How ranks sum their gradients.");
    communication.add(
        "bucket_mib", &CommConfig::bucket_mib,
        word_or("by_device", bucket_by_device, word_or("auto", bucket_auto, number({0, 65536, true}))),
        "largest number of gradients that are summed at once, in MiB; auto: chosen at start, by measuring "
        "sums over these ranks for half a second, and kept with the run; by_device: auto on GPUs, 25 on the "
        "cpu");
    communication.add(
        "last_bucket_mib", &CommConfig::last_bucket_mib, word_or("auto", bucket_auto, number({0, 65536, true})),
        "size of the last bucket, for which a step has to wait, in MiB; auto: chosen with bucket_mib, or 1 "
        "where bucket_mib is a number");
    communication.add("least_buckets", &CommConfig::least_buckets, integer<int>({1, 1024}),
                      "a model with less than so many buckets is cut into smaller ones, of 0.25 MiB at least; where "
                      "bucket_mib is chosen, so is this");
    communication.add("gradient_dtype", &CommConfig::gradient_dtype,
                      choice<DType>({{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"float16", DType::f16}}),
                      "the type of gradients on the network; bfloat16 halves the bytes, rounds each sum, and uses "
                      "fixed_order's sums");
    communication.add("algorithm", &CommConfig::algorithm,
                      choice<Algorithm>({{"auto", Algorithm::automatic}, {"fixed_order", Algorithm::fixed_order}}),
                      "auto: the faster one; fixed_order: sums in a fixed tree over ranks");
    communication.add(
        "probe_seconds", &CommConfig::probe_seconds, word_or("auto", CommConfig::automatic_probe, number({0, 3600})),
        "how long a start measures what sums reach, to compare it with what the links promise; auto: 2 on "
        "GPUs, 0 on the cpu");
    communication.add(
        "transport", &CommConfig::transport,
        choice<Transport>({{"auto", Transport::automatic}, {"nccl", Transport::nccl}, {"staged", Transport::staged}}),
        "how the sums of GPUs travel; auto: by NCCL where the program has it; staged: through the host's memory and "
        "MPI, slower and without CUDA graphs");
    for (const DeadlineSetting& d : deadline_settings)
      communication.add(d.name, d.seconds, number({0, 1e6, true}), d.help);
    return shared(std::move(communication));
  }();
  return table;
}

}  // namespace dtrain::comm
