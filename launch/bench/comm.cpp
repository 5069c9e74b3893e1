#include "launch/bench/comm.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "comm/collective/communicator.hpp"
#include "launch/base/alone.hpp"
#include "launch/base/text.hpp"
#include "launch/place/bandwidth.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/plan/profile.hpp"
#include "launch/plan/statistics.hpp"
#include "runtime/device/device.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t probe_bytes = 64 * mib;  // of the memory's and the link's rate
constexpr std::size_t link_piece = mib / 4;
constexpr int link_window = 8;
constexpr double least_sample_seconds = 300e-6;  // short calls are timed by the dozen
constexpr std::size_t largest_size = std::size_t{8} << 30;

double seconds_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double now() {
  return seconds_of(CLOCK_MONOTONIC);
}

Tensor view(float* data, std::size_t n) {
  Tensor t;
  t.desc.shape = Shape{static_cast<std::int64_t>(n)};
  t.data = data;
  return t;
}

/// One way to sum.
struct Method {
  const char* name;
  bool on_device;  // enqueued there, and timed by its clock where that is not the host's
  std::function<void(float*, std::size_t)> run;
  std::vector<double> seconds = {}, processor = {};  // a call, of this rank
};

struct Row {
  std::size_t bytes = 0;
  Estimate plain, ours, copy;
  double processor = 0;
};

class CommBench {
 public:
  CommBench(comm::World& world, const CommBenchOptions& options, std::unique_ptr<Device> device)
      : world_(world), options_(options), group_(world.make_group()), device_(std::move(device)) {
    group_->agree([&] { read_sizes(); });
    if (!device_) device_ = choose_device();
    const std::set<std::string> hosts(world.hosts().begin(), world.hosts().end());
    hosts_ = static_cast<int>(hosts.size());
    plain_ = world.make_plain_communicator();
    comm::CommConfig sums;
    sums.algorithm = options.algorithm;
    sums.transport = options.transport;
    collective_ = world.make_collective(*device_, sums);
    stream_ = device_->make_stream(StreamUse::communication);
    begin_ = device_->make_timer();
    end_ = device_->make_timer();
    std::size_t most = probe_bytes;
    for (const std::size_t bytes : sizes_) most = std::max(most, bytes);
    group_->agree([&] {
      buffer_.resize(2 * std::max(most, probe_bytes) / sizeof(float));
      if (!device_->asynchronous()) return;
      device_buffer_ = Buffer(*device_, 2 * sizes_.back());
      device_->zero(device_buffer_.data(), device_buffer_.bytes(), *stream_);
      stream_->synchronize();
    });
  }

  BenchReport run() {
    measure_link();
    for (const std::size_t bytes : sizes_) measure(bytes);
    if (!options_.profile.empty())
      group_->agree([&] {
        if (world_.rank() == 0) note(options_.profile, profile());
      });
    return {text(), json()};
  }

 private:
  /// That training would take; one thread, where it is the cpu.
  std::unique_ptr<Device> choose_device() {
    RunConfig config;
    config.device = options_.device;
    config.threads = 1;
    DevicePlacement placement;
    auto device = placed_device(config, world_, *group_, placement);
    promise_ = promise_of(links_of(placement.places));
    return device;
  }

  void read_sizes() {
    if (world_.size() < 2)
      throw ConfigError("bench comm needs at least two ranks; start it as `mpirun -np 2 dtrain bench comm`");
    for (const std::string& text : options_.sizes) sizes_.push_back(parse_size(text, "--sizes"));
    if (sizes_.empty())
      for (std::size_t bytes = 4096; bytes <= 64 * mib; bytes *= 4) sizes_.push_back(bytes);
    std::sort(sizes_.begin(), sizes_.end());
    for (std::size_t& bytes : sizes_) bytes = std::max(bytes / sizeof(float), std::size_t{1}) * sizeof(float);
  }

  bool agreed_to_go_on(double begin, double budget) {
    return group_->any(world_.rank() == 0 && now() - begin < budget);  // clocks differ: rank 0 decides
  }

