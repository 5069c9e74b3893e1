#include "comm/watch/watchdog.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "comm/watch/blame.hpp"
#include "comm/watch/process.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

double seconds(Clock::duration d) {
  return std::chrono::duration<double>(d).count();
}
double seconds(Time t) {
  return seconds(t.time_since_epoch());
}

// A launcher that ends the run kills all ranks of a host within milliseconds: whoever lives longer has seen a death of
// its own. mpirun itself kills the rest a second after a rank died.
constexpr double settle = 0.2;
// The next rank in line speaks where the first one does not.
constexpr double next_in_line = 0.5;
// A pause of this thread: the whole job was stopped, and goes on.
constexpr double own_stop = 2;
// Without progress, and without the other host: its own ranks and the launcher had their time to end the run.
constexpr double without_host = 5, told_after = 3;
// After a rank has failed with a message of its own: the launcher's time to end the others.
constexpr double after_failure = 5;

void print(const std::string& line) {
  // One write, past stdio, whose lock a stuck thread may hold: other threads and ranks may print at the same time.
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t n = write(STDERR_FILENO, line.data() + at, line.size() - at);
    if (n < 0 && errno != EINTR) return;
    at += static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  }
}

void print_error(const std::string& message) {
  print(fmt::format("error: {}\n", message));
}

void print_warning(const std::string& message) {
  print(fmt::format("warning: {}\n", message));
}

constexpr int lost = static_cast<int>(ExitCode::communication);

}  // namespace

struct Watchdog::State {
  /// What is known of a rank besides what it says.
  struct Watched {
    RankSight sight;
    Time changed;         // when it was last seen to have made progress
    bool visible = true;  // its pid means something here
  };

  HostBoard& board;
  Options options;
  bool leaves = false;                                               // the default: this process ends
  std::array<std::atomic<double>, deadline_settings.size()> limits;  // seconds, by Deadline
  std::atomic<bool> ended{false};
  int wake = -1;
  std::thread thread;
  std::mutex mutex;  // of what the thread is given; held by it for as long as it uses that
  DeviceWatch* device = nullptr;
  std::optional<LeaderServer> server;
  std::optional<LeaderClient> client;

  // Of the thread alone.
  std::vector<Watched> ranks;
  std::vector<RankSight> sights;  // of this host's ranks
  std::vector<RankSight> all;     // and behind them, on rank 0, of those of other hosts
  struct LostHost {
    std::string name, why;
    LinkState link = LinkState::ended;
    double lost = 0;
    std::vector<RankSight> ranks;
  };
  std::vector<LostHost> lost_hosts;  // now; on other hosts' first ranks: rank 0's
  std::set<std::string> told_lost;
  bool linked = false;         // rank 0 hears of this host
  std::vector<pollfd> events;  // of the ranks, and `wake`
  bool first_host = false;     // rank 0 is here
  bool told = false;
  Time trouble{};  // since when a death or an expired deadline is seen; 0: not
  double next_warning = 0;

