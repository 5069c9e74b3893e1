#include "comm/place/launch_env.hpp"

#include <algorithm>
#include <future>
#include <map>
#include <string>
#include <thread>

#include <gtest/gtest.h>

#include "comm/place/binding.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {
namespace {

using Variables = std::map<std::string, std::string>;

Environment environment_of(const Variables& variables) {
  return [&variables](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

LaunchEnvironment discover(const Variables& variables) {
  return discover_launch(environment_of(variables));
}

TEST(LaunchEnvironment, a_plain_process_has_no_launcher) {
  EXPECT_EQ(discover({}).launcher, Launcher::none);
  // A shell inside salloc, and the batch script itself.
  EXPECT_EQ(discover({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}).launcher, Launcher::none);
  EXPECT_EQ(discover({{"SLURM_STEP_ID", "4294967290"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}).launcher,
            Launcher::none);
}

TEST(LaunchEnvironment, mpirun) {
  const auto e = discover({{"OMPI_COMM_WORLD_RANK", "3"},
                           {"OMPI_COMM_WORLD_SIZE", "8"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                           {"PMIX_RANK", "3"}});
  EXPECT_EQ(e.launcher, Launcher::mpirun);
  EXPECT_EQ(e.rank, 3);
  EXPECT_EQ(e.size, 8);
  EXPECT_EQ(e.local_rank, 1);
  EXPECT_EQ(e.local_size, 2);
  EXPECT_FALSE(e.binding_chosen);
}

TEST(LaunchEnvironment, mpirun_inside_sbatch_ignores_slurm) {
  const auto e = discover({{"OMPI_COMM_WORLD_RANK", "5"},
                           {"OMPI_COMM_WORLD_SIZE", "8"},
                           {"SLURM_PROCID", "1"},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_NTASKS", "2"}});
  EXPECT_EQ(e.launcher, Launcher::mpirun);
  EXPECT_EQ(e.rank, 5);
  EXPECT_EQ(e.size, 8);
}

TEST(LaunchEnvironment, srun_with_pmix) {
  const auto e = discover({{"PMIX_RANK", "2"},
                           {"SLURM_PROCID", "2"},
                           {"SLURM_LOCALID", "1"},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_STEP_NUM_TASKS", "4"},
                           {"SLURM_NTASKS", "9"}});
  EXPECT_EQ(e.launcher, Launcher::srun);
  EXPECT_EQ(e.rank, 2);
  EXPECT_EQ(e.size, 4);
  EXPECT_EQ(e.local_rank, 1);
}

TEST(LaunchEnvironment, srun_says_how_many_tasks_a_node_has) {
  const auto local_size = [](const char* tasks, const char* node) {
    return discover({{"PMIX_RANK", "0"}, {"SLURM_STEP_TASKS_PER_NODE", tasks}, {"SLURM_NODEID", node}}).local_size;
  };
  EXPECT_EQ(local_size("8", "0"), 8);
  EXPECT_EQ(local_size("2(x3),1", "0"), 2);
  EXPECT_EQ(local_size("2(x3),1", "2"), 2);
  EXPECT_EQ(local_size("2(x3),1", "3"), 1);
  EXPECT_EQ(local_size("3,12(x2)", "2"), 12);
  for (const char* nonsense : {"", "x", "0", "2(x", "2(x3", "2;3", "2("})
    EXPECT_EQ(local_size(nonsense, "1"), 1) << nonsense;
  EXPECT_EQ(local_size("2", "7"), 1);
}

TEST(LaunchEnvironment, plain_srun_says_what_to_use) {
  Variables plain{{"SLURM_PROCID", "0"}, {"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "2"}};
  try {
    discover(plain);
    FAIL() << "nothing was thrown";
  } catch (const CommError& e) {
    EXPECT_STREQ(e.what(), "MPI cannot start 2 ranks under plain srun; use `srun --mpi=pmix` or `mpirun`");
  }
  plain["SLURM_NTASKS"] = "1";
  EXPECT_EQ(discover(plain).launcher, Launcher::none);
}

TEST(LaunchEnvironment, launchers_that_cannot_start_mpi_are_named) {
  const std::pair<const char*, Variables> launchers[] = {
      {"torchrun", {{"TORCHELASTIC_RUN_ID", "none"}, {"RANK", "0"}, {"WORLD_SIZE", "2"}}},
      {"MVAPICH2's mpirun", {{"MV2_COMM_WORLD_RANK", "0"}, {"MV2_COMM_WORLD_SIZE", "2"}}},
      {"flux run", {{"FLUX_TASK_RANK", "0"}, {"FLUX_JOB_SIZE", "2"}}}};
  for (const auto& [name, variables] : launchers) {
    try {
      discover(variables);
      ADD_FAILURE() << "nothing was thrown for " << name;
    } catch (const CommError& e) {
      EXPECT_EQ(std::string(e.what()), std::string(name) +
                                           " has started 2 processes of dtrain, but cannot start MPI; use "
                                           "`mpirun -np 2`");
    }
  }
  EXPECT_EQ(discover({{"WORLD_SIZE", "2"}}).launcher, Launcher::none);  // of whatever
}

TEST(LaunchEnvironment, a_batch_job_of_several_tasks_without_a_launcher_is_known) {
  Variables job{{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}};
  EXPECT_EQ(discover(job).launcher, Launcher::none);
  EXPECT_EQ(discover(job).job_tasks, 4);
  job["OMPI_COMM_WORLD_RANK"] = "0";
  EXPECT_EQ(discover(job).job_tasks, 1);
  EXPECT_EQ(discover({{"SLURM_JOB_ID", "7"}}).job_tasks, 1);
}

TEST(LaunchEnvironment, the_job_of_slurm_and_whether_it_was_started_before) {
  const auto job = [](const Variables& variables) { return slurm_job(environment_of(variables)); };
  EXPECT_EQ(job({}).id, "");
  EXPECT_EQ(job({{"SLURM_JOB_ID", "x"}, {"SLURM_RESTART_COUNT", "1"}}).id, "");
  EXPECT_EQ(job({{"SLURM_JOB_ID", "4100"}}).id, "4100");
  for (const char* count : {"", "0", "x"})
    EXPECT_FALSE(job({{"SLURM_JOB_ID", "4100"}, {"SLURM_RESTART_COUNT", count}}).restarted) << count;
  EXPECT_TRUE(job({{"SLURM_JOB_ID", "4100"}, {"SLURM_RESTART_COUNT", "2"}}).restarted);
}

TEST(LaunchEnvironment, a_variable_that_is_no_number_counts_for_nothing) {
  EXPECT_EQ(discover({{"OMPI_COMM_WORLD_RANK", "x"}}).launcher, Launcher::none);
  EXPECT_EQ(discover({{"OMPI_COMM_WORLD_RANK", ""}}).launcher, Launcher::none);
}

// ---- binding -------------------------------------------------------------------------------------------------------

Cores cores(int count, int threads_each) {
  Cores out(static_cast<std::size_t>(count));
  for (int t = 0; t < threads_each; ++t) {
    for (int c = 0; c < count; ++c) out[static_cast<std::size_t>(c)].push_back(t * count + c);
  }
  return out;
}

LaunchEnvironment under_mpirun(int local_rank, int local_size) {
  LaunchEnvironment e;
  e.launcher = Launcher::mpirun;
  e.local_rank = local_rank;
  e.local_size = local_size;
  return e;
}

TEST(Binding, shares_cover_all_cores_once) {
  for (int ranks = 1; ranks <= 9; ++ranks) {
    Cores joined;
    for (int r = 0; r < ranks; ++r) {
      const Cores part = part_of_cores(cores(9, 2), r, ranks);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(joined, cores(9, 2)) << ranks;
  }
}

TEST(Binding, one_core_of_many_is_widened_to_an_equal_share) {
  const Cores all = cores(8, 2);
  const BindingPlan plan = plan_binding(under_mpirun(1, 2), {all[1]}, all);
  EXPECT_TRUE(plan.rebind);
  EXPECT_EQ(plan.cores, Cores(all.begin() + 4, all.end()));
  EXPECT_FALSE(plan.yield_when_idle);
}

TEST(Binding, what_the_user_or_the_site_chose_stays) {
  const Cores all = cores(8, 2);
  LaunchEnvironment chosen = under_mpirun(1, 2);
  chosen.binding_chosen = true;
  EXPECT_FALSE(plan_binding(chosen, {all[1]}, all).rebind);
  EXPECT_FALSE(plan_binding(under_mpirun(1, 2), Cores(all.begin(), all.begin() + 2), all).rebind);
}

TEST(Binding, waiting_yields_where_threads_exceed_cpus) {
  const Cores two = cores(2, 1);
  EXPECT_FALSE(plan_binding(under_mpirun(0, 2), {two[0]}, two).rebind);
  EXPECT_TRUE(plan_binding(under_mpirun(0, 2), {two[0]}, two).yield_when_idle);
  EXPECT_TRUE(plan_binding(under_mpirun(0, 4), two, two).yield_when_idle);
  EXPECT_FALSE(plan_binding(under_mpirun(0, 1), two, two).yield_when_idle);
}

// ---- near a GPU ----------------------------------------------------------------------------------------------------

std::vector<int> cpus_of(const Cores& part) {
  std::vector<int> out;
  for (const auto& core : part) out.insert(out.end(), core.begin(), core.end());
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Binding, cpus_are_written_as_the_kernel_writes_them) {
  EXPECT_EQ(cpu_list({}), "");
  EXPECT_EQ(cpu_list({{5}}), "5");
  EXPECT_EQ(cpu_list({{0, 8}, {1, 9}, {3, 11}}), "0-1,3,8-9,11");
}

TEST(Binding, near_gpus_only_where_nobody_has_chosen) {
  const Cores all = cores(8, 2), one{all[1]}, four(all.begin(), all.begin() + 4);
  LaunchEnvironment chosen = under_mpirun(1, 2), slurm, alone;
  chosen.binding_chosen = true;
  slurm.launcher = Launcher::srun;
  slurm.binding_chosen = true;
  EXPECT_EQ(free_cores(under_mpirun(1, 2), one, all), all);   // mpirun's default of one core
  EXPECT_EQ(free_cores(under_mpirun(1, 4), four, all), all);  // and of a package
  EXPECT_EQ(free_cores(chosen, four, all), Cores{});
  EXPECT_EQ(free_cores(chosen, all, all), all);  // --bind-to none
  EXPECT_EQ(free_cores(slurm, four, all), Cores{});
  EXPECT_EQ(free_cores(slurm, four, four), four);    // a cpuset without a binding in it
  EXPECT_EQ(free_cores(alone, four, all), Cores{});  // taskset
  EXPECT_EQ(free_cores(alone, all, all), all);
}

TEST(Binding, ranks_spread_over_the_cores_near_their_gpus) {
  // Two nodes of four cores with two threads; three GPUs near the first, one near the second; another host.
  const Cores all = cores(8, 2);
  const std::vector<int> first = cpus_of({all.begin(), all.begin() + 4}),
                         second = cpus_of({all.begin() + 4, all.end()});
  const auto out = spread_near_gpus({{"a", all, first}, {"a", all, second}, {"a", all, first}, {"b", all, first}});
  EXPECT_EQ(out[0], Cores(all.begin(), all.begin() + 2));
  EXPECT_EQ(out[2], Cores(all.begin() + 2, all.begin() + 4));
  EXPECT_EQ(out[1], Cores(all.begin() + 4, all.end()));
  EXPECT_EQ(out[3], Cores(all.begin(), all.begin() + 4));
}

TEST(Binding, stays_where_nothing_near_is_free_or_known) {
  const Cores all = cores(8, 1);
  const auto out = spread_near_gpus(
      {{"a", all, {}}, {"a", {}, {0, 1}}, {"a", {all[6], all[7]}, {0, 1}}, {"a", {all[0], all[7]}, {0, 1}}});
  EXPECT_TRUE(out[0].empty());
  EXPECT_TRUE(out[1].empty());
  EXPECT_TRUE(out[2].empty());
  EXPECT_EQ(out[3], Cores{all[0]});
}

TEST(Binding, reaches_threads_that_run_already) {
  const Cores before = allowed_cores();
  if (before.size() < 2) GTEST_SKIP() << "one core is all there is";
  std::promise<void> bound;
  Cores seen;
  std::thread other([&, go = bound.get_future()] {
    go.wait();
    seen = allowed_cores();
  });
  const Cores one{before[1]};
  const bool done = bind_all_threads_to(one);
  bound.set_value();
  other.join();
  const Cores mine = allowed_cores();
  bind_all_threads_to(before);
  EXPECT_TRUE(done);
  EXPECT_EQ(mine, one);
  EXPECT_EQ(seen, one);
  EXPECT_EQ(allowed_cores(), before);
}

}  // namespace
}  // namespace dtrain::comm
