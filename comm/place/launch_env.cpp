#include "comm/place/launch_env.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "comm/place/binding.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

std::optional<long long> number(const Environment& env, const char* name) {
  const char* text = env(name);
  if (text == nullptr) return std::nullopt;
  long long value = 0;
  const char* end = text + std::strlen(text);
  const auto [at, error] = std::from_chars(text, end, value);
  if (error != std::errc{} || at != end) return std::nullopt;
  return value;
}

int number_or(const Environment& env, const char* name, int otherwise) {
  return static_cast<int>(number(env, name).value_or(otherwise));
}

/// Of "2(x3),1", as Slurm writes the tasks of its nodes, those of this node; 1 where it does not say.
int slurm_local_size(const Environment& env) {
  const char* at = env("SLURM_STEP_TASKS_PER_NODE");
  int node = number_or(env, "SLURM_NODEID", -1);
  if (at == nullptr || node < 0) return 1;
  const char* const end = at + std::strlen(at);
  while (at != end) {
    int tasks = 0, nodes = 1;
    auto parsed = std::from_chars(at, end, tasks);
    if (parsed.ec != std::errc{} || tasks < 1) return 1;
    at = parsed.ptr;
    if (end - at > 2 && at[0] == '(' && at[1] == 'x') {
      parsed = std::from_chars(at + 2, end, nodes);
      if (parsed.ec != std::errc{} || parsed.ptr == end) return 1;
      at = parsed.ptr + 1;  // behind ")"
    }
    if (node < nodes) return tasks;
    node -= nodes;
    if (at != end && *at++ != ',') return 1;
  }
  return 1;
}

struct ForeignLauncher {
  const char *name, *mark, *size;
};
constexpr ForeignLauncher foreign_launchers[] = {{"torchrun", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"},
                                                 {"MVAPICH2's mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"},
                                                 {"flux run", "FLUX_TASK_RANK", "FLUX_JOB_SIZE"}};

}  // namespace

Environment process_environment() {
  return [](const char* name) -> const char* { return std::getenv(name); };
}

LaunchEnvironment discover_launch(const Environment& env) {
  LaunchEnvironment out;
  // mpirun first: inside an sbatch script SLURM_PROCID is the daemon's, and mpirun sets PMIX_RANK as well.
  if (number(env, "OMPI_COMM_WORLD_RANK")) {
    out.launcher = Launcher::mpirun;
    out.rank = number_or(env, "OMPI_COMM_WORLD_RANK", 0);
    out.size = number_or(env, "OMPI_COMM_WORLD_SIZE", 1);
    out.local_rank = number_or(env, "OMPI_COMM_WORLD_LOCAL_RANK", 0);
    out.local_size = number_or(env, "OMPI_COMM_WORLD_LOCAL_SIZE", 1);
    out.binding_chosen = env("OMPI_MCA_hwloc_base_binding_policy") != nullptr ||
                         env("OMPI_MCA_hwloc_base_cpu_list") != nullptr ||
                         env("OMPI_MCA_hwloc_base_cpu_set") != nullptr;
    return out;
  }
  // The batch script itself has SLURM_* but no step, or one of the reserved numbers from 0xfffffff0.
  const auto step = number(env, "SLURM_STEP_ID");
  const bool in_step = step && *step >= 0 && *step < 0xfffffff0LL;
  const int slurm_size = number_or(env, "SLURM_STEP_NUM_TASKS", number_or(env, "SLURM_NTASKS", 1));
  if (number(env, "PMIX_RANK")) {
    out.launcher = Launcher::srun;
    out.rank = number_or(env, "PMIX_RANK", 0);
    out.size = slurm_size;
    out.local_rank = number_or(env, "SLURM_LOCALID", 0);
    out.local_size = slurm_local_size(env);
    out.binding_chosen = true;  // Slurm's binding is the site's decision
    return out;
  }
  if (number(env, "PMI_RANK") && !in_step) {
    out.launcher = Launcher::mpiexec;
    out.rank = number_or(env, "PMI_RANK", 0);
    out.size = number_or(env, "PMI_SIZE", 1);
    out.local_rank = number_or(env, "MPI_LOCALRANKID", 0);
    out.local_size = number_or(env, "MPI_LOCALNRANKS", 1);
    out.binding_chosen = true;
    return out;
  }
  if (in_step && number(env, "SLURM_PROCID") && slurm_size > 1) {
    throw CommError(
        fmt::format("MPI cannot start {} ranks under plain srun; use `srun --mpi=pmix` or `mpirun`", slurm_size));
  }
  for (const ForeignLauncher& foreign : foreign_launchers)
    if (const int size = number_or(env, foreign.size, 1); size > 1 && env(foreign.mark) != nullptr)
      throw CommError(fmt::format("{} has started {} processes of dtrain, but cannot start MPI; use `mpirun -np {}`",
                                  foreign.name, size, size));
  if (!in_step && env("SLURM_JOB_ID") != nullptr) out.job_tasks = number_or(env, "SLURM_NTASKS", 1);
  return out;
}