  State(HostBoard& b, Options o) : board(b), options(std::move(o)) {
    for (auto& limit : limits) limit = options.timeout_seconds;
    leaves = !options.on_error;
    if (!options.on_error) options.on_error = print_error;
    if (!options.on_warning) options.on_warning = print_warning;
    wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake < 0) throw CommError(fmt::format("cannot watch over the ranks: eventfd: {}", std::strerror(errno)));
    ranks.resize(static_cast<std::size_t>(board.slots()));
    sights.resize(ranks.size());
    for (int slot = 0; slot < board.slots(); ++slot) {
      Watched& w = ranks[static_cast<std::size_t>(slot)];
      w.sight.note = board.read(slot);
      w.changed = Clock::now();
      const RankNote& n = w.sight.note;
      w.sight.host = board.host();
      first_host = first_host || (n.rank == 0 && n.state != RankState::absent);
      w.visible = slot != board.slot() && n.pid != 0 && n.pid_space == own_pid_space();
      events.push_back({w.visible ? open_process(n.pid) : -1, POLLIN, 0});
    }
    events.push_back({wake, POLLIN, 0});
  }

  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    for (const pollfd& e : events) {
      if (e.fd >= 0) close(e.fd);
    }
  }

  /// Of what this rank does; 0 or less: none.
  double limit_of(const RankSight& s) const { return limits[static_cast<std::size_t>(s.note.deadline)].load(); }

  bool late(const RankSight& s) const {
    const double limit = limit_of(s);
    return limit > 0 && s.idle >= limit;
  }

  double tick() const {
    if (trouble != Time{}) return 0.02;
    double wait = 0.25;
    for (const auto& limit : limits) {
      if (limit.load() > 0) wait = std::min(wait, std::max(limit.load() / 10, 0.01));
    }
    return wait;
  }

  void wake_up() const noexcept {
    const std::uint64_t one = 1;
    if (write(wake, &one, sizeof one) < 0) return;  // it wakes by itself, later
  }

  void watch() {
    Time before = Clock::now();
    while (!ended.load()) {
      const double wait = tick();
      poll(events.data(), events.size(), static_cast<int>(1000 * wait));
      const Time now = Clock::now();
      if (ended.load()) return;
      if (events.back().revents != 0) {
        std::uint64_t count = 0;
        if (read(wake, &count, sizeof count) < 0 && errno != EAGAIN) return;
      }
      const bool stopped_myself = seconds(now - before) > wait + own_stop;
      before = now;
      follow_device();
      look(now, stopped_myself);
      look_at_hosts(now, stopped_myself);
      if (!told) judge(now);
    }
  }

  void follow_device() {
    const std::lock_guard lock(mutex);
    if (device != nullptr) board.note(device->look());
  }

  /// What links say, and what they are told. Nothing is allocated where all is well.
  void look_at_hosts(Time now, bool stopped_myself) {
    const std::lock_guard lock(mutex);
    lost_hosts.clear();
    const double t = seconds(now);
    all = sights;
    if (server) {
      server->look(t);
      for (const LeaderServer::Host& host : server->hosts()) {
        all.insert(all.end(), host.ranks.begin(), host.ranks.end());
        const bool ends =
            std::any_of(host.ranks.begin(), host.ranks.end(), [](const RankSight& r) { return r.note.ends(); });
        if ((host.link == LinkState::ended || host.link == LinkState::cut) && !ends)
          lost_hosts.push_back({host.name, host.why, host.link, host.lost, host.ranks});
      }
    }
    if (client) {
      client->look(sights, t);
      if (client->lost_for(t) > 0)
        lost_hosts.push_back({"", client->why(), client->state(), t - client->lost_for(t), {}});
    }
    linked = client && client->alive(t);
    if (stopped_myself)
      for (LostHost& host : lost_hosts) host.lost = t;
  }

  void look(Time now, bool stopped_myself) {
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      Watched& w = ranks[i];
      RankSight& s = w.sight;
      // Before the note is read, so that a dead rank's note is its last.
      if (w.visible && !s.dead) s.dead = died(i);
      const RankNote n = board.read(static_cast<int>(i));
      const bool same = n.beats == s.note.beats && n.entered == s.note.entered && n.left == s.note.left &&
                        n.device.step == s.note.device.step && n.device.bucket == s.note.device.bucket;
      if (!same || n.state != RankState::running || stopped_myself) w.changed = now;
      s.note = n;
      s.idle = s.watched() ? seconds(now - w.changed) : 0;
      s.stopped = w.visible && s.watched() && s.idle >= std::min(1.0, warn_after(s)) && look_at_process(n.pid).stopped;
      sights[i] = s;
    }
  }

  bool died(std::size_t i) {
    pollfd& e = events[i];
    if (e.fd >= 0) {
      if ((e.revents & POLLIN) == 0) return false;
      close(e.fd);
      e.fd = -1;
      return true;
    }
    const RankNote& n = ranks[i].sight.note;
    const ProcessLook l = look_at_process(n.pid);
    return !l.alive || l.started != n.started;
  }

  double warn_after(const RankSight& s) const {
    const double limit = limit_of(s);
    return limit > 0 ? std::min(options.warn_seconds, limit / 2) : options.warn_seconds;
  }

  void judge(Time now) {
    if (board.slot() >= 0 && board.read(board.slot()).ends()) return;
    if (board.was_spoken()) return leave(lost);
    bool death = false, failure = false;
    int code = lost;
    for (const RankSight& s : sights) {
      death = death || (s.dead && !s.note.ends());
      if (s.note.state == RankState::failed) {
        failure = true;
        code = s.note.exit_code;
      }
    }
    const LostHost* const without = failure || death ? nullptr : missed_host(now);
    if (!death && !failure && without == nullptr && !deadline_passed()) {
      trouble = {};
      return warn(now);
    }
    if (trouble == Time{}) trouble = now;
    const double since = seconds(now - trouble);
    if (failure) {  // it has said why
      if (since > after_failure) leave(code);
      return;
    }
    double due = death ? settle : first_host || without != nullptr ? 0 : 2;
    due += next_in_line * static_cast<double>(before_me());
    if (since < due) return;
    if (!board.claim()) {
      if (since > due + 1) leave(lost);
      return;
    }
    if (death) {
      std::string text = death_text(sights);
      if (sights.size() < all.size()) text += fmt::format("\n{}", rank_table(all));
      report(text);
    } else if (without != nullptr) {
      report(fmt::format("{}; run the same command again to resume from the last checkpoint\n{}", lost_text(*without),
                         rank_table(all)));
    } else {
      report(fmt::format(
          "{} (communication.{} is {:g}; raise it where that is too short); run the same command "
          "again to resume from the last checkpoint\n{}",
          stall_text(all, elsewhere()), setting_of(blamed().note.deadline).name, limit_of(blamed()), rank_table(all)));
    }
  }

  static std::string lost_text(const LostHost& host) {
    const std::string who = host.name.empty()    ? "the host of rank 0"
                            : host.ranks.empty() ? "host " + host.name
                                                 : fmt::format("host {} ({})", host.name, ranks_text(host.ranks));
    return host.link == LinkState::cut
               ? fmt::format("{} is not to be reached any more ({}): its link is cut, or it is down", who, host.why)
               : fmt::format("{} sends no more messages ({})", who, host.why);
  }

  /// A lost host for which the ranks here wait: its link alone may be lost while what they exchange goes other ways.
  const LostHost* missed_host(Time now) const {
    const bool waits = std::any_of(sights.begin(), sights.end(), [](const RankSight& s) {
      return s.watched() && s.note.waits() && s.idle >= without_host;
    });
    for (const LostHost& host : lost_hosts)
      if (waits && seconds(now) - host.lost >= without_host) return &host;
    return nullptr;
  }

  /// Whose deadline it is.
  const RankSight& blamed() const {
    if (const auto behind = ranks_behind(all); !behind.empty()) return all[behind[0]];
    return *std::max_element(all.begin(), all.end(),
                             [this](const RankSight& a, const RankSight& b) { return late(a) < late(b); });
  }

  bool elsewhere() const { return static_cast<std::size_t>(options.ranks) > all.size(); }

  /// Someone is late, and whoever is behind is not merely slow.
  bool deadline_passed() const {
    if (std::none_of(all.begin(), all.end(), [this](const RankSight& s) { return late(s); })) return false;
    const auto behind = ranks_behind(all);
    return std::all_of(behind.begin(), behind.end(), [&](std::size_t i) { return late(all[i]); });
  }

  /// How many ranks are there to speak before this one.
  int before_me() const {
    int count = 0;
    for (int i = 0; i < board.slot(); ++i) {
      const RankSight& s = sights[static_cast<std::size_t>(i)];
      if (!s.dead && !s.note.ends() && !look_at_process(s.note.pid).stopped) ++count;
    }
    return count;
  }

  void report(std::string message) {
    told = true;
    if (!message.empty() && message.back() == '\n') message.pop_back();
    if (leaves) board.end(RankState::failed, lost);
    options.on_error(message);
    board.spoken();
    if (leaves) _exit(lost);
  }

  void leave(int code) {
    told = true;
    if (!leaves) return;
    board.end(RankState::failed, code);
    _exit(code);
  }

  void warn_of_lost_hosts(Time now) {
    for (const LostHost& host : lost_hosts) {
      if (seconds(now) - host.lost < told_after) continue;  // a run that ends is told by its own error
      if (before_me() > 0 || !told_lost.insert(host.name).second) continue;
      options.on_warning(lost_text(host) + "; training goes on as long as there is progress");
    }
  }

  /// Only where the others wait, or a rank is stopped: a step may rightly take long.
  void warn(Time now) {
    warn_of_lost_hosts(now);
    if (linked) return;  // rank 0 sees what there is to see here
    double idle = 0;
    bool waits = false, slow = false;
    for (const RankSight& s : all) {
      const bool long_idle = s.idle >= warn_after(s);
      slow = slow || long_idle;
      waits = waits || (s.watched() && s.note.waits() && long_idle);
    }
    if (!slow) {  // the ordinary case: nothing is allocated
      next_warning = 0;
      return;
    }
    const auto behind = ranks_behind(all);
    for (std::size_t i : behind) {
      const double one = all[i].idle;
      if (one < warn_after(all[i])) return;
      waits = waits || all[i].stopped;
      idle = std::max(idle, one);
    }
    if (!waits) {
      next_warning = 0;
      return;
    }
    if (behind.empty()) {
      if (!elsewhere() || !first_host) return;
      for (const RankSight& s : all) idle = std::max(idle, s.idle);
    }
    if (idle < next_warning || before_me() > 0) return;
    next_warning = std::max(idle, next_warning) * 2;  // said less and less often
    const double limit = limit_of(blamed());
    options.on_warning(stall_text(all, elsewhere()) +
                       (limit > 0 ? fmt::format("; the run ends after {:g} s of this", limit) : ""));
  }
};

