#include "comm/watch/host_board.hpp"

#include <cerrno>
#include <cstring>
#include <new>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "comm/watch/process.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

using Word = std::atomic<std::uint64_t>;
using Half = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && Half::is_always_lock_free, "processes share them");

constexpr int deadline_bit = 56;
constexpr std::uint32_t asynchronous_bit = 1u << 31;

[[noreturn]] void fail(const char* what) {
  throw CommError(
      fmt::format("cannot share memory with the other ranks of this host: {}: {}", what, std::strerror(errno)));
}

}  // namespace

struct alignas(64) HostBoard::Head {
  Half claimed, spoken;
};

struct alignas(64) HostBoard::Line {
  Half rank, pid, pid_space, started;
  Half state;    // RankState, and the exit code from bit 8 on
  Half version;  // odd while phase and step are being written
  Half entered, left;
  Word step;  // the Deadline from bit 56 on
  std::array<Word, RankNote::phase_room / sizeof(Word)> phase;
  // ---- another writer's
  Half device_version;  // odd while what follows is being written
  Half device_bucket;   // 1 + the bucket; asynchronous_bit
  Word device_step, sequence;
  std::array<Word, DeviceNote::state_room / sizeof(Word)> state_text;
};

HostBoard::HostBoard(int slots) : slots_(slots) {
  descriptor_ = memfd_create("dtrain", MFD_CLOEXEC);
  if (descriptor_ < 0) fail("memfd_create");
  if (ftruncate(descriptor_, static_cast<off_t>(sizeof(Head) + sizeof(Line) * static_cast<std::size_t>(slots))) != 0) {
    close_descriptor();
    fail("ftruncate");
  }
  map(true);
}

HostBoard::HostBoard(pid_t owner, int descriptor, int slots) : slots_(slots) {
  // Not through a name in a file system: nothing can be left over, wherever a process dies.
  descriptor_ = open(fmt::format("/proc/{}/fd/{}", owner, descriptor).c_str(), O_RDWR | O_CLOEXEC);
  if (descriptor_ < 0) fail("open");
  map(false);
}

void HostBoard::map(bool fresh) {
  const std::size_t bytes = sizeof(Head) + sizeof(Line) * static_cast<std::size_t>(slots_);
  // A container of its own would make the owner's pid mean another process: only a page of the right size is taken.
  const off_t size = lseek(descriptor_, 0, SEEK_END);
  void* const at = size == static_cast<off_t>(bytes)
                       ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_, 0)
                       : MAP_FAILED;
  if (at == MAP_FAILED) {
    close_descriptor();
    fail("mmap");
  }
  head_ = static_cast<Head*>(at);
  if (!fresh) return;
  new (head_) Head{};
  for (int i = 0; i < slots_; ++i) new (&line(i)) Line{};
}

HostBoard::~HostBoard() {
  if (mine() && !read(slot_).ends()) end(RankState::failed, static_cast<int>(ExitCode::communication));
  close_descriptor();
  munmap(head_, sizeof(Head) + sizeof(Line) * static_cast<std::size_t>(slots_));
}

void HostBoard::close_descriptor() noexcept {
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
}

HostBoard::Line& HostBoard::line(int slot) const noexcept {
  static_assert(sizeof(Head) == 64 && sizeof(Line) == 192);
  return *reinterpret_cast<Line*>(reinterpret_cast<std::byte*>(head_ + 1) +
                                  sizeof(Line) * static_cast<std::size_t>(slot));
}

// A child process inherits the board, but not the line.
bool HostBoard::mine() const noexcept {
  return slot_ >= 0 && line(slot_).pid.load() == static_cast<std::uint32_t>(getpid());
}

void HostBoard::join(int slot, int rank, std::string host) {
  slot_ = slot;
  host_ = std::move(host);
  Line& l = line(slot);
  l.rank = static_cast<std::uint32_t>(rank);
  l.pid = static_cast<std::uint32_t>(getpid());
  l.pid_space = own_pid_space();
  l.started = look_at_process(getpid()).started;
  beat("start", 0, Deadline::set_up);
}

void HostBoard::beat(const char* phase, std::uint64_t step, Deadline deadline) noexcept {
  if (slot_ < 0) return;
  Line& l = line(slot_);
  std::array<std::uint64_t, RankNote::phase_room / sizeof(Word)> words{};
  std::memcpy(words.data(), phase, strnlen(phase, RankNote::phase_room));
  // Each store releases the ones before it, so that who reads a new word also sees the odd version.
  const std::uint32_t version = l.version.load(std::memory_order_relaxed) | 1u;
  l.version.store(version, std::memory_order_relaxed);
  for (std::size_t i = 0; i < words.size(); ++i) l.phase[i].store(words[i], std::memory_order_release);
  l.step.store(step | static_cast<std::uint64_t>(deadline) << deadline_bit, std::memory_order_release);
  l.version.store(version + 1, std::memory_order_release);
  // An end stays one.
  std::uint32_t state = l.state.load();
  while ((state == static_cast<std::uint32_t>(RankState::absent) ||
          state == static_cast<std::uint32_t>(RankState::paused)) &&
         !l.state.compare_exchange_weak(state, static_cast<std::uint32_t>(RankState::running))) {
  }
}

