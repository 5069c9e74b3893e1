#include "comm/config.hpp"

#include <utility>

#include "comm/deadlines.hpp"
#include "comm/tables.hpp"

namespace dtrain::comm {

TypePtr<CommConfig> communication_table() {
  static const TypePtr<CommConfig> table = [] {
    Table<CommConfig> communication("How ranks sum their gradients.");
    communication.add("bucket_mib", &CommConfig::bucket_mib, number({0, 65536, true}),
                      "largest number of gradients that are summed at once, in MiB");
    communication.add("last_bucket_mib", &CommConfig::last_bucket_mib, number({0, 65536, true}),
                      "the last bucket, for which a step has to wait, in MiB");
    communication.add("gradient_dtype", &CommConfig::gradient_dtype,
                      choice<DType>({{"float32", DType::f32}, {"bfloat16", DType::bf16}, {"float16", DType::f16}}),
                      "what travels; bfloat16 halves the bytes and rounds each sum, and uses fixed_order's sums");
    communication.add("algorithm", &CommConfig::algorithm,
                      choice<Algorithm>({{"auto", Algorithm::automatic}, {"fixed_order", Algorithm::fixed_order}}),
                      "auto: the faster one; fixed_order: sums in a fixed tree over ranks");
    communication.add(
        "probe_seconds", &CommConfig::probe_seconds, word_or("auto", CommConfig::automatic_probe, number({0, 3600})),
        "how long a start measures what sums reach, to compare it with what the links promise; auto: 2 on "
        "GPUs, 0 on the cpu");
    for (const DeadlineSetting& d : deadline_settings)
      communication.add(d.name, d.seconds, number({0, 1e6, true}), d.help);
    return shared(std::move(communication));
  }();
  return table;
}

}  // namespace dtrain::comm
