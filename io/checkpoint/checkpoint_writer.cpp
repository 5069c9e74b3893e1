#include "io/checkpoint/checkpoint_writer.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <exception>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint_best.hpp"
#include "io/checkpoint/checkpoint_publish.hpp"
#include "io/checkpoint/checkpoint_snapshot.hpp"
#include "io/checkpoint/checkpoint_worker.hpp"
#include "io/files/lock.hpp"

namespace dtrain::io {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string pack(const Json& json) {
  const auto bytes = Json::to_cbor(json);
  return {bytes.begin(), bytes.end()};
}

/// What a rank tells the others of its background work.
constexpr char busy = 'b', done = 'd', failed = 'f';

}  // namespace

struct CheckpointWriter::State {
  State(Group& g, CheckpointConfig c, std::string id, FileSystem& f)
      : group(g), config(std::move(c)), run_id(std::move(id)), files(f) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { cancel = given_up = true; }  // the worker, declared last, is joined first among the members

  enum class Phase { idle, writing, ending };

  Group& group;
  CheckpointConfig config;
  std::string run_id;
  FileSystem& files;
  DirectoryLock lock;  // rank 0
  std::function<void(const std::string&, const GivenUp&)> when_durable;

  std::optional<std::uint64_t> base;  // resumed from, or the newest one published
  std::set<std::uint64_t> own;        // published by this run
  int failures_in_a_row = 0;

  // The save in flight. Rank 0's `unique` is everybody's.
  Phase phase = Phase::idle;
  Manifest manifest;
  std::optional<std::uint64_t> best;
  std::string unique, temporary, error;
  double copy_seconds = 0;
  Clock::time_point started;
  Snapshot snapshot;

  std::atomic<bool> cancel{false}, given_up{false};
  // Written by the worker's thread, read here after the worker is idle again.
  std::string sha256;
  bool made_again = false;  // the directory, which had been removed
  Published published;
  Worker worker;

  std::optional<SaveReport> poll();
  std::string status_of_this_rank();
  void end_attempt(const std::vector<std::string>& statuses);
  void follow_up(const std::string& path);
  SaveReport report(const Json& outcome);
};

