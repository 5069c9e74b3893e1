#include "launch/place/placement.hpp"

#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "comm/place/launch_env.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

using Texts = std::vector<std::string>;

/// A host's GPUs, "a0", "a1", ... by their UUIDs' last digits.
std::vector<GpuIdentity> host_gpus(char host, int count, const std::string& model = "NVIDIA H100") {
  std::vector<GpuIdentity> out;
  for (int i = 0; i < count; ++i)
    out.push_back({model, std::string("GPU-") + host + std::to_string(i) + "00",
                   "0000:" + std::to_string(10 + i) + ":00.0", std::uint64_t{80} << 30});
  return out;
}

/// One rank's process, as a launcher starts it.
struct Process {
  char host = 'a';
  std::map<std::string, std::string> environment = {};
};

/// Those that CUDA shows with this CUDA_VISIBLE_DEVICES: by ordinals or the beginnings of UUIDs, up to the first entry
/// that is neither.
std::vector<GpuIdentity> shown(const std::vector<GpuIdentity>& gpus, const std::string& visible) {
  std::vector<GpuIdentity> out;
  std::istringstream in(visible);
  for (std::string entry; std::getline(in, entry, ',');) {
    std::size_t i = 0;
    while (i < gpus.size() && entry != std::to_string(i) && (entry.size() < 4 || !gpus[i].uuid.starts_with(entry))) ++i;
    if (i == gpus.size()) break;
    out.push_back(gpus[i]);
  }
  return out;
}

RankView view(const Process& p, const std::vector<GpuIdentity>& gpus) {
  const auto found = p.environment.find("CUDA_VISIBLE_DEVICES");
  RankView out{std::string(1, p.host), {}, ""};
  out.gpus = found == p.environment.end() ? gpus : shown(gpus, found->second);
  if (out.gpus.empty()) out.why_none = "no CUDA-capable device is detected";
  return out;
}

/// The GPU of each rank by its UUID's middle: "a0 a1 b0", or the error.
std::string outcome(const std::vector<RankView>& views, const PlacementRules& rules = {}) {
  try {
    const Placement placement = place_ranks(views, rules);
    std::string out;
    for (std::size_t r = 0; r < views.size(); ++r) {
      const int ordinal = placement.ordinals[r];
      out +=
          (r > 0 ? " " : "") +
          (ordinal == Placement::cpu ? "cpu" : views[r].gpus.at(static_cast<std::size_t>(ordinal)).uuid.substr(4, 2));
    }
    return out;
  } catch (const DeviceError& e) {
    EXPECT_EQ(e.code(), ExitCode::device);
    return std::string("error: ") + e.what();
  }
}

Process mpirun(char host, int rank, int local, int local_size, const char* visible = nullptr) {
  Process p{host,
            {{"OMPI_COMM_WORLD_RANK", std::to_string(rank)},
             {"OMPI_COMM_WORLD_LOCAL_RANK", std::to_string(local)},
             {"OMPI_COMM_WORLD_LOCAL_SIZE", std::to_string(local_size)}}};
  if (visible != nullptr) p.environment["CUDA_VISIBLE_DEVICES"] = visible;
  return p;
}
Process srun(char host, int rank, int local, const std::string& visible) {
  return {host,
          {{"PMIX_RANK", std::to_string(rank)},
           {"SLURM_PROCID", std::to_string(rank)},
           {"SLURM_LOCALID", std::to_string(local)},
           {"SLURM_STEP_ID", "0"},
           {"CUDA_VISIBLE_DEVICES", visible}}};
}

struct Case {
  const char* name;
  std::vector<Process> ranks;
  int gpus;  // of each host
  std::string expected;
};

