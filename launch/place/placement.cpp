#include "launch/place/placement.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <map>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "runtime/ranks/group.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

/// What makes a GPU, or a MIG instance, the same one.
std::string key_of(const RankView& rank, std::size_t ordinal) {
  const GpuIdentity& gpu = rank.gpus[ordinal];
  if (!gpu.uuid.empty()) return gpu.uuid;
  return fmt::format("{}/{}", rank.host, gpu.bus_id.empty() ? std::to_string(ordinal) : gpu.bus_id);
}

std::vector<std::string> keys_of(const RankView& rank) {
  std::vector<std::string> keys;
  for (std::size_t i = 0; i < rank.gpus.size(); ++i) keys.push_back(key_of(rank, i));
  return keys;
}

/// False where all compute on the cpu.
bool decide_kind(std::span<const RankView> ranks, DeviceChoice choice) {
  if (choice == DeviceChoice::cpu || ranks.empty()) return false;
  std::vector<int> with, without;
  for (std::size_t r = 0; r < ranks.size(); ++r)
    (ranks[r].gpus.empty() ? without : with).push_back(static_cast<int>(r));
  if (without.empty()) return true;
  const RankView& first = ranks[static_cast<std::size_t>(without[0])];
  if (with.empty()) {
    if (choice == DeviceChoice::automatic) return false;
    throw DeviceError(fmt::format("there is no usable GPU ({}); use device: cpu", first.why_none));
  }
  throw DeviceError(fmt::format(
      "{} of {} ranks see no usable GPU, the first is rank {} (host {}: {}), while {} of host {} does; give each "
      "rank one, or let all compute on the cpu with device: cpu",
      without.size(), ranks.size(), without[0], first.host, first.why_none, ranks_text({with[0]}),
      ranks[static_cast<std::size_t>(with[0])].host));
}

/// Ranks of a host that see the same GPUs take them in turn, in the order in which the first of them sees them.
std::vector<int> choose(std::span<const RankView> ranks, bool share) {
  std::map<std::pair<std::string, std::vector<std::string>>, std::vector<std::size_t>> groups;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    std::vector<std::string> keys = keys_of(ranks[r]);
    std::sort(keys.begin(), keys.end());
    groups[{ranks[r].host, std::move(keys)}].push_back(r);
  }
  std::vector<int> ordinals(ranks.size());
  for (const auto& [where, members] : groups) {
    const std::vector<std::string> order = keys_of(ranks[members[0]]);
    if (members.size() > order.size() && !share)
      throw DeviceError(fmt::format(
          "{} ranks of host {} see {} {}; start one rank a GPU (mpirun -np or --map-by ppr:{}:node, Slurm's "
          "--ntasks-per-node), show them more (CUDA_VISIBLE_DEVICES), or let ranks share with cuda.share_gpus=true",
          members.size(), where.first, order.size(), order.size() == 1 ? "GPU" : "GPUs", order.size()));
    for (std::size_t i = 0; i < members.size(); ++i) {
      const std::vector<std::string> own = keys_of(ranks[members[i]]);
      const auto at = std::find(own.begin(), own.end(), order[i % order.size()]);
      ordinals[members[i]] = static_cast<int>(at - own.begin());
    }
  }
  return ordinals;
}

/// True where some GPU has several ranks; throws where that is not wanted.
bool check_shared(std::span<const RankView> ranks, const std::vector<int>& ordinals, bool share) {
  std::map<std::string, std::size_t> first;  // by what is used
  bool shared = false;
  const auto use = [&](const std::string& what, std::size_t r, const char* text) {
    const auto [at, is_new] = first.emplace(what, r);
    if (is_new || at->second == r) return;
    shared = true;
    if (share) return;
    const GpuIdentity& gpu = ranks[r].gpus[static_cast<std::size_t>(ordinals[r])];
    throw DeviceError(fmt::format(
        "ranks {} and {} of host {} would compute on {} ({} {} at {}); give each rank a GPU of its own (Slurm: "
        "--gpus-per-task=1; else leave CUDA_VISIBLE_DEVICES alone), or let them share with cuda.share_gpus=true",
        at->second, r, ranks[r].host, text, gpu.name, gpu.uuid, gpu.bus_id));
  };
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    const auto ordinal = static_cast<std::size_t>(ordinals[r]);
    use(key_of(ranks[r], ordinal), r, "one GPU");
    // NCCL joins no two MIG instances of one GPU.
    if (const std::string& place = ranks[r].gpus[ordinal].bus_id; !place.empty())
      use(ranks[r].host + "/" + place, r, "two MIG instances of one GPU");
  }
  return shared;
}

std::string compare_models(std::span<const RankView> ranks, const std::vector<int>& ordinals, bool allowed) {
  std::map<std::string, std::vector<int>> by_model;
  for (std::size_t r = 0; r < ranks.size(); ++r)
    by_model[ranks[r].gpus[static_cast<std::size_t>(ordinals[r])].name].push_back(static_cast<int>(r));
  if (by_model.size() < 2) return {};
  std::vector<std::string> parts;
  for (const auto& [name, list] : by_model)
    parts.push_back(
        fmt::format("{} on {} ({})", name, ranks_text(list), ranks[static_cast<std::size_t>(list[0])].host));
  const std::string text = fmt::format("the GPUs differ: {}", fmt::join(parts, "; "));
  if (!allowed)
    throw DeviceError(text +
                      "; choose equal ones (CUDA_VISIBLE_DEVICES, hosts), or train at the slowest one's pace with "
                      "cuda.mixed_models=true");
  return text + "; the slowest sets the pace";
}

std::vector<std::string> entries_of(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string entry; std::getline(in, entry, ',');) {
    entry.erase(0, entry.find_first_not_of(" \t"));
    entry.erase(entry.find_last_not_of(" \t") + 1);
    out.push_back(entry);
  }
  return out;
}

std::optional<std::size_t> ordinal_of(std::string_view entry) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(entry.data(), entry.data() + entry.size(), value);
  if (error != std::errc{} || end != entry.data() + entry.size()) return std::nullopt;
  return value;
}

bool names_by_uuid(const std::string& entry) {
  return entry.starts_with("GPU-") || entry.starts_with("MIG-");
}

}  // namespace

Placement place_ranks(std::span<const RankView> ranks, const PlacementRules& rules) {
  Placement out;
  if (!decide_kind(ranks, rules.device)) {
    out.ordinals.assign(ranks.size(), Placement::cpu);
    return out;
  }
  out.ordinals = choose(ranks, rules.share_gpus);
  out.shared = check_shared(ranks, out.ordinals, rules.share_gpus);
  if (std::string text = compare_models(ranks, out.ordinals, rules.mixed_models); !text.empty())
    out.warnings.push_back(std::move(text));
  return out;
}

std::vector<GpuIdentity> named_gpus(const std::string& host, const std::optional<std::string>& text) {
  std::vector<GpuIdentity> out;
  if (!text) return out;
  for (const std::string& entry : entries_of(*text)) {
    if (!ordinal_of(entry) && !names_by_uuid(entry)) break;
    out.push_back({"a GPU", names_by_uuid(entry) ? entry : host + "/" + entry, "", 0});
  }
  return out;
}

}  // namespace dtrain::launch
