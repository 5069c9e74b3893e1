#include "io/dataset/loader.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "io/dataset/augment.hpp"
#include "io/dataset/convert.hpp"
#include "io/dataset/stream.hpp"
#include "io/hdf5/stored.hpp"
#include "runtime/device/host_buffer.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::size_t alignment = 256;  // as in a Program's input slots, so that one copy takes all of a batch

/// What the ring's entries are made of; addresses stay for the Loader's life.
struct Slot {
  Batch batch;
  std::vector<std::byte> memory;
  HostBuffer pinned;  // in place of it, where a device wants that
  std::vector<std::uint64_t> indices;
  std::exception_ptr failure;
  std::byte* raw = nullptr;
  bool ready = false;
};

ImageDraw image_draw(const Augmenter::Draw& d) {
  return {d.map(), d.color, d.recolored() ? 1u : 0u, d.exact() ? 1u : 0u};
}

std::size_t padded(std::size_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

}  // namespace

struct Loader::State {
  State(const Dataset& set, const LoaderOptions& o, bool train)
      : data(set),
        options(o),
        training(train),
        converter(set, o.input, o.normalize),
        stream(set.count(), o.seed, train && o.shuffle, set.blocks()) {
    if (train && !o.augment.empty()) augmenter.emplace(set, o.input, o.normalize, o.augment, o.seed);
  }

  const Dataset& data;
  const LoaderOptions options;
  const bool training;
  const Converter converter;
  std::optional<Augmenter> augmenter;
  const SampleStream stream;
  RawLayout layout;                  // of Batch::raw
  std::int64_t batches = 1;          // of a step or a pass
  std::uint64_t begin = 0, end = 0;  // evaluation: this rank's samples
  std::vector<Slot> slots;
  std::vector<std::thread> threads;

  std::mutex mutex;
  std::condition_variable work, filled;
  bool stop = false;
  std::uint64_t to_fill = 0;   // next micro batch that a thread takes
  std::uint64_t consumed = 0;  // micro batches released so far
  std::uint64_t held = 0;      // handed out and not yet released
  int filling = 0;             // threads that work
  double waited = 0;

  void check() const;
  void make_slots();
  void start();
  void run();
  void fill(std::uint64_t sequence, Slot&, std::byte* scratch) const;
  [[noreturn]] void throw_not_finite(std::uint64_t index, const std::byte* stored, std::int64_t element) const;
  void fill_raw(std::uint64_t valid, Slot&) const;
};

void Loader::State::check() const {
  const auto& o = options;
  if (o.micro_batch < 1 || o.ranks < 1 || o.rank < 0 || o.rank >= o.ranks)
    throw BugError("loader: rank or micro batch");
  if (training && (o.global_batch < 1 || o.global_batch % (o.micro_batch * o.ranks) != 0)) {
    throw ConfigError(fmt::format("batch.global {} is not a multiple of batch.micro {} x {} ranks", o.global_batch,
                                  o.micro_batch, o.ranks));
  }
  if (o.classes > 0) data.check_labels(o.classes);
}

void Loader::State::make_slots() {
  const std::int64_t m = options.micro_batch;
  const TensorDesc sample = TensorDesc::of_sample(DType::f32, m, options.input.extents());
  TensorDesc target{DType::i32, Shape{m}};
  if (data.target() == TargetUse::values) target = {DType::f32, Shape{m, data.target_width()}};
  const TensorDesc weight{DType::f32, Shape{m}};
  const TensorDesc positions{DType::u64, Shape{m}};

  layout = raw_layout(options.carry, data.sample_bytes(), m, augmenter.has_value());
  const bool floats = options.carry == Carry::floats;
  slots.resize(static_cast<std::size_t>(std::max(2, options.ring)));
  for (Slot& slot : slots) {
    const std::size_t bytes = layout.bytes + (floats ? padded(sample.bytes()) : 0) + padded(target.bytes()) +
                              padded(weight.bytes()) + padded(positions.bytes());
    std::size_t space = bytes + alignment;
    void* at = nullptr;
    if (options.device != nullptr && options.device->asynchronous()) {
      slot.pinned = HostBuffer(*options.device, space);
      at = slot.pinned.data();
      std::memset(at, 0, space);
    } else {
      slot.memory.resize(space);
      at = slot.memory.data();
    }
    slot.indices.resize(static_cast<std::size_t>(m));
    auto* next = static_cast<std::byte*>(std::align(alignment, bytes, at, space));
    slot.raw = next;
    slot.batch.raw = {next, layout.bytes};
    next += layout.bytes;
    const auto take = [&next](const TensorDesc& desc) {
      const Tensor tensor{desc, next};
      next += padded(desc.bytes());
      return tensor;
    };
    slot.batch.sample = floats ? take(sample) : Tensor{sample, nullptr};
    slot.batch.target = take(target);
    if (data.target() == TargetUse::none) slot.batch.target.data = nullptr;
    slot.batch.weight = take(weight);
    slot.batch.positions = take(positions);
    slot.batch.indices = slot.indices;
  }
}

