#include "comm/world/device_collective.hpp"

#include <cmath>
#include <cstddef>

#include <fmt/format.h>

#include "comm/collective/agree.hpp"
#include "comm/collective/fixed_order.hpp"
#include "comm/collective/staged.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

constexpr double most_workspace_mib = 64;  // of the fixed order on a GPU; larger buckets take rounds

enum class Carrier : std::uint8_t { host, nccl, staged };

Carrier carrier_of(const Device& device, const CommConfig& config) {
  if (!device.asynchronous()) return Carrier::host;
  if (config.transport == Transport::staged) return Carrier::staged;
  if (config.transport == Transport::automatic && !nccl_available()) return Carrier::staged;
  return Carrier::nccl;
}

std::string text_of(Carrier carrier) {
  if (carrier == Carrier::nccl) return "NCCL " + nccl_version();
  return carrier == Carrier::staged ? "the host's memory (staged)" : "the host's memory";
}

}  // namespace

std::unique_ptr<Collective> make_device_collective(const CollectiveMaker& make, Device& device,
                                                   const CommConfig& config, std::string& note) {
  if (make.size == 1) return make_solo_collective(device);
  const Carrier carrier = carrier_of(device, config);
  const auto group = make.group();
  const Fact facts[] = {{"the kind of device", device.kind() == DeviceKind::cuda ? "a GPU" : "the cpu"},
                        {"what carries sums of gradients", text_of(carrier)}};
  agree_on(*group, make.host, facts);
  if (carrier == Carrier::host) return make_host_collective(make.communicator(config.algorithm));
  std::unique_ptr<Collective> collective;  // its memory may be missing on one rank alone
  if (carrier == Carrier::staged) {
    auto communicator = make.communicator(config.algorithm);
    // Neither MPI nor local ranks can add the types of half the size.
    if (config.algorithm != Algorithm::fixed_order)
      communicator = make_fixed_order(std::move(communicator), {.others_below = true, .f32_below = true});
    if (config.transport == Transport::automatic)
      note =
          "this dtrain was built without NCCL: sums of GPUs' gradients travel through the host's memory and MPI, "
          "and steps are not replayed as CUDA graphs";
    group->agree([&] { collective = make_staged_collective(device, std::move(communicator)); });
    return collective;
  }
  auto nccl = make_nccl_collective(*group, device, config, make.last_resort);
  if (config.algorithm != Algorithm::fixed_order) return nccl;
  // Where the sizes of buckets are still to be chosen, none is larger than this as a rule.
  const double mib = config.bucket_mib > 0 ? std::min(std::ceil(config.bucket_mib), most_workspace_mib) : 32;
  group->agree(
      [&] { collective = make_device_fixed_order(device, std::move(nccl), static_cast<std::size_t>(mib) << 20); });
  return collective;
}

}  // namespace dtrain::comm
