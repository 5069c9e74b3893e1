#include "comm/collective/staged.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "runtime/device/host_buffer.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

enum class Kind : std::uint8_t { all_reduce, reduce_scatter, all_gather, broadcast };
constexpr std::array<const char*, 4> names{"all_reduce", "reduce_scatter", "all_gather", "broadcast"};

/// What the thread is told of a call.
struct Job {
  Kind kind = Kind::all_reduce;
  DType dtype = DType::f32;
  Reduce reduce = Reduce::sum;
  int root = 0;
  std::size_t shard = 0, piece = 0;  // elements, a rank's where a call has shards
  std::uint64_t first = 0;           // number of its first piece
  std::uint64_t number = 0;          // of the call

  std::size_t pieces() const { return (shard + piece - 1) / piece; }
  std::size_t begin(std::size_t i) const { return i * piece; }
  std::size_t count(std::size_t i) const { return std::min(piece, shard - i * piece); }
};

class Staged final : public Collective {
 public:
  static constexpr std::size_t capacity = 4096;  // calls under way; who makes more waits

  Staged(Device& device, std::unique_ptr<Communicator> communicator, StagedOptions options)
      : device_(device),
        communicator_(std::move(communicator)),
        slots_(static_cast<std::size_t>(std::max(options.pieces, 2))),
        // A shard of each rank, and one for their sum.
        slot_bytes_(std::max(options.piece_bytes / 64 * 64, 64 * (static_cast<std::size_t>(size()) + 1))),
        pinned_(device, slots_ * slot_bytes_),
        out_(device.make_timeline()),
        in_(device.make_timeline()),
        finished_(device.make_timeline()),
        jobs_(capacity),
        thread_([this] { work(); }) {}