void Loader::State::start() {
  for (int i = 0; i < std::max(1, options.threads); ++i) threads.emplace_back([this] { run(); });
}

void Loader::State::run() {
  std::vector<std::byte> scratch(data.sample_bytes());
  std::unique_lock lock(mutex);
  for (;;) {
    work.wait(lock, [this] { return stop || to_fill < consumed + slots.size(); });
    if (stop) return;
    const std::uint64_t sequence = to_fill++;
    Slot& slot = slots[sequence % slots.size()];
    ++filling;
    lock.unlock();
    slot.failure = nullptr;
    try {
      fill(sequence, slot, scratch.data());
    } catch (...) {
      slot.failure = std::current_exception();
    }
    lock.lock();
    --filling;
    slot.ready = true;
    filled.notify_all();
  }
}

void Loader::State::fill(std::uint64_t sequence, Slot& slot, std::byte* scratch) const {
  const auto m = static_cast<std::uint64_t>(options.micro_batch);
  const std::uint64_t round = sequence / static_cast<std::uint64_t>(batches);
  const std::uint64_t micro = sequence % static_cast<std::uint64_t>(batches);
  Batch& batch = slot.batch;
  batch.micro = static_cast<std::int64_t>(micro);
  auto* positions = batch.positions.as<std::uint64_t>();
  std::uint64_t valid = m;
  if (training) {
    batch.step = round;
    const std::uint64_t first =
        round * static_cast<std::uint64_t>(options.global_batch) +
        (static_cast<std::uint64_t>(options.rank) * static_cast<std::uint64_t>(batches) + micro) * m;
    stream.indices(first, slot.indices);
    for (std::uint64_t i = 0; i < m; ++i) positions[i] = first + i;
  } else {
    batch.step = 0;
    const std::uint64_t first = std::min(end, begin + micro * m);
    valid = std::min(m, end - first);
    for (std::uint64_t i = 0; i < m; ++i) slot.indices[i] = positions[i] = i < valid ? first + i : Batch::no_sample;
  }
  batch.valid = static_cast<std::int64_t>(valid);

  if (options.carry != Carry::floats) fill_raw(valid, slot);
  const bool floats = options.carry == Carry::floats;
  const std::size_t elements = converter.elements();
  auto* sample = batch.sample.as<float>();
  auto* weight = batch.weight.as<float>();
  for (std::uint64_t i = 0; i < valid; ++i) {
    const std::uint64_t index = slot.indices[i];
    if (floats) {
      const std::byte* stored = data.sample(index, scratch);
      float* to = sample + i * elements;
      const std::int64_t bad = augmenter ? (*augmenter)(stored, positions[i], to) : converter(stored, to);
      if (bad >= 0) throw_not_finite(index, stored, bad);
    }
    if (data.target() == TargetUse::labels) batch.target.as<std::int32_t>()[i] = data.label(index);
    if (data.target() == TargetUse::values) {
      data.values(index, batch.target.as<float>() + i * static_cast<std::uint64_t>(data.target_width()));
    }
    weight[i] = 1;
  }
  if (valid < m) {
    if (floats) std::memset(sample + valid * elements, 0, (m - valid) * elements * sizeof(float));
    std::fill(weight + valid, weight + m, 0.0f);
    if (batch.target.data != nullptr) {
      const std::size_t row = batch.target.bytes() / m;
      std::memset(batch.target.as<std::byte>() + valid * row, 0, (m - valid) * row);
    }
  }
}

void Loader::State::throw_not_finite(std::uint64_t index, const std::byte* stored, std::int64_t element) const {
  const StoredType type = data.sample_type();
  const double value = stored_number(type, stored + static_cast<std::size_t>(element) * size_of(type));
  throw DataError(fmt::format("{}: value {} is {}; samples must be finite", data.where(index), element, value));
}

