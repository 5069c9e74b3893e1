#include "launch/report/tracing.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "launch/base/text.hpp"
#include "runtime/config/version.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t most_spans = std::size_t{1} << 20;  // 40 MiB; a longer timeline no viewer shows

std::size_t room_for(const TraceConfig& config, std::size_t buckets, std::int64_t accumulation) {
  if (config.steps == 0) return 0;
  // Step and update, data and two passes a micro batch, three spans a bucket; now and then a save or an evaluation.
  const double a_step = 4 + 3 * static_cast<double>(accumulation) + 3 * static_cast<double>(buckets);
  return static_cast<std::size_t>(std::min(a_step * static_cast<double>(config.steps), double{most_spans}));
}

bool of_bucket_row(const Span& s) {
  return s.activity == Activity::queued || s.activity == Activity::sum;
}

struct Close {
  void operator()(std::FILE* f) const noexcept { (void)std::fclose(f); }  // it was flushed, or given up
};

/// The events of one rank, each on a line that begins with a comma.
class RankEvents {
 public:
  RankEvents(int rank, const std::string& host, double origin, const ClockOffset& offset)
      : rank_(rank), host_(host), shift_(offset.seconds - origin) {}

  std::string text(std::vector<Span> spans, const FlatLayout& layout) {
    // Enclosing spans first.
    std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
      return std::pair(a.begin, -a.end) < std::pair(b.begin, -b.end);
    });
    meta("process_name", 0, {{"name", fmt::format("rank {} ({})", rank_, host_)}});
    meta("process_sort_index", 0, {{"sort_index", rank_}});
    meta("thread_name", 0, {{"name", "phases"}});
    for (std::size_t b = 0; b < layout.buckets.size(); ++b) {
      const std::string size = bytes_text(static_cast<double>(layout.buckets[b].bytes()));
      meta("thread_name", b + 1, {{"name", fmt::format("bucket {} ({})", b, size)}});
      meta("thread_sort_index", b + 1, {{"sort_index", b + 1}});
    }
    for (const Span& span : spans) add(span);
    return std::move(out_);
  }

 private:
  void put(const Json& event) { out_ += ",\n" + event.dump(); }
  void meta(const char* name, std::size_t row, Json args) {
    put({{"name", name}, {"ph", "M"}, {"pid", rank_}, {"tid", row}, {"args", std::move(args)}});
  }
  void add(const Span& span) {
    const int row = of_bucket_row(span) ? span.bucket + 1 : 0;
    Json args{{"step", span.step}};
    if (span.bucket >= 0) args["bucket"] = span.bucket;
    const double begin = microseconds(span.begin), end = microseconds(span.end);
    if (span.activity == Activity::queued)
      put({{"name", "ready"}, {"ph", "i"}, {"s", "t"}, {"pid", rank_}, {"tid", row}, {"ts", begin}, {"args", args}});
    put({{"name", name_of(span.activity)},
         {"ph", "X"},
         {"pid", rank_},
         {"tid", row},
         {"ts", begin},
         {"dur", std::max(0.0, std::round((end - begin) * 1e3) / 1e3)},
         {"args", args}});
  }
  /// On the timeline, to the nanosecond: whole ones, so that ends of enclosed spans do not stick out by rounding.
  double microseconds(double seconds) const { return std::round((seconds + shift_) * 1e9) / 1e3; }

  int rank_;
  const std::string& host_;
  double shift_;  // from this rank's clock to the timeline
  std::string out_;
};

/// What a rank sends: its offset, how many spans its ring lost, and the spans.
struct Header {
  ClockOffset offset;
  double device_clock_error = 0;
  std::uint64_t dropped = 0;
};

std::vector<std::byte> pack(const Header& header, const std::vector<Span>& spans) {
  std::vector<std::byte> out(sizeof header + spans.size() * sizeof(Span));
  std::memcpy(out.data(), &header, sizeof header);
  if (!spans.empty()) std::memcpy(out.data() + sizeof header, spans.data(), spans.size() * sizeof(Span));
  return out;
}

std::pair<Header, std::vector<Span>> unpack(const std::vector<std::byte>& bytes) {
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<Span> spans((bytes.size() - sizeof header) / sizeof(Span));
  if (!spans.empty()) std::memcpy(spans.data(), bytes.data() + sizeof header, spans.size() * sizeof(Span));
  return {header, std::move(spans)};
}

}  // namespace

