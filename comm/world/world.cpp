#include "comm/world/world.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "comm/collective/agree.hpp"
#include "comm/collective/fixed_order.hpp"
#include "comm/mpi/mpi_detail.hpp"
#include "comm/place/binding.hpp"
#include "comm/place/launch_env.hpp"
#include "comm/place/network.hpp"
#include "comm/watch/host_board.hpp"
#include "comm/watch/launcher_watch.hpp"
#include "comm/watch/start_watch.hpp"
#include "comm/watch/watchdog.hpp"
#include "comm/world/device_collective.hpp"
#include "comm/world/libraries.hpp"
#include "comm/world/local.hpp"
#include "comm/world/marked.hpp"

namespace dtrain::comm {

namespace {

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

/// "Open MPI v4.1.4"
std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  return std::string(text).substr(0, std::string_view(text).find(','));
}

void flush_all() noexcept {
  (void)std::fflush(nullptr);
}

}  // namespace

struct World::State {
  LaunchEnvironment launch;
  Cores free;
  int rank = 0, size = 1, local_rank = 0, local_size = 1, cpus = 1;
  bool with_mpi = false;
  LocalRank* thread = nullptr;  // of a World of local ranks
  std::atomic<bool> ended = false;
  std::string host = host_name();
  std::vector<std::string> hosts{host};
  std::vector<std::string> notes;
  std::unique_ptr<HostBoard> board;
  std::unique_ptr<Watchdog> watchdog;

  void prepare_process();
  void start_mpi();
  void share_board(MPI_Comm local);
  void link_hosts(Group&);
  bool barrier(double limit_seconds) noexcept;
};

// Before MPI_Init: its threads inherit the mask, and its parameters are read there.
void World::State::prepare_process() {
  Cores allowed = allowed_cores();
  const Cores available = available_cores();
  free = comm::free_cores(launch, allowed, available);
  const BindingPlan plan = plan_binding(launch, allowed, available);
  if (plan.rebind && bind_to(plan.cores)) {
    if (launch.rank == 0) {
      notes.push_back(
          fmt::format("mpirun bound each rank to one core of {}; re-bound to {} cores a rank (--bind-to none, "
                      "or another binding, keeps this from happening)",
                      available.size(), plan.cores.size()));
    }
    allowed = plan.cores;
  }
  cpus = std::max(count_cpus(allowed), 1);
  // With a core for each of compute and communication a waiting rank may spin; otherwise it must let the other run.
  if (plan.yield_when_idle) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  // Between hosts a chunk of the exchange travels at once. Above this limit it waits for a handshake, and the handshake
  // for the communication thread's turn on a core that computes: 38 MiB beside computation took 290 ms instead of 200.
  setenv("OMPI_MCA_btl_tcp_eager_limit", "524288", 0);
  setenv("OMPI_MCA_btl_tcp_max_send_size", "1048576", 0);
}

void World::State::start_mpi() {
  int provided = MPI_THREAD_SINGLE;
  {
    // Of two ranks, since one may be the one that dies.
    const LauncherWatch after(launch.local_rank < 2 ? launcher_of_this_rank() : 0);
    StartWatch::Options options;
    options.limit_seconds = StartWatch::limit_seconds(process_environment());
    const StartWatch watch(launch, host, std::move(options));
    check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  }
  with_mpi = true;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size == 1 && launch.size > 1) {
    throw CommError(
        fmt::format("{} has started {} processes, but MPI sees each of them alone: the launcher belongs to "
                    "another MPI than this program, which was built with {}; use the mpirun of that MPI",
                    name_of(launch.launcher), launch.size, mpi_library()));
  }
  if (provided < MPI_THREAD_MULTIPLE) {
    throw CommError(
        "this MPI library does not support calls from several threads (MPI_THREAD_MULTIPLE); use one that does");
  }
  MPI_Comm local = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &local),
            "MPI_Comm_split_type");
  MPI_Comm_rank(local, &local_rank);
  MPI_Comm_size(local, &local_size);
  share_board(local);
  MPI_Comm_free(&local);
}

// The first rank of the host makes the page, the others take it over; or none does, and each watches itself.
void World::State::share_board(MPI_Comm local) {
  int owner[2] = {static_cast<int>(getpid()), -1};
  int joined = 1;
  const auto attempt = [&](auto make) {
    try {
      board = make();
      board->join(local_rank, rank, host);
    } catch (const CommError&) {
      joined = 0;
    }
  };
  if (local_rank == 0) {
    attempt([&] { return std::make_unique<HostBoard>(local_size); });
    if (joined != 0) owner[1] = board->descriptor();
  }
  check_mpi(MPI_Bcast(owner, 2, MPI_INT, 0, local), "MPI_Bcast");
  if (local_rank != 0) attempt([&] { return std::make_unique<HostBoard>(owner[0], owner[1], local_size); });
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &joined, 1, MPI_INT, MPI_MIN, local), "MPI_Allreduce");
  if (joined == 0) board = make_lone_board(rank, host);
  board->close_descriptor();
}