CheckpointWriter::CheckpointWriter(Group& group, const CheckpointConfig& config, std::string run_id, FileSystem& files)
    : state_(std::make_unique<State>(group, config, std::move(run_id), files)) {
  auto& s = *state_;
  group.agree([&] {
    if (s.config.directory.empty()) throw BugError("the checkpoint writer was given no directory");
    if (group.rank() != 0) return;
    try {
      make_directories(files, s.config.directory);
    } catch (const CheckpointError& e) {
      throw CheckpointError(fmt::format("checkpoint.directory: {}; name a directory that can be written", e.what()),
                            e.kind());
    }
    s.lock = DirectoryLock(files, s.config.directory, s.run_id);
    remove_leftovers(files, s.config.directory);
  });
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::continue_from(std::uint64_t step) noexcept {
  state_->base = step;
}

void CheckpointWriter::when_durable(std::function<void(const std::string&, const GivenUp&)> work) {
  state_->when_durable = std::move(work);
}

void CheckpointWriter::give_up_work() noexcept {
  state_->given_up = true;
}

bool CheckpointWriter::in_flight() const noexcept {
  return state_->phase != State::Phase::idle;
}

std::optional<std::uint64_t> CheckpointWriter::durable_step() const noexcept {
  return state_->base;
}

std::string CheckpointWriter::label_best(std::optional<std::uint64_t> best) {
  if (state_->group.rank() != 0) return {};
  try {
    point_best(state_->files, state_->config.directory, best, make_run_id());
    return {};
  } catch (const CheckpointError& e) {
    return e.what();
  }
}

std::optional<SaveReport> CheckpointWriter::save(const RunState& state, std::span<const StateTensor> tensors,
                                                 std::optional<std::uint64_t> best) {
  auto& s = *state_;
  auto earlier = finish();
  if (s.base == state.step) return earlier;
  const auto start = Clock::now();
  s.manifest = lay_out(tensors);
  const auto [begin, end] = part_of(s.manifest.total_bytes, s.group.rank(), s.group.size());
  s.snapshot.take(tensors, s.manifest, begin, end);
  // One exchange: the step, the layout, each tensor's checksum; with it rank 0's name for the attempt.
  s.unique = s.group.rank() == 0 ? make_run_id() : std::string();
  s.unique = compare_ranks(s.group, state.step, s.manifest, s.snapshot, s.unique);

  s.best = best;
  s.manifest.state = state;
  s.manifest.state.saved_at = utc_now();
  s.temporary = join_path(s.config.directory, fmt::format("{}{}-{}", temporary_prefix, state.step, s.unique));
  s.error.clear();
  s.sha256.clear();
  s.copy_seconds = seconds_since(start);
  s.started = start;
  s.phase = State::Phase::writing;
  s.worker.start([&s] {
    s.made_again = s.lock.renew();
    s.sha256 = write_shard(s.files, s.temporary, s.group.rank(), s.snapshot.bytes(), s.cancel);
  });
  return earlier;
}

std::optional<SaveReport> CheckpointWriter::poll() {
  return state_->poll();
}

std::optional<SaveReport> CheckpointWriter::finish() {
  while (in_flight()) {
    state_->worker.wait();
    if (auto report = state_->poll()) return report;
  }
  return std::nullopt;
}

std::string CheckpointWriter::State::status_of_this_rank() {
  if (worker.busy()) return {busy};
  if (phase == Phase::writing) {
    const auto problem = worker.error();
    return problem.empty() ? done + sha256 : failed + problem;
  }
  if (group.rank() != 0) return {done};
  // What the worker could not even begin counts as a failure, too.
  const auto problem = worker.error();
  return done + pack({{"durable", published.durable},
                      {"renamed", published.renamed},
                      {"error", !error.empty()     ? error
                                : !problem.empty() ? problem
                                                   : published.error},
                      {"made_again", made_again},
                      {"removed", published.removed},
                      {"remarks", published.remarks},
                      {"seconds", seconds_since(started)}});
}

std::optional<SaveReport> CheckpointWriter::State::poll() {
  if (phase == Phase::idle) return std::nullopt;
  const auto statuses = group.all_gather(status_of_this_rank());
  if (std::any_of(statuses.begin(), statuses.end(), [](const auto& text) { return text[0] == busy; })) {
    return std::nullopt;
  }
  if (phase == Phase::writing) {
    end_attempt(statuses);
    return std::nullopt;
  }
  phase = Phase::idle;
  return report(Json::from_cbor(statuses[0].substr(1)));
}

/// All shards are written, or some rank failed: rank 0 publishes or clears up; every rank knows which.
void CheckpointWriter::State::end_attempt(const std::vector<std::string>& statuses) {
  phase = Phase::ending;
  manifest.shards.clear();
  for (std::size_t rank = 0; rank < statuses.size(); ++rank) {
    const auto text = statuses[rank].substr(1);
    if (statuses[rank][0] == failed && error.empty()) {
      error = group.size() > 1 ? fmt::format("rank {}: {}", rank, text) : text;
    }
    const auto [begin, end] = part_of(manifest.total_bytes, static_cast<int>(rank), group.size());
    manifest.shards.push_back({begin, end, text});
  }
  if (group.rank() != 0) return;
  published = {};
  if (!error.empty()) {
    worker.start([this] { discard(files, temporary, published.remarks); });
    return;
  }
  Publication publication{config.directory, temporary,        unique,      manifest,          own,
                          base.has_value(), base.value_or(0), config.keep, config.keep_every, best};
  worker.start([this, publication = std::move(publication)] {
    published = publish(files, publication);
    if (published.durable && when_durable) follow_up(join_path(config.directory, step_name(manifest.state.step)));
  });
}

/// On the worker's thread.
void CheckpointWriter::State::follow_up(const std::string& path) {
  try {
    when_durable(path, [this] { return given_up.load(); });
  } catch (const std::exception& e) {
    published.remarks.emplace_back(e.what());
  }
}

SaveReport CheckpointWriter::State::report(const Json& outcome) {
  SaveReport r;
  r.step = manifest.state.step;
  r.durable = outcome["durable"].get<bool>();
  r.path = join_path(config.directory, step_name(r.step));
  r.error = outcome["error"].get<std::string>();
  r.bytes = manifest.total_bytes;
  r.copy_seconds = copy_seconds;
  r.write_seconds = outcome["seconds"].get<double>();
  r.removed = outcome["removed"].get<std::vector<std::string>>();
  r.remarks = outcome["remarks"].get<std::vector<std::string>>();
  if (outcome["made_again"].get<bool>())
    r.remarks.push_back(
        fmt::format("{} had been removed while the run was using it; it is made again, but what was in "
                    "it is lost",
                    config.directory));
  if (outcome["renamed"].get<bool>()) own.insert(r.step);
  if (r.durable) {
    base = r.step;
    failures_in_a_row = 0;
  } else if (++failures_in_a_row >= std::max(1, config.failures_allowed)) {
    throw CheckpointError(fmt::format("{} checkpoints in a row could not be saved; the latest, of step {}: {}",
                                      failures_in_a_row, r.step, r.error));
  }
  return r;
}

}  // namespace dtrain::io