  ~Staged() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      given_changed_.notify_all();
    }
    thread_.join();
    in_->reach(never);  // streams that still wait come free
  }
  Staged(const Staged&) = delete;
  Staged& operator=(const Staged&) = delete;

  int rank() const noexcept override { return communicator_->rank(); }
  int size() const noexcept override { return communicator_->size(); }

  void all_reduce(Tensor t, Reduce reduce, Stream& stream) override {
    Job job{.kind = Kind::all_reduce, .dtype = t.desc.dtype, .reduce = reduce, .shard = count(t)};
    job.piece = slot_bytes_ / size_of(job.dtype);
    enqueue(
        job, stream, [&](std::size_t i) { copy(slot(job, i), at(t, job.begin(i)), job.count(i), job.dtype, stream); },
        [&](std::size_t i) { copy(at(t, job.begin(i)), slot(job, i), job.count(i), job.dtype, stream); });
  }

  void reduce_scatter(Tensor in, Tensor out, Reduce reduce, Stream& stream) override {
    check_shard("reduce_scatter", out, in);
    Job job{.kind = Kind::reduce_scatter, .dtype = in.desc.dtype, .reduce = reduce, .shard = count(out)};
    job.piece = slot_bytes_ / size_of(job.dtype) / (ranks() + 1);
    enqueue(
        job, stream,
        [&](std::size_t i) {
          for (std::size_t r = 0; r < ranks(); ++r)
            copy(part(job, i, r), at(in, r * job.shard + job.begin(i)), job.count(i), job.dtype, stream);
        },
        [&](std::size_t i) { copy(at(out, job.begin(i)), part(job, i, ranks()), job.count(i), job.dtype, stream); });
  }

  void all_gather(Tensor in, Tensor out, Stream& stream) override {
    check_shard("all_gather", in, out);
    Job job{.kind = Kind::all_gather, .dtype = out.desc.dtype, .shard = count(in)};
    job.piece = slot_bytes_ / size_of(job.dtype) / (ranks() + 1);
    const auto own = static_cast<std::size_t>(rank());
    const bool in_place = in.data == at(out, own * job.shard);
    enqueue(
        job, stream,
        [&](std::size_t i) { copy(part(job, i, own), at(in, job.begin(i)), job.count(i), job.dtype, stream); },
        [&](std::size_t i) {
          for (std::size_t r = 0; r < ranks(); ++r)
            if (r != own || !in_place)
              copy(at(out, r * job.shard + job.begin(i)), part(job, i, r), job.count(i), job.dtype, stream);
        });
  }

  void broadcast(Tensor t, int root, Stream& stream) override {
    if (root < 0 || root >= size()) throw BugError(fmt::format("broadcast from rank {} of {}", root, size()));
    Job job{.kind = Kind::broadcast, .dtype = t.desc.dtype, .root = root, .shard = count(t)};
    job.piece = slot_bytes_ / size_of(job.dtype);
    const bool sends = root == rank();
    enqueue(
        job, stream,
        [&](std::size_t i) {
          if (sends) copy(slot(job, i), at(t, job.begin(i)), job.count(i), job.dtype, stream);
        },
        [&](std::size_t i) {
          if (!sends) copy(at(t, job.begin(i)), slot(job, i), job.count(i), job.dtype, stream);
        });
  }

  void check() override {
    if (!failed_.load()) return;
    const std::lock_guard lock(mutex_);
    std::rethrow_exception(failure_);
  }

  std::string state() const override {
    const std::uint64_t now = now_.load();
    std::string text = fmt::format("staged: {} of {} calls done", done_.load(), sequence_.load());
    if (failed_.load()) return text + ", the exchange failed";
    if (now == 0) return text;
    return text + fmt::format("; number {} ({}) waits for {}", now, names[static_cast<std::size_t>(kind_.load())],
                              exchanging_.load() ? "the other ranks" : "this rank's GPU");
  }

 private:
  static constexpr std::uint64_t never = std::numeric_limits<std::int64_t>::max();  // as far as a GPU can compare

  static std::size_t count(const Tensor& t) { return static_cast<std::size_t>(t.elements()); }
  static void* at(const Tensor& t, std::size_t element) {
    return static_cast<std::byte*>(t.data) + element * size_of(t.desc.dtype);
  }
  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  /// Pinned memory of a piece, and of one rank's part of it (ranks(): the sum's).
  std::byte* slot(const Job& job, std::size_t i) const {
    return static_cast<std::byte*>(pinned_.data()) + (job.first + i) % slots_ * slot_bytes_;
  }
  std::byte* part(const Job& job, std::size_t i, std::size_t rank) const {
    return slot(job, i) + rank * job.count(i) * size_of(job.dtype);
  }
  void copy(void* to, const void* from, std::size_t elements, DType dtype, Stream& stream) {
    device_.copy(to, from, elements * size_of(dtype), stream);
  }
  void check_shard(const char* what, const Tensor& shard, const Tensor& whole) const {
    if (shard.desc.dtype != whole.desc.dtype || shard.elements() * size() != whole.elements())
      throw BugError(fmt::format("{}: a shard of {} elements and {} in all do not fit {} ranks", what, shard.elements(),
                                 whole.elements(), size()));
  }

  // All of a call's copies are enqueued here. A piece's memory is used again by the piece `slots_` behind it, whose
  // copy out comes after its copy in.
  template <class Out, class In>
  void enqueue(Job& job, Stream& stream, Out out, In in) {
    check();
    job.number = ++sequence_;
    if (job.shard == 0) {
      job.piece = 1;
      give(job);
      return;
    }
    if (last_ != &stream && last_call_ > 0) stream.await(*finished_, last_call_);
    job.first = next_;
    const std::size_t pieces = job.pieces();
    next_ += pieces;
    give(job);
    const auto copy_out = [&](std::size_t i) {
      out(i);
      stream.reach(*out_, job.first + i + 1);
    };
    for (std::size_t i = 0; i < std::min(slots_, pieces); ++i) copy_out(i);
    for (std::size_t i = 0; i < pieces; ++i) {
      stream.await(*in_, job.first + i + 1);
      in(i);
      if (i + slots_ < pieces) copy_out(i + slots_);
    }
    stream.reach(*finished_, job.number);
    last_ = &stream;
    last_call_ = job.number;
  }

  void give(const Job& job) {
    std::unique_lock lock(mutex_);
    taken_changed_.wait(lock, [this] { return given_ - taken_ < capacity || failure_; });
    jobs_[given_ % capacity] = job;
    ++given_;
    given_changed_.notify_one();
  }

  // ---- the thread
  void work() {
    try {
      for (Job job; take(job);) {
        kind_ = job.kind;
        now_ = job.number;
        for (std::size_t i = 0; i < job.pieces(); ++i) {
          exchanging_ = false;
          if (!await_stream(job.first + i + 1)) return;
          exchanging_ = true;
          exchange(job, i);
          if (i + 1 == job.pieces()) finished(job);  // before anybody sees the result
          in_->reach(job.first + i + 1);
        }
        if (job.pieces() == 0) finished(job);
      }
    } catch (...) {
      {
        const std::lock_guard lock(mutex_);
        failure_ = std::current_exception();
        failed_ = true;
        taken_changed_.notify_all();
      }
      in_->reach(never);  // behind the failure: whoever sees what the streams do from here on sees that first
    }
  }

  void finished(const Job& job) {
    now_ = 0;
    done_ = job.number;
  }

  bool take(Job& job) {
    std::unique_lock lock(mutex_);
    given_changed_.wait(lock, [this] { return given_ > taken_ || closing_; });
    if (given_ == taken_) return false;
    job = jobs_[taken_++ % capacity];
    taken_changed_.notify_one();
    return true;
  }

  bool await_stream(std::uint64_t piece) {
    while (!out_->wait(piece, 0.05)) {
      const std::lock_guard lock(mutex_);
      if (closing_) return false;  // a stream that failed will never come here
    }
    return true;
  }

  void exchange(const Job& job, std::size_t i) {
    const std::size_t n = job.count(i);
    try {
      switch (job.kind) {
        case Kind::all_reduce:
          return communicator_->all_reduce(slot(job, i), n, job.dtype, job.reduce);
        case Kind::reduce_scatter:
          return communicator_->reduce_scatter(slot(job, i), part(job, i, ranks()), n, job.dtype, job.reduce);
        case Kind::all_gather:
          return communicator_->all_gather(part(job, i, static_cast<std::size_t>(rank())), slot(job, i), n, job.dtype);
        case Kind::broadcast:
          return communicator_->broadcast(slot(job, i), n, job.dtype, job.root);
      }
    } catch (const CommError& e) {
      throw CommError(fmt::format("{} number {} (staged) failed on rank {}: {}",
                                  names[static_cast<std::size_t>(job.kind)], job.number, rank(), e.what()),
                      rank(), job.number);
    }
  }

  Device& device_;
  const std::unique_ptr<Communicator> communicator_;
  const std::size_t slots_, slot_bytes_;
  const HostBuffer pinned_;
  // Pieces copied out by streams, exchanged by the thread; calls whose last piece was copied in.
  const std::unique_ptr<Timeline> out_, in_, finished_;

  // Of the caller.
  const Stream* last_ = nullptr;
  std::uint64_t last_call_ = 0, next_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable given_changed_, taken_changed_;
  std::vector<Job> jobs_;
  std::uint64_t given_ = 0, taken_ = 0;
  bool closing_ = false;
  std::exception_ptr failure_;
  std::atomic<bool> failed_{false};

  // For state().
  std::atomic<std::uint64_t> sequence_{0}, done_{0}, now_{0};
  std::atomic<Kind> kind_{Kind::all_reduce};
  std::atomic<bool> exchanging_{false};
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Collective> make_staged_collective(Device& device, std::unique_ptr<Communicator> communicator,
                                                   StagedOptions options) {
  return std::make_unique<Staged>(device, std::move(communicator), options);
}

}  // namespace dtrain::comm