TEST(RankPlacement, a_table_of_launches) {
  const Case cases[] = {
      {"a plain process", {{}}, 2, "a0"},
      {"a plain process without a GPU", {{}}, 0, "cpu"},
      {"mpirun, all visible", {mpirun('a', 0, 0, 3), mpirun('a', 1, 1, 3), mpirun('a', 2, 2, 3)}, 4, "a0 a1 a2"},
      {"mpirun, two hosts",
       {mpirun('a', 0, 0, 2), mpirun('a', 1, 1, 2), mpirun('b', 2, 0, 2), mpirun('b', 3, 1, 2)},
       2,
       "a0 a1 b0 b1"},
      {"mpirun, two hosts in turn",
       {mpirun('a', 0, 0, 2), mpirun('b', 1, 0, 2), mpirun('a', 2, 1, 2), mpirun('b', 3, 1, 2)},
       2,
       "a0 b0 a1 b1"},
      {"mpirun, ordinals", {mpirun('a', 0, 0, 2, "3,1"), mpirun('a', 1, 1, 2, "3,1")}, 4, "a3 a1"},
      {"mpirun, UUIDs and their beginnings",
       {mpirun('a', 0, 0, 2, "GPU-a200,GPU-a0"), mpirun('a', 1, 1, 2, "GPU-a200,GPU-a0")},
       4,
       "a2 a0"},
      {"mpirun, a rank's own ordinal", {mpirun('a', 0, 0, 2, "1"), mpirun('a', 1, 1, 2, "0")}, 2, "a1 a0"},
      {"mpirun, a rank's own order", {mpirun('a', 0, 0, 2, "0,1"), mpirun('a', 1, 1, 2, "1,0")}, 2, "a0 a1"},
      {"empty hides all", {mpirun('a', 0, 0, 1, "")}, 2, "cpu"},
      {"-1 hides all", {mpirun('a', 0, 0, 1, "-1")}, 2, "cpu"},
      {"NoDevFiles hides all", {mpirun('a', 0, 0, 1, "NoDevFiles")}, 2, "cpu"},
      {"-1 hides what follows", {mpirun('a', 0, 0, 1, "1,-1,0")}, 2, "a1"},
      {"srun --gpus-per-task=1",
       {srun('a', 0, 0, "0"), srun('a', 1, 1, "1"), srun('b', 2, 0, "0"), srun('b', 3, 1, "1")},
       2,
       "a0 a1 b0 b1"},
      {"srun --gres=gpu:2", {srun('a', 0, 0, "0,1"), srun('a', 1, 1, "0,1")}, 4, "a0 a1"},
      {"srun --gpus-per-task=2: one of each", {srun('a', 0, 0, "0,1"), srun('a', 1, 1, "2,3")}, 4, "a0 a2"},
      {"four ranks that see two GPUs each, two by two",
       {srun('a', 0, 0, "0,1"), srun('a', 1, 1, "0,1"), srun('a', 2, 2, "2,3"), srun('a', 3, 3, "2,3")},
       4,
       "a0 a1 a2 a3"},
  };
  for (const Case& c : cases) {
    std::vector<RankView> views;
    for (const Process& p : c.ranks) views.push_back(view(p, host_gpus(p.host, c.gpus)));
    EXPECT_EQ(outcome(views), c.expected) << c.name;
    // One visible GPU is ordinal 0; several that all of the host see: the local rank.
    const Placement placement = place_ranks(views, {});
    for (std::size_t r = 0; r < views.size(); ++r) {
      const auto launch = comm::discover_launch([&](const char* name) -> const char* {
        const auto found = c.ranks[r].environment.find(name);
        return found == c.ranks[r].environment.end() ? nullptr : found->second.c_str();
      });
      if (views[r].gpus.size() == 1) EXPECT_EQ(placement.ordinals[r], 0) << c.name;
      if (std::string(c.name).starts_with("mpirun, all") || std::string(c.name).starts_with("mpirun, two"))
        EXPECT_EQ(placement.ordinals[r], launch.local_rank) << c.name;
    }
  }
}

/// Slurm with device constraints: each task's only GPU is number 0 to it.
TEST(RankPlacement, one_gpu_a_task_that_all_call_0) {
  const auto gpus = host_gpus('a', 2);
  EXPECT_EQ(outcome({{"a", {gpus[0]}, ""}, {"a", {gpus[1]}, ""}}), "a0 a1");
}

TEST(RankPlacement, more_ranks_than_gpus_is_an_error_with_both_numbers) {
  const std::vector<RankView> views(3, {"a", host_gpus('a', 2), ""});
  EXPECT_EQ(outcome(views).substr(0, 37), "error: 3 ranks of host a see 2 GPUs; ");
  PlacementRules rules;
  rules.share_gpus = true;
  EXPECT_EQ(outcome(views, rules), "a0 a1 a0");
  EXPECT_TRUE(place_ranks(views, rules).shared);
  EXPECT_FALSE(place_ranks(std::span(views).first(2), rules).shared);
  // The other host's are no help.
  std::vector<RankView> two_hosts = views;
  two_hosts.push_back({"b", host_gpus('b', 8), ""});
  EXPECT_EQ(outcome(two_hosts).substr(0, 37), "error: 3 ranks of host a see 2 GPUs; ");
}