/// For a device to convert: bytes are finite whatever they are.
void Loader::State::fill_raw(std::uint64_t valid, Slot& slot) const {
  const auto m = static_cast<std::uint64_t>(options.micro_batch);
  auto* rows = reinterpret_cast<std::uint64_t*>(slot.raw + layout.rows);
  auto* draws = reinterpret_cast<ImageDraw*>(slot.raw + layout.draws);
  const auto* positions = slot.batch.positions.as<std::uint64_t>();
  for (std::uint64_t i = 0; i < m; ++i) {
    rows[i] = i >= valid ? ImageBatch::none : options.carry == Carry::rows ? slot.indices[i] : i;
    if (augmenter) draws[i] = i < valid ? image_draw(augmenter->draw(positions[i])) : ImageDraw{};
    if (options.carry != Carry::bytes || i >= valid) continue;
    std::byte* const to = slot.raw + layout.stored + i * data.sample_bytes();
    const std::byte* const from = data.sample(slot.indices[i], to);  // perhaps in memory of its own
    if (from != to) std::memcpy(to, from, data.sample_bytes());
  }
}

void check_augment(const Dataset& data, const Shape& input, const Normalize& normalize,
                   std::span<const Augmentation> list) {
  const Converter fits(data, input, normalize);
  if (!list.empty()) const Augmenter suits(data, input, normalize, list, 0);
}

std::unique_ptr<Loader> Loader::training(const Dataset& data, const LoaderOptions& options) {
  auto state = std::make_unique<State>(data, options, true);
  state->check();
  state->batches = options.global_batch / (options.micro_batch * options.ranks);
  state->make_slots();
  return start(std::move(state));
}

std::unique_ptr<Loader> Loader::evaluation(const Dataset& data, const LoaderOptions& options) {
  auto state = std::make_unique<State>(data, options, false);
  state->check();
  const auto n = data.count(), ranks = static_cast<std::uint64_t>(options.ranks);
  state->begin = part_begin(n, static_cast<std::uint64_t>(options.rank), ranks);
  state->end = part_begin(n, static_cast<std::uint64_t>(options.rank) + 1, ranks);
  const auto largest = static_cast<std::int64_t>((n + ranks - 1) / ranks);
  state->batches = (largest + options.micro_batch - 1) / options.micro_batch;
  state->make_slots();
  return start(std::move(state));
}

std::unique_ptr<Loader> Loader::start(std::unique_ptr<State> state) {
  // Made before the threads, so that it ends those that were started where one cannot be.
  std::unique_ptr<Loader> loader(new Loader(std::move(state)));
  try {
    loader->state_->start();
  } catch (const std::system_error& e) {
    throw DataError(
        fmt::format("cannot start {} threads that read data: {}; lower data.prefetch_threads, or raise the "
                    "limit of processes (ulimit -u)",
                    loader->state_->options.threads, e.code().message()));
  }
  return loader;
}

Loader::Loader(std::unique_ptr<State> state) : state_(std::move(state)) {}

Loader::~Loader() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->work.notify_all();
  for (auto& thread : state_->threads) thread.join();
}

std::int64_t Loader::batches() const noexcept {
  return state_->batches;
}

int Loader::most_held() const noexcept {
  return static_cast<int>(state_->slots.size()) - 1;
}

const Batch& Loader::next() {
  State& s = *state_;
  std::unique_lock lock(s.mutex);
  if (s.held + 1 > s.slots.size() - 1) throw BugError("loader: next() without release()");
  Slot& slot = s.slots[(s.consumed + s.held) % s.slots.size()];
  if (!slot.ready) {
    const auto begin = std::chrono::steady_clock::now();
    s.filled.wait(lock, [&slot] { return slot.ready; });
    s.waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  if (slot.failure) std::rethrow_exception(slot.failure);
  ++s.held;
  return slot.batch;
}

void Loader::release() {
  State& s = *state_;
  {
    const std::lock_guard lock(s.mutex);
    if (s.held == 0) throw BugError("loader: release() without next()");
    s.slots[s.consumed % s.slots.size()].ready = false;
    ++s.consumed;
    --s.held;
  }
  s.work.notify_one();
}

void Loader::seek(std::uint64_t step) {
  State& s = *state_;
  {
    std::unique_lock lock(s.mutex);
    if (s.held != 0) throw BugError("loader: seek() while a batch is held");
    // Threads may be writing into slots: no new work, then wait for them.
    s.to_fill = ~std::uint64_t{0};
    s.filled.wait(lock, [&s] { return s.filling == 0; });
    for (Slot& slot : s.slots) slot.ready = false;
    s.consumed = s.to_fill = step * static_cast<std::uint64_t>(s.batches);
  }
  s.work.notify_all();
}

double Loader::waited_seconds() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->waited;
}

}  // namespace dtrain::io