bool World::State::barrier(double limit_seconds) noexcept {
  using Clock = std::chrono::steady_clock;
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS) return false;
  const auto end = Clock::now() + std::chrono::duration<double>(limit_seconds);
  for (int done = 0;;) {
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (done != 0) return true;
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

World::World(const std::string& command) : state_(std::make_unique<State>()) {
  state_->launch = discover_launch(process_environment());
  state_->prepare_process();
  if (state_->launch.launcher != Launcher::none) {
    state_->start_mpi();
  } else {
    if (const int tasks = state_->launch.job_tasks; tasks > 1)
      state_->notes.push_back(
          fmt::format("this Slurm job has {} tasks, but nothing has started more than one process of "
                      "dtrain; start it with `srun --mpi=pmix` or `mpirun` for {} ranks",
                      tasks, tasks));
    state_->board = make_lone_board(0, state_->host);
  }
  Watchdog::Options watching;
  watching.ranks = state_->size;
  state_->watchdog = std::make_unique<Watchdog>(*state_->board, std::move(watching));
  if (!state_->with_mpi) return;
  const auto group = make_group();
  // Other commands have other exchanges: their ranks would wait for each other for ever.
  const Fact same[] = {{"the command", command}};
  agree_on(*group, state_->host, same);
  state_->hosts = group->all_gather(state_->host);
  state_->link_hosts(*group);
}

/// Rank 0's watchdog hears of the ranks of other hosts by a way of its own. Where that cannot be, it does not.
void World::State::link_hosts(Group& group) {
  std::vector<std::string> others;
  for (const auto& h : hosts)
    if (h != hosts[0] && std::find(others.begin(), others.end(), h) == others.end()) others.push_back(h);
  if (others.empty()) return;
  const auto mine =
      allowed_addresses(own_addresses(), mpi_setting("btl_tcp_if_include"), mpi_setting("btl_tcp_if_exclude"));
  const auto texts = group.all_gather(addresses_text(mine));
  std::string address;
  if (rank == 0) {
    std::vector<std::vector<NetworkAddress>> of_others;
    for (std::size_t r = 0; r < texts.size(); ++r)
      if (hosts[r] != hosts[0]) of_others.push_back(addresses_of(texts[r]));
    try {
      address = watchdog->listen(others, meeting_addresses(mine, of_others));
    } catch (const CommError& e) {
      notes.push_back(fmt::format("{}; a rank of another host that hangs will not be named here", e.what()));
    }
  }
  address = group.broadcast(address);
  const bool leads = std::find(hosts.begin(), hosts.end(), host) == hosts.begin() + rank;
  if (!address.empty() && host != hosts[0] && leads) watchdog->connect(address);
}

World::World(LocalRank& local) : state_(std::make_unique<State>()) {
  state_->thread = &local;
  state_->rank = state_->local_rank = local.rank();
  state_->size = state_->local_size = local.size();
  state_->hosts.assign(static_cast<std::size_t>(local.size()), state_->host);
  state_->board = make_lone_board(local.rank(), state_->host);
  Watchdog::Options watching;
  watching.ranks = state_->size;
  state_->watchdog = std::make_unique<Watchdog>(*state_->board, std::move(watching));
}

World::~World() {
  if (state_ && !state_->ended) finish(ExitCode::ok);
}

int World::rank() const noexcept {
  return state_->rank;
}
int World::host_count() const {
  return static_cast<int>(std::set(state_->hosts.begin(), state_->hosts.end()).size());
}
int World::size() const noexcept {
  return state_->size;
}
int World::local_rank() const noexcept {
  return state_->local_rank;
}
int World::local_size() const noexcept {
  return state_->local_size;
}
const std::string& World::host() const noexcept {
  return state_->host;
}
const std::vector<std::string>& World::hosts() const noexcept {
  return state_->hosts;
}
int World::cpus() const noexcept {
  return state_->cpus;
}
const LaunchEnvironment& World::launch() const noexcept {
  return state_->launch;
}
const Cores& World::free_cores() const noexcept {
  return state_->free;
}
bool World::use_cores(const Cores& cores) {
  if (!bind_all_threads_to(cores)) return false;
  state_->cpus = std::max(count_cpus(cores), 1);
  return true;
}
const std::vector<std::string>& World::notes() const noexcept {
  return state_->notes;
}

Watchdog& World::watchdog() noexcept {
  return *state_->watchdog;
}

std::unique_ptr<Group> World::make_group() {
  if (state_->thread) return state_->thread->make_group();
  if (!state_->with_mpi) return std::make_unique<SoloGroup>();
  const Exchange duplicating(*state_->board);
  return make_marked(make_mpi_group(MPI_COMM_WORLD), *state_->board);
}

namespace {
// Measured on two hosts at 1 Gbit/s: MPI_Allreduce 64 MB/s, spinning all the time; the exchange of the fixed order 113
// MB/s in chunks of 256 KiB (104 in chunks of 512 KiB) for a fifth of the processor time. With two ranks a host the
// exchange sends more through the link than MPI's ring and loses; its messages grow with the square of the hosts.
constexpr std::size_t network_chunk_bytes = 256 << 10;
constexpr int most_exchanging_hosts = 16;
}  // namespace

std::unique_ptr<Communicator> World::make_plain_communicator() {
  if (size() == 1) return make_solo_communicator();
  const Exchange duplicating(*state_->board);
  return make_mpi_communicator(MPI_COMM_WORLD);
}

std::unique_ptr<Communicator> World::make_communicator(Algorithm algorithm) {
  if (size() == 1) return make_solo_communicator();
  if (state_->thread) return state_->thread->make_communicator(algorithm);
  const Exchange duplicating(*state_->board);
  auto communicator = make_mpi_communicator(MPI_COMM_WORLD);
  // Of what all ranks know alike, since all must choose alike.
  const bool network = host_count() > 1, one_rank_a_host = host_count() == size();
  const bool exchange = network && one_rank_a_host && size() <= most_exchanging_hosts;
  if (algorithm == Algorithm::fixed_order || exchange) {
    communicator = make_fixed_order(std::move(communicator), {.chunk_bytes = network ? network_chunk_bytes : 0,
                                                              .others_below = algorithm == Algorithm::automatic});
  }
  return make_marked(std::move(communicator), *state_->board);
}

std::unique_ptr<Collective> World::make_collective(Algorithm algorithm) {
  return make_host_collective(make_communicator(algorithm));
}

std::unique_ptr<Collective> World::make_collective(Device& device, const CommConfig& config) {
  const Exchange starting(*state_->board);
  CollectiveMaker make{.size = size(), .host = host()};
  make.group = [this] { return make_group(); };
  make.communicator = [this](Algorithm algorithm) { return make_communicator(algorithm); };
  // A thread of a test must not end the process of all.
  if (state_->thread == nullptr)
    make.last_resort = [this](const std::string& text) {
      (void)std::fputs(fmt::format("error: rank {} ({}): {}\n", rank(), host(), text).c_str(), stderr);
      abort(ExitCode::communication);
    };
  std::string note;
  auto collective = make_device_collective(make, device, config, note);
  auto& notes = state_->notes;
  if (rank() == 0 && !note.empty() && std::find(notes.begin(), notes.end(), note) == notes.end()) notes.push_back(note);
  return collective;
}

int World::finish(ExitCode code, double limit_seconds) noexcept {
  const int result = static_cast<int>(code);
  flush_all();
  state_->ended = true;
  // From here on this rank is not missed by the others.
  state_->board->end(RankState::leaving, result);
  if (!state_->with_mpi) return result;
  // MPI_Finalize waits for everybody: without the others it would hang, so leave without it.
  if (!state_->barrier(limit_seconds)) {
    std::_Exit(result != 0 ? result : static_cast<int>(ExitCode::communication));
  }
  MPI_Finalize();
  return result;
}

bool World::speaks_for_host() noexcept {
  return state_->board->claim();
}

void World::abort(ExitCode code) noexcept {
  const int result = static_cast<int>(code);
  flush_all();
  if (state_->ended.exchange(true)) std::_Exit(result);  // MPI may have ended
  state_->board->end(RankState::failed, result);
  if (!state_->with_mpi || size() == 1) std::_Exit(result);
  // MPI_Abort reaches the ranks of every launcher, but may itself wait for what is broken.
  try {
    std::thread([result] {
      std::this_thread::sleep_for(std::chrono::seconds(2));
      std::_Exit(result);
    }).detach();
  } catch (...) {
    std::_Exit(result);
  }
  MPI_Abort(MPI_COMM_WORLD, result);
  std::_Exit(result);
}

}  // namespace dtrain::comm
