#include "io/dataset/loader.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "io/dataset/port_fillers.hpp"
#include "io/dataset/stream.hpp"
#include "runtime/device/host_buffer.hpp"
#include "runtime/device/weight_sum.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// What the ring's entries are made of; addresses stay for the Loader's life.
struct Slot {
  Batch batch;
  std::vector<std::byte> memory;
  HostBuffer pinned;  // in place of it, where a device wants that
  std::vector<std::uint64_t> indices;
  std::vector<std::uint64_t> weights;  // of Batch::next_weights
  std::vector<std::uint64_t> hashes;   // of Batch::hashes
  std::exception_ptr failure;
  bool ready = false;
};

/// Memory of one thread.
struct Scratch {
  FillScratch fill;
  RowHash hash;
  std::vector<std::uint64_t> counts;  // of a micro batch, in loss_weights()
  // Of a micro batch whose weights are counted, and of one of its samples the ports that say what it weighs.
  std::vector<std::uint64_t> indices;
  std::vector<std::vector<std::byte>> values;
  std::vector<bool> filled;
};

/// Units of a weight of nearly 2^31, at which sums stop: two of them still fit into one.
constexpr std::uint64_t most_units = (std::uint64_t{1} << 63) - 1;
std::uint64_t added(std::uint64_t sum, std::uint64_t units) {
  return std::min(sum + std::min(units, most_units), most_units);
}

ImageDraw image_draw(const Augmenter::Draw& d) {
  return {d.map(), d.color, d.recolored() ? 1u : 0u, d.exact() ? 1u : 0u};
}

std::size_t bytes_of(Carry carry, const Dataset& data, const PortOptions& port, std::int64_t batch, bool augmented) {
  return raw_layout(carry, data.port(static_cast<std::size_t>(port.source)).row_bytes, batch, augmented).bytes;
}

}  // namespace

struct Loader::State {
  State(const Dataset& set, const LoaderOptions& o, bool train)
      : data(set),
        options(o),
        training(train),
        micro_batch(o.layout.batch),
        of_rank({o.global_batch, o.warmup}, o.layout.batch, o.rank, o.ranks),
        fillers(set, options.layout, options.ports, o.mix, o.seed, train),
        stream(set.count(), o.seed, train && o.shuffle, set.blocks(), o.order) {}

  const Dataset& data;
  const LoaderOptions options;
  const bool training;
  const std::int64_t micro_batch;
  const RankBatches of_rank;  // training
  const PortFillers fillers;
  const SampleStream stream;
  std::int64_t batches = 1;          // of the largest step, or of a pass
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
  Scratch make_scratch() const;
  void start();
  void run(Scratch&);
  std::uint64_t batches_before(std::uint64_t step) const {
    return training ? of_rank.before(step) : step * static_cast<std::uint64_t>(batches);
  }
  void fill(std::uint64_t sequence, Slot&, Scratch&) const;
  std::uint64_t index_at(std::uint64_t position) const;
  float counted_weight(std::uint64_t index, std::uint64_t position, Scratch&) const;
  void fill_raw(std::size_t port, std::uint64_t valid, Slot&) const;
  void count_weights(std::uint64_t step, std::uint64_t micro, std::span<std::uint64_t> sums, Scratch&) const;
  const std::byte* counted_value(int port, std::uint64_t index, std::uint64_t position, Scratch&) const;
  std::uint64_t sample_weight(const LossCount&, std::uint64_t index, std::uint64_t position, Scratch&) const;
};

void Loader::State::check() const {
  const auto& o = options;
  if (micro_batch < 1 || o.ranks < 1 || o.rank < 0 || o.rank >= o.ranks) throw BugError("loader: rank or micro batch");
  for (const BatchSchedule::Stage& stage : of_rank.schedule().stages())
    if (training && (stage.batch < 1 || stage.batch % (micro_batch * o.ranks) != 0))
      throw ConfigError(fmt::format("batch.global {} is not a multiple of batch.micro {} x {} ranks", stage.batch,
                                    micro_batch, o.ranks));
  for (std::size_t i = 0; i < o.ports.size(); ++i) {
    const BatchLayout::Port& port = o.layout.ports[i];
    if (port.converted != (o.ports[i].carry != Carry::floats)) throw BugError("loader: how a port travels");
    if (!port.converted) continue;
    if (o.hash_rows && o.ports[i].carry == Carry::rows) throw BugError("loader: a hash of rows that are not read");
    if (o.ports[i].follow >= 0) throw BugError("loader: only the host lets a port follow another");
    if (bytes_of(o.ports[i].carry, data, o.ports[i], micro_batch, fillers.augmenter(i) != nullptr) != port.raw_bytes)
      throw BugError("loader: bytes of what travels in place of a port");
  }
}