void HostBoard::pause() noexcept {
  if (slot_ < 0) return;
  auto running = static_cast<std::uint32_t>(RankState::running);
  line(slot_).state.compare_exchange_strong(running, static_cast<std::uint32_t>(RankState::paused));
}

void HostBoard::end(RankState state, int exit_code) noexcept {
  if (slot_ >= 0)
    line(slot_).state.store(static_cast<std::uint32_t>(state) | static_cast<std::uint32_t>(exit_code) << 8);
}

void HostBoard::enter_exchange() noexcept {
  if (slot_ >= 0) line(slot_).entered.fetch_add(1, std::memory_order_relaxed);
}

void HostBoard::leave_exchange() noexcept {
  if (slot_ >= 0) line(slot_).left.fetch_add(1, std::memory_order_relaxed);
}

void HostBoard::note(const DeviceNote& n) noexcept {
  if (slot_ < 0) return;
  Line& l = line(slot_);
  std::array<std::uint64_t, DeviceNote::state_room / sizeof(Word)> words{};
  std::memcpy(words.data(), n.state.data(), strnlen(n.state.data(), DeviceNote::state_room));
  const std::uint32_t version = l.device_version.load(std::memory_order_relaxed) | 1u;
  l.device_version.store(version, std::memory_order_relaxed);
  for (std::size_t i = 0; i < words.size(); ++i) l.state_text[i].store(words[i], std::memory_order_release);
  l.device_bucket.store(static_cast<std::uint32_t>(n.bucket + 1) | (n.asynchronous ? asynchronous_bit : 0),
                        std::memory_order_release);
  l.device_step.store(n.step, std::memory_order_release);
  l.sequence.store(n.sequence, std::memory_order_release);
  l.device_version.store(version + 1, std::memory_order_release);
}

DeviceNote HostBoard::read_device(int slot) const noexcept {
  const Line& l = line(slot);
  DeviceNote n;
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const std::uint32_t before = l.device_version.load(std::memory_order_acquire);
    std::array<std::uint64_t, DeviceNote::state_room / sizeof(Word)> words{};
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = l.state_text[i].load(std::memory_order_acquire);
    std::memcpy(n.state.data(), words.data(), DeviceNote::state_room);
    const std::uint32_t bucket = l.device_bucket.load(std::memory_order_acquire);
    n.asynchronous = (bucket & asynchronous_bit) != 0;
    n.bucket = static_cast<int>(bucket & ~asynchronous_bit) - 1;
    n.step = l.device_step.load(std::memory_order_acquire);
    n.sequence = l.sequence.load(std::memory_order_acquire);
    if (before == l.device_version.load(std::memory_order_relaxed) && before % 2 == 0) break;
  }
  return n;
}

RankNote HostBoard::read(int slot) const noexcept {
  const Line& l = line(slot);
  RankNote n;
  const std::uint32_t state = l.state.load();
  n.state = static_cast<RankState>(state & 0xff);
  n.exit_code = static_cast<int>(state >> 8);
  n.rank = static_cast<int>(l.rank.load());
  n.pid = static_cast<pid_t>(l.pid.load());
  n.pid_space = l.pid_space.load();
  n.started = l.started.load();
  n.entered = l.entered.load();
  n.left = l.left.load();
  n.device = read_device(slot);
  // A process that dies or stops while it writes leaves an odd version behind: then the words are taken as they are.
  for (int attempt = 0; attempt < 1000; ++attempt) {
    const std::uint32_t before = l.version.load(std::memory_order_acquire);
    std::array<std::uint64_t, RankNote::phase_room / sizeof(Word)> words{};
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = l.phase[i].load(std::memory_order_acquire);
    const std::uint64_t step = l.step.load(std::memory_order_acquire);
    n.step = step & ((std::uint64_t{1} << deadline_bit) - 1);
    n.deadline = static_cast<Deadline>(step >> deadline_bit);
    n.beats = l.version.load(std::memory_order_relaxed);
    std::memcpy(n.phase.data(), words.data(), RankNote::phase_room);
    if (before == n.beats && before % 2 == 0) break;
    n.beats |= 1u;
  }
  return n;
}

bool HostBoard::claim() noexcept {
  std::uint32_t nobody = 0;
  return head_->claimed.compare_exchange_strong(nobody, static_cast<std::uint32_t>(slot_ + 1));
}
void HostBoard::spoken() noexcept {
  head_->spoken.store(1);
}
bool HostBoard::was_claimed() const noexcept {
  return head_->claimed.load() != 0;
}
bool HostBoard::was_spoken() const noexcept {
  return head_->spoken.load() != 0;
}

std::unique_ptr<HostBoard> make_lone_board(int rank, const std::string& host) {
  auto board = std::make_unique<HostBoard>(1);
  board->close_descriptor();
  board->join(0, rank, host);
  return board;
}

}  // namespace dtrain::comm