SlurmJob slurm_job(const Environment& env) {
  const auto id = number(env, "SLURM_JOB_ID");
  if (!id) return {};
  return {fmt::format("{}", *id), number(env, "SLURM_RESTART_COUNT").value_or(0) > 0};
}

Cores part_of_cores(const Cores& cores, int rank, int size) {
  const std::size_t n = cores.size(), r = static_cast<std::size_t>(rank), s = static_cast<std::size_t>(size);
  if (n == 0 || s == 0) return cores;
  if (n < s) return {cores[r % n]};
  const auto at = [&](std::size_t i) { return cores.begin() + static_cast<std::ptrdiff_t>(n * i / s); };
  return Cores(at(r), at(r + 1));
}

BindingPlan plan_binding(const LaunchEnvironment& launch, const Cores& allowed, const Cores& available) {
  BindingPlan plan;
  const int local_size = std::max(launch.local_size, 1);
  const Cores part = part_of_cores(available, launch.local_rank % local_size, local_size);
  if (launch.launcher == Launcher::mpirun && !launch.binding_chosen && allowed.size() == 1 && part.size() > 1) {
    plan.rebind = true;
    plan.cores = part;
  }
  // Unbound ranks all see every cpu, so what one may count on is the smaller of the two.
  const int mine = count_cpus(plan.rebind ? part : allowed), fair = count_cpus(available) / local_size;
  plan.yield_when_idle = std::min(mine, std::max(fair, 1)) < 2;
  return plan;
}

std::string cpu_list(const Cores& cores) {
  std::vector<int> cpus;
  for (const auto& core : cores) cpus.insert(cpus.end(), core.begin(), core.end());
  std::sort(cpus.begin(), cpus.end());
  std::string out;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t last = i;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    out += fmt::format("{}{}", out.empty() ? "" : ",", cpus[i]);
    if (last > i) out += fmt::format("-{}", cpus[last]);
    i = last + 1;
  }
  return out;
}

Cores free_cores(const LaunchEnvironment& launch, const Cores& allowed, const Cores& available) {
  if (launch.launcher == Launcher::mpirun && !launch.binding_chosen) return available;
  return allowed == available ? allowed : Cores{};
}

std::vector<Cores> spread_near_gpus(const std::vector<CoresNearGpu>& ranks) {
  std::vector<Cores> near(ranks.size());
  std::map<std::pair<std::string, Cores>, std::vector<std::size_t>> sharing;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    for (const auto& core : ranks[r].free) {
      const bool is_near = std::any_of(core.begin(), core.end(), [&](int cpu) {
        return std::binary_search(ranks[r].near.begin(), ranks[r].near.end(), cpu);
      });
      if (is_near) near[r].push_back(core);
    }
    if (!near[r].empty()) sharing[{ranks[r].host, near[r]}].push_back(r);
  }
  std::vector<Cores> out(ranks.size());
  for (const auto& [where, members] : sharing)
    for (std::size_t i = 0; i < members.size(); ++i)
      out[members[i]] = part_of_cores(where.second, static_cast<int>(i), static_cast<int>(members.size()));
  return out;
}

}  // namespace dtrain::comm