Scratch Loader::State::make_scratch() const {
  Scratch scratch;
  fillers.reserve(scratch.fill);
  scratch.hash.done.resize(data.ports().size());
  if (options.counts.empty()) return scratch;
  scratch.counts.resize(options.counts.size());
  scratch.indices.resize(static_cast<std::size_t>(micro_batch));
  scratch.filled.resize(fillers.size());
  scratch.values.resize(fillers.size());
  const auto reserve = [&](int port) {
    if (port < 0) return;
    const auto i = static_cast<std::size_t>(port);
    scratch.values[i].resize(fillers[i].bytes());
  };
  for (const LossCount& count : options.counts) {
    reserve(count.target);
    reserve(count.weight);
    if (count.weight >= 0) reserve(options.ports[static_cast<std::size_t>(count.weight)].target);
  }
  return scratch;
}

void Loader::State::make_slots() {
  const std::size_t bytes = options.layout.carried_bytes();
  slots.resize(static_cast<std::size_t>(std::max(2, options.ring)));
  for (Slot& slot : slots) {
    std::size_t space = bytes + BatchLayout::alignment;
    void* at = nullptr;
    if (options.device != nullptr && options.device->asynchronous()) {
      slot.pinned = HostBuffer(*options.device, space);
      at = slot.pinned.data();
      std::memset(at, 0, space);
    } else {
      slot.memory.resize(space);
      at = slot.memory.data();
    }
    slot.indices.resize(static_cast<std::size_t>(micro_batch));
    slot.weights.resize(options.counts.size());
    if (options.hash_rows) slot.hashes.resize(static_cast<std::size_t>(micro_batch));
    auto* const memory = static_cast<std::byte*>(std::align(BatchLayout::alignment, bytes, at, space));
    slot.batch.memory = {memory, bytes};
    for (std::size_t i = 0; i < options.layout.ports.size(); ++i)
      slot.batch.ports.push_back(options.layout.value(i, memory));
    slot.batch.positions = options.layout.positions_in(memory);
    slot.batch.indices = slot.indices;
    slot.batch.hashes = slot.hashes;
  }
}

void Loader::State::start() {
  for (int i = 0; i < std::max(1, options.threads); ++i)
    threads.emplace_back([this, scratch = make_scratch()]() mutable { run(scratch); });
}

void Loader::State::run(Scratch& scratch) {
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
      fill(sequence, slot, scratch);
    } catch (...) {
      slot.failure = std::current_exception();
    }
    lock.lock();
    --filling;
    slot.ready = true;
    filled.notify_all();
  }
}

void Loader::State::fill(std::uint64_t sequence, Slot& slot, Scratch& scratch) const {
  const auto m = static_cast<std::uint64_t>(micro_batch);
  const std::uint64_t round = training ? of_rank.step_of(sequence) : sequence / static_cast<std::uint64_t>(batches);
  const std::uint64_t micro = sequence - batches_before(round);
  Batch& batch = slot.batch;
  batch.micro = static_cast<std::int64_t>(micro);
  auto* positions = batch.positions.as<std::uint64_t>();
  std::uint64_t valid = m;
  if (training) {
    batch.step = round;
    const std::uint64_t first = of_rank.first_position(round, micro);
    stream.indices(first, slot.indices);
    for (std::uint64_t i = 0; i < m; ++i) positions[i] = first + i;
  } else {
    batch.step = 0;
    const std::uint64_t first = std::min(end, begin + micro * m);
    valid = std::min(m, end - first);
    for (std::uint64_t i = 0; i < m; ++i) slot.indices[i] = positions[i] = i < valid ? first + i : Batch::no_sample;
  }
  batch.valid = static_cast<std::int64_t>(valid);
  batch.next_weights = {};

  std::fill(slot.hashes.begin(), slot.hashes.end(), 0);
  for (std::size_t port = 0; port < fillers.size(); ++port)
    if (options.ports[port].carry != Carry::floats) fill_raw(port, valid, slot);
  scratch.fill.hash = options.hash_rows ? &scratch.hash : nullptr;
  for (std::uint64_t i = 0; i < valid; ++i) {
    scratch.hash.begin();
    fillers.fill(slot.indices[i], positions[i], scratch.fill, batch.ports, i);
    if (options.hash_rows) slot.hashes[i] += scratch.hash.sum;
  }
  scratch.fill.hash = nullptr;
  if (fillers.mixer() != nullptr) {
    const std::uint64_t partner = of_rank.before_in_step(round, positions[0]);
    fillers.mix({positions, m}, index_at(partner), partner, scratch.fill, batch.ports);
  } else {
    fillers.repeat_labels(valid, batch.ports);
  }
  for (std::uint64_t i = valid; i < m; ++i) fillers.pad(batch.ports, i);
  if (!training || options.counts.empty()) return;
  // Each micro batch counts a share of the next step's: threads divide that as they divide the filling.
  std::fill(slot.weights.begin(), slot.weights.end(), 0);
  for (std::uint64_t next = micro; next < of_rank.of(round + 1); next += of_rank.of(round))
    count_weights(round + 1, next, slot.weights, scratch);
  batch.next_weights = slot.weights;
}