Watchdog::Watchdog(HostBoard& board, Options options) : state_(std::make_unique<State>(board, std::move(options))) {
  state_->thread = std::thread([s = state_.get()] { s->watch(); });
}

Watchdog::~Watchdog() {
  state_->ended = true;
  limit(0);
  state_->thread.join();
}

void Watchdog::limit(double timeout_seconds) noexcept {
  for (auto& limit : state_->limits) limit = timeout_seconds;
  state_->wake_up();
}

void Watchdog::limit(const CommConfig& config) noexcept {
  for (std::size_t i = 0; i < deadline_settings.size(); ++i) state_->limits[i] = config.*deadline_settings[i].seconds;
  state_->wake_up();
}

void Watchdog::beat(const char* phase, std::uint64_t step, Deadline deadline) noexcept {
  state_->board.beat(phase, step, deadline);
}

void Watchdog::pause() noexcept {
  state_->board.pause();
}

void Watchdog::follow(DeviceWatch* device) {
  const std::lock_guard lock(state_->mutex);
  state_->device = device;
}

Watchdog::Wait::Wait(Watchdog* watchdog) noexcept : watchdog_(watchdog) {
  if (watchdog_ != nullptr) watchdog_->state_->board.enter_exchange();
}
Watchdog::Wait::~Wait() {
  if (watchdog_ != nullptr) watchdog_->state_->board.leave_exchange();
}

std::string Watchdog::listen(const std::vector<std::string>& other_hosts, const std::vector<std::string>& addresses) {
  const std::lock_guard lock(state_->mutex);
  return state_->server.emplace(other_hosts, addresses, state_->options.links).address();
}

void Watchdog::connect(const std::string& address) {
  const std::lock_guard lock(state_->mutex);
  state_->client.emplace(address, state_->board.host(), state_->options.links);
}

}  // namespace dtrain::comm