  /// The slowest rank's value of each run.
  std::vector<double> over_ranks(const std::vector<double>& mine, bool mean = false) {
    std::vector<double> out(mine.size(), 0);
    for (const auto& bytes : group_->all_gather(std::as_bytes(std::span(mine)))) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        double value = 0;
        std::memcpy(&value, bytes.data() + i * sizeof value, sizeof value);
        out[i] = mean ? out[i] + value / world_.size() : std::max(out[i], value);
      }
    }
    return out;
  }

  // ---- what memory and links could carry ----------------------------------------------------------------------------

  void measure_link() {
    if (hosts_ == 1) return;
    std::vector<double> seconds;
    across();  // connects
    const double begin = now();
    do {
      group_->barrier();
      seconds.push_back(across());
    } while (agreed_to_go_on(begin, options_.seconds));
    link_rate_ = static_cast<double>(probe_bytes) / median_of(over_ranks(seconds)).value;
  }

  /// Seconds in which the first ranks of the first two hosts send each other probe_bytes at once; 0 elsewhere.
  double across() {
    const auto& hosts = world_.hosts();
    const auto other = std::find_if(hosts.begin(), hosts.end(), [&](const auto& h) { return h != hosts[0]; });
    const int second = static_cast<int>(other - hosts.begin());
    if (world_.rank() != 0 && world_.rank() != second) return 0;
    if (!link_ready_) plain_->reserve(2 * link_window);
    link_ready_ = true;
    const int peer = world_.rank() == 0 ? second : 0;
    auto* const from = reinterpret_cast<std::byte*>(buffer_.data());
    return alone([&] {
      const double begin = now();
      // In pieces, some of them under way at once: a single long message waits for handshakes.
      for (std::size_t at = 0, i = 0; at < probe_bytes; at += link_piece, ++i) {
        const int slot = 2 * static_cast<int>(i % link_window);
        if (i >= link_window) plain_->wait(slot, 2);
        plain_->post_receive(slot, peer, 0, from + probe_bytes + at, link_piece);
        plain_->post_send(slot + 1, peer, 0, from + at, link_piece);
      }
      plain_->wait(0, 2 * link_window);
      return now() - begin;
    });
  }

  /// What bounds the bus bandwidth: what the links between the GPUs promise, where that is known; otherwise each byte
  /// of it is read by somebody's copy, or crosses a link.
  double bound(const Row& row) const {
    if (promise_) return promise_->bus_bytes_per_second;
    return hosts_ > 1 ? link_rate_ : static_cast<double>(row.bytes) / row.copy.value;
  }

  // ---- all-reduce
  // -----------------------------------------------------------------------------------------------------

  void check_sums(Method& method, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
      buffer_[i] = static_cast<float>((i + static_cast<std::size_t>(world_.rank())) % 17);
    alone([&] {
      if (method.on_device) put(n);
      method.run(data_of(method), n);
      if (method.on_device) get(n);
    });
    group_->agree([&] {
      for (std::size_t i = 0; i < n; ++i) {
        float sum = 0;
        for (int r = 0; r < world_.size(); ++r) sum += static_cast<float>((i + static_cast<std::size_t>(r)) % 17);
        if (buffer_[i] != sum)
          throw CommError(fmt::format("{}: element {} of {} is {}, not {}", method.name, i, n, buffer_[i], sum));
      }
    });
  }

  void measure(std::size_t bytes) {
    const std::size_t n = bytes / sizeof(float);
    const bool far = device_->asynchronous();
    Method methods[] = {
        {"plain MPI", false, [&](float* d, std::size_t k) { plain_->all_reduce(d, k, DType::f32, Reduce::sum); }},
        {"dtrain", true,
         [&](float* d, std::size_t k) {
           collective_->all_reduce(view(d, k), Reduce::sum, *stream_);
           if (!far) stream_->synchronize();
         }},
        {"memory", far,
         [&](float* d, std::size_t k) {
           if (far) {
             device_->copy(d + n, d, k * sizeof(float), *stream_);
           } else {
             std::memcpy(d + n, d, k * sizeof(float));
           }
         }},
    };
    for (std::size_t i = 0; i < 2; ++i) check_sums(methods[i], n);
    std::fill_n(buffer_.begin(), 2 * n, 0.0f);
    std::vector<double> once;
    for (int i = 0; i < 3; ++i) once.push_back(timed(methods[0], n, 1).first);
    const double shortest = median_of(over_ranks(once)).least;
    const int calls = std::clamp(static_cast<int>(least_sample_seconds / shortest), 1, 100);
    const double begin = now();
    do {
      for (Method& m : methods) {
        const auto [seconds, processor] = timed(m, n, calls);
        m.seconds.push_back(seconds);
        m.processor.push_back(processor);
      }
    } while (agreed_to_go_on(begin, options_.seconds) || methods[0].seconds.size() < 5);
    Row row{bytes, median_of(over_ranks(methods[0].seconds)), median_of(over_ranks(methods[1].seconds)),
            median_of(over_ranks(methods[2].seconds)), 0};
    row.processor = median_of(over_ranks(methods[1].processor, true)).value / row.ours.value;
    rows_.push_back(row);
  }

  /// Wall and processor seconds of a call.
  std::pair<double, double> timed(Method& m, std::size_t n, int calls) {
    group_->barrier();
    const double processor = seconds_of(CLOCK_PROCESS_CPUTIME_ID), begin = now();
    double of_device = 0;
    alone([&] {
      const bool timers = m.on_device && device_->asynchronous();
      if (timers) stream_->record(*begin_);
      for (int i = 0; i < calls; ++i) m.run(data_of(m), n);
      if (!timers) return;
      stream_->record(*end_);
      stream_->synchronize();
      collective_->check();
      of_device = end_->seconds_since(*begin_) / calls;
    });
    const double wall = (now() - begin) / calls;
    return {of_device > 0 ? of_device : wall, (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - processor) / calls};
  }

  // ---- memory that the method works on
  float* data_of(const Method& m) {
    return m.on_device && device_->asynchronous() ? static_cast<float*>(device_buffer_.data()) : buffer_.data();
  }
  void put(std::size_t n) { copy(device_buffer_.data(), buffer_.data(), n); }
  void get(std::size_t n) { copy(buffer_.data(), device_buffer_.data(), n); }
  void copy(void* to, const void* from, std::size_t n) {
    if (!device_->asynchronous()) return;
    device_->copy(to, from, n * sizeof(float), *stream_);
    stream_->synchronize();
  }

  // ---- the report
  // -----------------------------------------------------------------------------------------------------

  const char* bound_name() const { return promise_ ? "of the promise" : hosts_ > 1 ? "of the link" : "of memory"; }
  std::string algorithm() const { return options_.algorithm == comm::Algorithm::fixed_order ? "fixed_order" : "auto"; }
  double bus_factor() const { return 2.0 * (world_.size() - 1) / world_.size(); }
  double rate(const Row& row) const { return static_cast<double>(row.bytes) / row.ours.value; }

  CommProfile profile() const {
    CommProfile out{world_.size(), hosts_, algorithm(), {}};
    for (const Row& row : rows_) out.points.push_back({static_cast<double>(row.bytes), row.ours.value, row.processor});
    return out;
  }

  std::string text() const {
    const bool far = device_->asynchronous();
    std::string out = fmt::format("All-reduce of float32 over {} ranks on {} {}{}, algorithm {}; sums checked first\n",
                                  world_.size(), hosts_, hosts_ == 1 ? "host" : "hosts",
                                  far ? ", in the memory of " + device_->name() : "", algorithm());
    for (const auto& note : world_.notes()) out += note + "\n";
    if (hosts_ > 1)
      out += fmt::format("link: {:.3f} GB/s each way between two hosts, both ways at once\n", link_rate_ / 1e9);
    TextTable table({"size", "plain MPI, ms (95 %)", "dtrain, ms (95 %)", "ratio", "fastest", "GB/s", "bus GB/s",
                     bound_name(), "processor", "runs"});
    for (const Row& row : rows_)
      table.row({bytes_text(static_cast<double>(row.bytes)), text_of(row.plain, 1e3, 3), text_of(row.ours, 1e3, 3),
                 fmt::format("{:.2f}", row.plain.value / row.ours.value),
                 fmt::format("{:.2f}", row.plain.least / row.ours.least), fmt::format("{:.3f}", rate(row) / 1e9),
                 fmt::format("{:.3f}", rate(row) * bus_factor() / 1e9),
                 fmt::format("{:.0f} %", 100 * rate(row) * bus_factor() / bound(row)),
                 fmt::format("{:.0f} %", 100 * row.processor), std::to_string(row.ours.count)});
    out += "\n" + table.str();
    out +=
        "\nratio: plain MPI's time over dtrain's; fastest: of the fastest calls. bus GB/s: GB/s x 2(N-1)/N, what a "
        "ring moves through each rank.\n"
        "of memory: of a copy of that size, by all ranks at once. processor: a rank's processor time over the "
        "call's.\n";
    if (promise_)
      out += fmt::format("of the promise: of {}B/s, which {} carry.\n", quantity(promise_->bus_bytes_per_second),
                         promise_->what);
    if (far)
      out +=
          "Plain MPI sums in the hosts' memory; dtrain's sums and the copies are timed by events on the device's "
          "stream.\n";
    return out;
  }

  std::string json() const {
    Json rows = Json::array();
    for (const Row& row : rows_)
      rows.push_back({{"bytes", row.bytes},
                      {"plain_mpi_seconds", to_json(row.plain)},
                      {"seconds", to_json(row.ours)},
                      {"ratio", row.plain.value / row.ours.value},
                      {"ratio_of_fastest", row.plain.least / row.ours.least},
                      {"bytes_per_second", rate(row)},
                      {"bus_bytes_per_second", rate(row) * bus_factor()},
                      {"copy_seconds", to_json(row.copy)},
                      {"of_bound", rate(row) * bus_factor() / bound(row)},
                      {"processor", row.processor}});
    return Json{{"ranks", world_.size()},
                {"hosts", hosts_},
                {"device", device_->name()},
                {"algorithm", algorithm()},
                {"promised_bus_bytes_per_second", promise_ ? Json(promise_->bus_bytes_per_second) : Json()},
                {"link_bytes_per_second", hosts_ > 1 ? Json(link_rate_) : Json()},
                {"sizes", rows}}
               .dump(2) +
           "\n";
  }

  comm::World& world_;
  const CommBenchOptions& options_;
  std::unique_ptr<Group> group_;
  int hosts_ = 1;
  std::vector<std::size_t> sizes_;
  std::unique_ptr<Device> device_;  // outlives what was made for it
  std::unique_ptr<comm::Communicator> plain_;
  std::unique_ptr<Collective> collective_;
  std::vector<float> buffer_;
  Buffer device_buffer_;  // where the host's is out of reach
  std::unique_ptr<Event> begin_, end_;
  bool link_ready_ = false;
  double link_rate_ = 0;
  std::optional<LinkPromise> promise_;  // of the links between the ranks' GPUs
  std::vector<Row> rows_;
  std::unique_ptr<Stream> stream_;  // last: finishes what it was given before the rest goes
};

}  // namespace

std::size_t parse_size(const std::string& text, const std::string& option) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  std::uint64_t unit = 0;
  if (error == std::errc{} && end - at <= 1) {
    switch (at == end ? '\0' : *at) {
      case '\0':
        unit = 1;
        break;
      case 'k':
        unit = 1 << 10;
        break;
      case 'm':
        unit = mib;
        break;
      case 'g':
        unit = 1 << 30;
        break;
      default:
        break;
    }
  }
  if (unit == 0 || value == 0 || value > largest_size / unit)
    throw ConfigError(
        fmt::format("{}: \"{}\" is no size; expected bytes up to 8g, as in 4096, 64k, 25m, 1g", option, text));
  return value * unit;
}

BenchReport bench_comm(comm::World& world, const CommBenchOptions& options, std::unique_ptr<Device> device) {
  return CommBench(world, options, std::move(device)).run();
}

}  // namespace dtrain::launch