std::uint64_t Loader::State::index_at(std::uint64_t position) const {
  std::uint64_t index = 0;
  stream.indices(position, {&index, 1});
  return index;
}

/// For a device to convert: bytes are finite whatever they are.
void Loader::State::fill_raw(std::size_t port, std::uint64_t valid, Slot& slot) const {
  const PortOptions& how = options.ports[port];
  const Augmenter* const augmenter = fillers.augmenter(port);
  const auto source = static_cast<std::size_t>(how.source);
  const std::size_t bytes = data.port(source).row_bytes;
  const RawLayout layout = raw_layout(how.carry, bytes, micro_batch, augmenter != nullptr);
  std::byte* const raw = options.layout.raw_in(port, slot.batch.memory.data());
  auto* rows = reinterpret_cast<std::uint64_t*>(raw + layout.rows);
  auto* draws = reinterpret_cast<ImageDraw*>(raw + layout.draws);
  const auto* positions = slot.batch.positions.as<std::uint64_t>();
  for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(micro_batch); ++i) {
    rows[i] = i >= valid ? ImageBatch::none : how.carry == Carry::rows ? slot.indices[i] : i;
    if (augmenter != nullptr) draws[i] = i < valid ? image_draw(augmenter->draw(positions[i])) : ImageDraw{};
    if (how.carry != Carry::bytes || i >= valid) continue;
    std::byte* const to = raw + layout.stored + i * bytes;
    const Dataset::Row row = data.row(source, slot.indices[i], to);  // perhaps in memory of its own
    if (row.data != to) std::memcpy(to, row.data, bytes);
    if (options.hash_rows) slot.hashes[i] += data.row_hash(source, slot.indices[i], row);
  }
}

/// Adds to the sums.
void Loader::State::count_weights(std::uint64_t step, std::uint64_t micro, std::span<std::uint64_t> sums,
                                  Scratch& scratch) const {
  const std::uint64_t first = of_rank.first_position(step, micro);
  stream.indices(first, scratch.indices);
  if (const Mixer* const mixer = fillers.mixer(); mixer != nullptr) {
    const std::uint64_t partner = of_rank.before_in_step(step, first);
    float before = counted_weight(index_at(partner), partner, scratch);
    for (std::size_t i = 0; i < scratch.indices.size(); ++i) {
      const float weight = counted_weight(scratch.indices[i], first + i, scratch), own = mixer->draw(first + i).own;
      for (const float part : {weight * own, before * (1 - own)}) sums[0] = added(sums[0], weight_units(part));
      before = weight;
    }
    return;
  }
  for (std::size_t i = 0; i < scratch.indices.size(); ++i) {
    std::fill(scratch.filled.begin(), scratch.filled.end(), false);
    for (std::size_t k = 0; k < sums.size(); ++k)
      sums[k] = added(sums[k], sample_weight(options.counts[k], scratch.indices[i], first + i, scratch));
  }
}

/// A target or weights of the sample that is counted, as a batch has them; made once for all losses.
const std::byte* Loader::State::counted_value(int port, std::uint64_t index, std::uint64_t position,
                                              Scratch& scratch) const {
  const auto i = static_cast<std::size_t>(port);
  std::byte* const value = scratch.values[i].data();
  if (scratch.filled[i]) return value;
  scratch.fill.held[i] = fillers[i].fill(index, position, scratch.fill, value);
  scratch.filled[i] = true;
  const WeightFiller* const weights = fillers.weights(i);
  const int target = options.ports[i].target;
  if (weights != nullptr && target >= 0) {
    const std::byte* const of_target = counted_value(target, index, position, scratch);
    weights->apply_target(index, of_target, scratch.fill.held[static_cast<std::size_t>(target)], value);
  }
  return value;
}

