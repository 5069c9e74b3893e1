#include "tests/runtime/cuda/host_grid.hpp"

#include <array>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include <ucontext.h>

#include "runtime/cuda/host_grid.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::test {

namespace {

constexpr unsigned warp = 32, most_threads = 1024;
constexpr std::size_t stack_bytes = 128 * 1024;
using Body = void (*)(const void* arguments, cuda::Thread&, void* shared);

struct Work {
  Body body;
  const void* arguments;
  void* shared;
};

/// Runs one thread after another on a stack of its own. Jumps rather than swapcontext(), which asks the kernel each
/// time.
class Fiber final : public cuda::Thread {
 public:
  enum class State : std::uint8_t { ready, in_exchange, in_sync, done };

  void start(Fiber* all, unsigned index, std::int64_t block, std::int64_t blocks, const Work& work) {
    if (state != State::done) begun_ = false;  // left behind by an error
    all_ = all;
    index_ = index;
    block_ = block;
    blocks_ = blocks;
    work_ = work;
    exchanges_ = 0;
    state = State::ready;
  }
  void turn() {
    if (__builtin_setjmp(scheduler_) != 0) return;
    if (begun_) jump(here_);
    begin();
  }
  void sync() override { wait(State::in_sync); }

  State state = State::done;

 private:
  /// Not in the function that can be jumped to.
  [[gnu::noinline, noreturn]] static void jump(void** to) { __builtin_longjmp(to, 1); }
  [[noreturn]] void begin() {
    if (!stack_) stack_ = std::make_unique<std::byte[]>(stack_bytes);
    begun_ = true;
    ucontext_t context{};
    getcontext(&context);
    context.uc_stack.ss_sp = stack_.get();
    context.uc_stack.ss_size = stack_bytes;
    starting = this;
    makecontext(&context, &enter, 0);
    setcontext(&context);
    throw BugError("a fiber does not start");
  }
  static void enter() {
    Fiber& self = *starting;
    for (;;) {
      self.work_.body(self.work_.arguments, self, self.work_.shared);
      self.wait(State::done);
    }
  }
  void wait(State s) {
    state = s;
    if (__builtin_setjmp(here_) == 0) jump(scheduler_);
  }
  /// Two places in turn: a thread may be one exchange ahead of another of its warp.
  const void* exchange(const void* value, std::size_t bytes, unsigned from) override {
    const std::size_t place = exchanges_++ % 2;
    std::memcpy(slots_[place].data(), value, bytes);
    wait(State::in_exchange);
    return all_[from].slots_[place].data();
  }

  static thread_local Fiber* starting;
  void *here_[5]{}, *scheduler_[5]{};
  bool begun_ = false;
  Fiber* all_ = nullptr;
  Work work_{};
  std::unique_ptr<std::byte[]> stack_;
  std::array<std::array<std::byte, 8>, 2> slots_{};
  std::size_t exchanges_ = 0;
};

thread_local Fiber* Fiber::starting = nullptr;

struct Runner {
  Turns turns = Turns::forward;
  int launches = 0;
  std::vector<Fiber> fibers{most_threads};
  std::vector<std::max_align_t> shared;

  template <class Visit>
  void in_turn(unsigned n, const Visit& visit) const {
    for (unsigned i = 0; i < n; ++i) visit(turns == Turns::forward ? i : n - 1 - i);
  }
  bool all(unsigned begin, unsigned end, Fiber::State state) const {
    for (unsigned i = begin; i < end; ++i)
      if (fibers[i].state != state) return false;
    return true;
  }

  void run_block(const char* op, std::int64_t block, std::int64_t blocks, unsigned threads, const Work& work) {
    for (unsigned i = 0; i < threads; ++i) fibers[i].start(fibers.data(), i, block, blocks, work);
    while (!all(0, threads, Fiber::State::done)) {
      in_turn(threads / warp, [&](unsigned w) { run_warp(w * warp); });
      if (all(0, threads, Fiber::State::done)) break;
      if (!all(0, threads, Fiber::State::in_sync))
        throw BugError(std::string(op) + ": threads of a block wait for others that do not come");
      for (unsigned i = 0; i < threads; ++i) fibers[i].state = Fiber::State::ready;
    }
  }
  /// As far as it gets without the other warps.
  void run_warp(unsigned first) {
    for (;;) {
      in_turn(warp, [&](unsigned lane) {
        if (fibers[first + lane].state == Fiber::State::ready) fibers[first + lane].turn();
      });
      if (!all(first, first + warp, Fiber::State::in_exchange)) return;
      for (unsigned i = first; i < first + warp; ++i) fibers[i].state = Fiber::State::ready;
    }
  }
};

Runner& runner() {
  thread_local Runner own;
  return own;
}

}  // namespace

void set_turns(Turns turns) noexcept {
  runner().turns = turns;
}
int count_launches() noexcept {
  return std::exchange(runner().launches, 0);
}

}  // namespace dtrain::test

namespace dtrain::cuda {

void run_blocks(const char* op, std::int64_t blocks, unsigned threads, std::size_t shared_bytes,
                void (*body)(const void* arguments, Thread&, void* shared), const void* arguments) {
  test::Runner& runner = test::runner();
  ++runner.launches;
  if (threads == 0 || threads > test::most_threads || threads % test::warp != 0)
    throw BugError("a block of a number of threads that no GPU runs");
  if (shared_bytes > 48 * 1024) throw BugError("a kernel with more than 48 KiB of shared memory");
  runner.shared.resize(shared_bytes / sizeof(std::max_align_t) + 1);
  for (std::int64_t i = 0; i < blocks; ++i) {
    std::memset(runner.shared.data(), 0xFF, shared_bytes);
    const std::int64_t block = runner.turns == test::Turns::forward ? i : blocks - 1 - i;
    runner.run_block(op, block, blocks, threads, {body, arguments, runner.shared.data()});
  }
}

}  // namespace dtrain::cuda
