// How this process was launched, read from the environment before MPI starts, and the cpus it may use.
// Pure functions over a view of the environment; World applies the result on the main thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace dtrain::comm {

enum class Launcher : unsigned char {
  none,     // a plain process: no MPI at all
  mpirun,   // Open MPI's mpirun, also inside an sbatch script: OMPI_* are to be trusted, SLURM_* are not
  srun,     // srun --mpi=pmix
  mpiexec,  // another MPI's launcher (PMI_RANK)
};

struct LaunchEnvironment {
  Launcher launcher = Launcher::none;
  int rank = 0, size = 1;  // size and local_size are 1 where the launcher does not say
  int local_rank = 0, local_size = 1;
  bool binding_chosen = false;  // the user asked mpirun for a binding
  int job_tasks = 1;            // of a Slurm job, where nothing has started more than this process
};

/// A variable's value or null.
using Environment = std::function<const char*(const char* name)>;
/// getenv.
Environment process_environment();

/// Throws CommError where several processes were started by what cannot start MPI: under plain srun, where MPI_Init
/// would abort, and under launchers of other systems.
LaunchEnvironment discover_launch(const Environment&);

/// The job of Slurm that this process is in.
struct SlurmJob {
  std::string id;          // empty: in none
  bool restarted = false;  // Slurm has started it before
};
SlurmJob slurm_job(const Environment&);

/// Logical cpus grouped by core, in order of package and core.
using Cores = std::vector<std::vector<int>>;

/// The equal part of local rank `rank` of `size`: contiguous cores; ranks share cores where there are fewer.
Cores part_of_cores(const Cores&, int rank, int size);

struct BindingPlan {
  bool rebind = false;
  Cores cores;                   // to bind to, where rebind
  bool yield_when_idle = false;  // less than two cpus a rank: waiting must not spin
};

/// `allowed`: the cores this process is bound to now; `available`: all cores it could use.
BindingPlan plan_binding(const LaunchEnvironment&, const Cores& allowed, const Cores& available);

// ---- near a GPU

/// "0-3,64-67", as the kernel and Slurm write it.
std::string cpu_list(const Cores&);

/// The cores from which a rank may choose: those it is bound to, or all where the binding is mpirun's default. Empty
/// where the user or the site has chosen, whose binding stays.
Cores free_cores(const LaunchEnvironment&, const Cores& allowed, const Cores& available);

/// Where one rank of a run could compute.
struct CoresNearGpu {
  std::string host;
  Cores free;             // free_cores(), by core
  std::vector<int> near;  // cpus near its GPU, ascending; empty where not known
};
/// By rank: the cores to be bound to; none where a rank stays as it is. Ranks of a host whose GPUs are near the same
/// cores share them equally.
std::vector<Cores> spread_near_gpus(const std::vector<CoresNearGpu>& ranks);

}  // namespace dtrain::comm