/// Of a sample that is mixed: the weights of its loss are one a sample, and 0 where its label is ignored.
float Loader::State::counted_weight(std::uint64_t index, std::uint64_t position, Scratch& scratch) const {
  std::fill(scratch.filled.begin(), scratch.filled.end(), false);
  float weight = 0;
  std::memcpy(&weight, counted_value(options.counts.at(0).weight, index, position, scratch), sizeof weight);
  return weight;
}

std::uint64_t Loader::State::sample_weight(const LossCount& count, std::uint64_t index, std::uint64_t position,
                                           Scratch& scratch) const {
  const float* weights = nullptr;
  std::int64_t given = 0;  // of them
  if (count.weight >= 0) {
    weights = reinterpret_cast<const float*>(counted_value(count.weight, index, position, scratch));
    given = fillers[static_cast<std::size_t>(count.weight)].positions();
  }
  const IndexFiller* const labels =
      count.target >= 0 ? fillers.labels(static_cast<std::size_t>(count.target)) : nullptr;
  const bool ignores = labels != nullptr && count.ignore;
  const std::int64_t positions =
      count.target >= 0 ? fillers[static_cast<std::size_t>(count.target)].positions() : given;
  std::uint64_t sum = 0;
  float last = 1;
  std::uint64_t units = weight_units(last);  // of `last`: neighbours often weigh alike
  const auto add = [&](std::int64_t p) {
    const float weight = weights == nullptr ? 1.0f : weights[given == positions ? p : 0];
    if (weight != last) {
      last = weight;
      units = weight_units(weight);
    }
    sum = added(sum, units);
  };
  if (ignores) {
    labels->visit(counted_value(count.target, index, position, scratch), [&](const auto* values) {
      for (std::int64_t p = 0; p < positions; ++p)
        if (static_cast<std::int64_t>(values[p]) != *count.ignore) add(p);
    });
  } else {
    for (std::int64_t p = 0; p < positions; ++p) add(p);
  }
  return sum;
}

void check_ports(const Dataset& data, const BatchLayout& layout, std::span<const PortOptions> ports) {
  const PortFillers suit(data, layout, ports, {}, 0, true);
}

std::unique_ptr<Loader> Loader::training(const Dataset& data, const LoaderOptions& options) {
  auto state = std::make_unique<State>(data, options, true);
  state->check();
  state->batches = options.global_batch / (state->micro_batch * options.ranks);
  state->make_slots();
  return start(std::move(state));
}

std::unique_ptr<Loader> Loader::evaluation(const Dataset& data, const LoaderOptions& options) {
  auto state = std::make_unique<State>(data, options, false);
  state->check();
  const auto n = data.count(), rank = static_cast<std::uint64_t>(options.rank),
             ranks = static_cast<std::uint64_t>(options.ranks), m = static_cast<std::uint64_t>(state->micro_batch);
  state->begin = part_begin(n, rank, ranks, m);
  state->end = part_begin(n, rank + 1, ranks, m);
  const std::uint64_t all = (n + m - 1) / m;
  state->batches = static_cast<std::int64_t>((all + ranks - 1) / ranks);
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
    s.consumed = s.to_fill = s.batches_before(step);
  }
  s.work.notify_all();
}

void Loader::add_weights(std::span<const std::uint64_t> of_micro_batch, std::span<std::uint64_t> sums) const {
  const std::vector<LossCount>& counts = state_->options.counts;
  if (of_micro_batch.size() != counts.size() || sums.size() != counts.size())
    throw BugError("loader: a batch does not say what the next step weighs");
  for (std::size_t k = 0; k < sums.size(); ++k) {
    sums[k] = added(sums[k], of_micro_batch[k]);
    if (sums[k] < most_units) continue;
    throw DataError(
        fmt::format("the weights of loss {} add up to more than 2^31 a step; divide them all by a number: only "
                    "their ratios matter",
                    counts[k].name.empty() ? std::to_string(k) : counts[k].name));
  }
}

std::vector<std::uint64_t> Loader::loss_weights(std::uint64_t step) const {
  std::vector<std::uint64_t> sums(state_->options.counts.size());
  Scratch scratch = state_->make_scratch();
  for (std::uint64_t micro = 0; micro < state_->of_rank.of(step); ++micro) {
    std::fill(scratch.counts.begin(), scratch.counts.end(), 0);
    state_->count_weights(step, micro, scratch.counts, scratch);
    add_weights(scratch.counts, sums);
  }
  return sums;
}

double Loader::waited_seconds() const noexcept {
  const std::lock_guard lock(state_->mutex);
  return state_->waited;
}

}  // namespace dtrain::io