Tracing::Tracing(const TraceConfig& config, std::string directory, const FlatLayout& layout, std::int64_t accumulation,
                 const comm::World& world, Group& group)
    : config_(config),
      path_(std::move(directory) + "/trace.json"),
      layout_(layout),
      world_(world),
      group_(group),
      trace_(room_for(config, layout.buckets.size(), accumulation)),
      open_(config.steps > 0) {}

Trace* Tracing::at(std::int64_t step) noexcept {
  return open_ && step >= config_.first_step && step - config_.first_step < config_.steps ? &trace_ : nullptr;
}

void Tracing::note(Activity activity, Clock::time_point begin, std::int64_t step) noexcept {
  if (Trace* const trace = at(step))
    trace->add({.begin = seconds_of(begin), .end = seconds_of(Clock::now()), .step = step, .activity = activity});
}

std::string Tracing::write_if_done(std::int64_t next, std::optional<double> device_clock) {
  return done_before(next) ? write(device_clock) : "";
}

std::string Tracing::write(std::optional<double> device_clock) {
  if (!std::exchange(open_, false)) return {};
  const std::vector<Span> spans = trace_.spans();
  // Measured now, beside what it is used for: clocks drift.
  const ClockOffset offset = measure_clock(group_, [] { return seconds_of(Clock::now()); });
  double first = std::numeric_limits<double>::infinity();
  for (const Span& s : spans) first = std::min(first, s.begin + offset.seconds);
  const std::vector<double> all = group_.all_values(first);
  const double origin = *std::min_element(all.begin(), all.end());
  if (origin == std::numeric_limits<double>::infinity()) return {};  // the run began after the window
  return write_events(origin, offset, device_clock);
}

std::string Tracing::write_events(double origin, const ClockOffset& offset, std::optional<double> device_clock) {
  const bool main = world_.rank() == 0;
  const std::string temporary = path_ + ".tmp";
  std::unique_ptr<std::FILE, Close> file;
  bool written = true;
  const auto put = [&](const std::string& text) {
    if (main && written) written = file && std::fwrite(text.data(), 1, text.size(), file.get()) == text.size();
  };
  if (main) {
    (void)std::remove(temporary.c_str());  // whatever it is
    file.reset(std::fopen(temporary.c_str(), "we"));
  }
  Json ranks = Json::array();
  put(R"({"displayTimeUnit":"ms","traceEvents":[)");
  // One rank after another, so that rank 0 never holds more than one of them.
  for (int rank = 0; rank < world_.size(); ++rank) {
    std::vector<std::byte> bytes;
    if (rank == world_.rank()) bytes = pack({offset, device_clock.value_or(0), trace_.dropped()}, trace_.spans());
    group_.broadcast(bytes, rank);
    if (!main) continue;
    auto [header, spans] = unpack(bytes);
    const std::string& host = world_.hosts()[static_cast<std::size_t>(rank)];
    const std::string events = RankEvents(rank, host, origin, header.offset).text(std::move(spans), layout_);
    put(rank == 0 ? events.substr(1) : events);
    ranks.push_back({{"rank", rank},
                     {"host", host},
                     {"clock_offset_seconds", header.offset.seconds},
                     {"clock_error_seconds", header.offset.error},
                     {"spans_dropped", header.dropped}});
    if (device_clock) ranks.back()["device_clock_error_seconds"] = header.device_clock_error;
  }
  Json other{
      {"dtrain", version()},
      {"first_step", config_.first_step},
      {"steps", config_.steps},
      {"times", device_clock ? "of the devices, by events on their streams, on the hosts' clock" : "of the hosts"},
      {"ranks", ranks}};
  // An event in a replayed step would be recorded again before it was read.
  if (device_clock) other["replayed"] = false;
  put("\n],\"otherData\":" + other.dump() + "}\n");
  if (!main) return {};
  // A timeline that cannot be written must not end a run that computes.
  if (!written || std::fflush(file.get()) != 0 || std::rename(temporary.c_str(), path_.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    (void)std::remove(temporary.c_str());
    return fmt::format("warning: {}: cannot write the timeline: {}; training goes on", path_, why);
  }
  return fmt::format("timeline of steps {} to {} in {}", config_.first_step, config_.first_step + config_.steps - 1,
                     path_);
}

}  // namespace dtrain::launch