TEST(RankPlacement, two_ranks_on_one_gpu_is_an_error_that_names_both) {
  const auto gpus = host_gpus('a', 3);
  const std::vector<RankView> views{{"a", {gpus[0], gpus[1]}, ""}, {"a", {gpus[2]}, ""}, {"a", {gpus[0], gpus[2]}, ""}};
  EXPECT_EQ(
      outcome(views).substr(0, 106),
      "error: ranks 0 and 2 of host a would compute on one GPU (NVIDIA H100 GPU-a000 at 0000:10:00.0); give each ");
  PlacementRules rules;
  rules.share_gpus = true;
  EXPECT_EQ(outcome(views, rules), "a0 a2 a0");
  // A container each, with a host name of its own: still one GPU.
  EXPECT_TRUE(outcome({{"a", {gpus[0]}, ""}, {"b", {gpus[0]}, ""}}).starts_with("error: ranks 0 and 1 o"))
      << outcome({{"a", {gpus[0]}, ""}, {"b", {gpus[0]}, ""}});
  // Without UUIDs hosts are told apart.
  GpuIdentity bare = gpus[0];
  bare.uuid.clear();
  EXPECT_EQ(place_ranks(std::vector<RankView>{{"a", {bare}, ""}, {"b", {bare}, ""}}, {}).shared, false);
}

TEST(RankPlacement, two_mig_instances_of_one_gpu_are_no_two_gpus) {
  GpuIdentity first = host_gpus('a', 1)[0], second = first;
  first.uuid = "MIG-1", second.uuid = "MIG-2";
  EXPECT_NE(outcome({{"a", {first}, ""}, {"a", {second}, ""}}).find("two MIG instances of one GPU"), std::string::npos);
  EXPECT_EQ(outcome({{"a", {first}, ""}}), "1");
}

TEST(RankPlacement, all_ranks_compute_on_the_same_kind) {
  const std::vector<RankView> views{{"a", host_gpus('a', 1), ""}, {"b", {}, "no driver"}, {"c", {}, "no driver"}};
  const std::string error =
      "error: 2 of 3 ranks see no usable GPU, the first is rank 1 (host b: no driver), while rank 0 of host a does; "
      "give "
      "each rank one, or let all compute on the cpu with device: cpu";
  EXPECT_EQ(outcome(views), error);
  EXPECT_EQ(outcome(views, {DeviceChoice::cuda}), error);
  EXPECT_EQ(outcome(views, {DeviceChoice::cpu}), "cpu cpu cpu");
  EXPECT_EQ(outcome({views[1], views[2]}), "cpu cpu");
  EXPECT_EQ(outcome({views[1], views[2]}, {DeviceChoice::cuda}),
            "error: there is no usable GPU (no driver); use device: cpu");
}

TEST(RankPlacement, mixed_gpus_are_refused_or_told) {
  const std::vector<RankView> views{
      {"a", host_gpus('a', 2), ""}, {"a", host_gpus('a', 2), ""}, {"b", host_gpus('b', 1, "NVIDIA A100"), ""}};
  EXPECT_EQ(outcome(views).substr(0, 85),
            "error: the GPUs differ: NVIDIA A100 on rank 2 (b); NVIDIA H100 on ranks 0 and 1 (a); ");
  PlacementRules rules;
  rules.mixed_models = true;
  EXPECT_EQ(outcome(views, rules), "a0 a1 b0");
  EXPECT_EQ(
      place_ranks(views, rules).warnings,
      Texts{"the GPUs differ: NVIDIA A100 on rank 2 (b); NVIDIA H100 on ranks 0 and 1 (a); the slowest sets the pace"});
}

// ---- CUDA_VISIBLE_DEVICES -------------------------------------------------------------------------------------------

TEST(NamedGpus, can_be_counted_without_them) {
  EXPECT_EQ(named_gpus("a", std::nullopt).size(), 0u);
  EXPECT_EQ(named_gpus("a", "").size(), 0u);
  EXPECT_EQ(named_gpus("a", "-1").size(), 0u);
  EXPECT_EQ(named_gpus("a", "3,GPU-1,-1,2").size(), 2u);
  EXPECT_EQ(named_gpus("a", "3")[0].uuid, "a/3");
  const RankView view{"a", named_gpus("a", "3,1"), ""};
  EXPECT_EQ(place_ranks(std::vector{view, view}, {}).ordinals, (std::vector<int>{0, 1}));
}

}  // namespace
}  // namespace dtrain::launch
