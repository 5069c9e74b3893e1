#include "launch/plan/predict.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <fmt/format.h>

#include "launch/plan/bucket_choice.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr double forever = std::numeric_limits<double>::infinity();
constexpr double nothing = 1e-12;  // seconds: rounding of what is left

double lerp(double a, double b, double t) {
  return a + (b - a) * t;
}

/// A value of the points at `bytes`: straight in logarithms between them, at the rate of the last one above.
double at_size(const CommProfile& c, double bytes, double CommProfile::Point::*what, bool grows) {
  const auto& p = c.points;
  if (bytes <= p.front().bytes) return p.front().*what;
  if (bytes >= p.back().bytes) return p.back().*what * (grows ? bytes / p.back().bytes : 1);
  const auto above = std::find_if(p.begin(), p.end(), [&](const auto& q) { return q.bytes > bytes; });
  const auto& low = *(above - 1);
  const double t = std::log(bytes / low.bytes) / std::log(above->bytes / low.bytes);
  return std::exp(lerp(std::log(std::max(low.*what, 1e-9)), std::log(std::max((*above).*what, 1e-9)), t));
}

double distance(int a, int b) {
  return std::abs(std::log2(static_cast<double>(a) / b));
}

/// Parts of this micro batch, between or beyond those that were measured.
StepProfile at_micro(std::vector<StepProfile> parts, std::int64_t micro, std::vector<std::string>& notes) {
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.micro < b.micro; });
  for (const auto& p : parts)
    if (p.micro == micro) return p;
  StepProfile out = parts.back();
  const StepProfile *low = &parts.front(), *high = &parts.back();
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    if (micro > parts[i].micro || i == 0) low = &parts[i], high = &parts[i + 1];
  }
  notes.push_back(parts.size() == 1
                      ? fmt::format("a micro batch of {} was not measured: scaled from {}", micro, parts.front().micro)
                      : fmt::format("a micro batch of {} was not measured: a line through {} and {}", micro, low->micro,
                                    high->micro));
  const auto between = [&](double a, double b) {
    if (low == high) return a * static_cast<double>(micro) / static_cast<double>(low->micro);
    const double t = static_cast<double>(micro - low->micro) / static_cast<double>(high->micro - low->micro);
    return std::max(lerp(a, b, t), 0.0);
  };
  out.micro = micro;
  out.data = between(low->data, high->data);
  out.forward = between(low->forward, high->forward);
  out.backward = between(low->backward, high->backward);
  for (std::size_t b = 0; b < out.ready.size(); ++b) out.ready[b] = between(low->ready[b], high->ready[b]);
  return out;
}

StepProfile parts_of(const Profile& profile, const LoadedConfig& loaded, std::int64_t micro, int ranks_on_host,
                     std::vector<std::string>& notes) {
  const std::string work = work_hash(loaded);
  std::vector<StepProfile> usable;
  for (const auto& s : profile.steps)
    if (s.work == work && (loaded.config.threads <= 0 || s.threads == loaded.config.threads)) usable.push_back(s);
  if (usable.empty())
    throw ConfigError(fmt::format(
        "--profile: no step of this model, optimizer and number of threads was measured; do that with `dtrain bench "
        "step {} --profile FILE`",
        loaded.file));
  const auto nearest = std::min_element(usable.begin(), usable.end(), [&](const auto& a, const auto& b) {
    return distance(a.ranks_on_host, ranks_on_host) < distance(b.ranks_on_host, ranks_on_host);
  });
  const int found = nearest->ranks_on_host;
  if (found != ranks_on_host)
    notes.push_back(fmt::format("computation was measured with {} {} on a host, not {}", found,
                                found == 1 ? "rank" : "ranks", ranks_on_host));
  const std::vector<double> ends = nearest->ends;
  std::erase_if(usable, [&](const auto& s) { return s.ranks_on_host != found || s.ends != ends; });
  return at_micro(usable, micro, notes);
}

const CommProfile* comm_of(const Profile& profile, const std::string& algorithm, int ranks, int hosts) {
  const CommProfile* best = nullptr;
  const auto cost = [&](const CommProfile& c) {
    return ((c.hosts > 1) == (hosts > 1) ? 0.0 : 1000.0) + distance(c.ranks, ranks) + distance(c.hosts, hosts);
  };
  for (const auto& c : profile.comm)
    if (c.algorithm == algorithm && !c.points.empty() && (best == nullptr || cost(c) < cost(*best))) best = &c;
  return best;
}

/// How many ranks a host has, in the measurement that is nearest to so many ranks.
int measured_ranks_per_host(const Profile& profile, int ranks) {
  const CommProfile* best = nullptr;
  for (const auto& c : profile.comm) {
    const bool nearer = best == nullptr || distance(c.ranks, ranks) < distance(best->ranks, ranks) ||
                        (c.ranks == best->ranks && c.hosts > best->hosts);
    if (nearer) best = &c;
  }
  return best == nullptr ? ranks : std::max(1, best->ranks / best->hosts);
}

}  // namespace

SimulatedStep simulate(const StepModel& m) {
  const std::size_t buckets = m.ready.size();
  // The rank's own work in order: pieces of backward, each making a bucket ready, then updates, each behind a sum.
  std::size_t piece = 0, ready = 0, summed = 0, updated = 0;
  const auto piece_work = [&](std::size_t i) {
    if (i < buckets) return m.ready[i] - (i == 0 ? 0 : m.ready[i - 1]);
    return buckets == 0 ? m.backward : m.backward - m.ready.back();
  };
  double now = m.before, exposed = 0;
  double work = std::max(piece_work(0), 0.0), send = forever;
  const auto computing = [&] { return piece <= buckets; };
  const auto updating = [&] { return !computing() && updated < summed; };
  while (computing() || updated < buckets) {
    const bool busy = computing() || updating();
    const bool sending = summed < ready;
    if (sending && send == forever) send = m.sum[summed];
    double own_rate = 1, send_rate = 1;
    if (busy && sending && m.shares_processor) {
      const double want = std::clamp(m.processor[summed], 0.0, 1.0), taken = std::min(want, 0.5);
      own_rate = 1 - taken;
      send_rate = want > 0 ? taken / want : 1;
    }
    const double own_end = busy ? work / own_rate : forever, send_end = sending ? send / send_rate : forever;
    const double passed = std::min(own_end, send_end);
    now += passed;
    if (!busy) exposed += passed;
    if (busy) work -= passed * own_rate;
    if (sending) send -= passed * send_rate;
    if (busy && work <= nothing) {
      if (computing()) {
        if (piece < buckets) ready = piece + 1;
        ++piece;
      } else {
        ++updated;
      }
      work = computing() ? std::max(piece_work(piece), 0.0) : updated < buckets ? m.update[updated] : 0;
    }
    if (sending && send <= nothing) {
      ++summed;
      send = forever;
    }
  }
  return {now, exposed};
}

double all_reduce_seconds(const CommProfile& c, double bytes, int ranks) {
  if (ranks < 2) return 0;
  const double measured = at_size(c, bytes, &CommProfile::Point::seconds, true);
  const double latency = std::min(measured, c.points.front().seconds);
  const auto ring = [](int n) { return 2.0 * (n - 1) / n; };
  return latency * std::log2(ranks) / std::log2(c.ranks) + (measured - latency) * ring(ranks) / ring(c.ranks);
}

double all_reduce_processor(const CommProfile& c, double bytes) {
  return at_size(c, bytes, &CommProfile::Point::processor, false);
}

RankWork measured_work(const Profile& profile, const LoadedConfig& loaded, const BatchSplit& split, int ranks_on_host,
                       std::vector<std::string>& notes) {
  const StepProfile parts = parts_of(profile, loaded, split.micro, ranks_on_host, notes);
  RankWork work;
  const auto batches = static_cast<double>(split.accumulation);
  work.before = batches * (parts.data + parts.forward) + (batches - 1) * parts.backward;
  work.backward = parts.backward;
  work.update = parts.update;
  work.shares_processor = parts.cpus < parts.threads + 1;
  for (std::size_t b = 0; b < parts.ready.size(); ++b)
    work.complete.push_back({static_cast<std::size_t>(parts.ends[b]) / sizeof(float), parts.ready[b]});
  return work;
}

Prediction predict(const Profile& profile, const LoadedConfig& loaded, const std::vector<std::size_t>& bucket_bytes,
                   int ranks, int ranks_per_host) {
  Prediction out;
  out.ranks = ranks;
  if (ranks_per_host <= 0) ranks_per_host = measured_ranks_per_host(profile, ranks);
  out.hosts = (ranks + ranks_per_host - 1) / ranks_per_host;
  const BatchSplit split = check_batch(loaded, ranks);
  const RankWork work = measured_work(profile, loaded, split, std::min(ranks, ranks_per_host), out.notes);
  out.compute = work.before + work.backward + work.update;
  if (ranks == 1) {
    out.step = out.compute;
  } else {
    const std::string algorithm =
        loaded.config.communication.algorithm == comm::Algorithm::fixed_order ? "fixed_order" : "auto";
    const CommProfile* comm = comm_of(profile, algorithm, ranks, out.hosts);
    if (comm == nullptr)
      throw ConfigError(fmt::format(
          "--profile: no all-reduce with algorithm {} was measured; do that with `mpirun -np 2 dtrain bench comm{} "
          "--profile FILE`",
          algorithm, algorithm == "auto" ? "" : " --fixed-order"));
    if (comm->ranks != ranks || comm->hosts != out.hosts)
      out.notes.push_back(fmt::format("all-reduce was measured over {} ranks on {} {}, not {} on {}", comm->ranks,
                                      comm->hosts, comm->hosts == 1 ? "host" : "hosts", ranks, out.hosts));
    const double wire = static_cast<double>(size_of(loaded.config.communication.gradient_dtype)) / sizeof(float);
    if (wire < 1) out.notes.push_back("16-bit gradients: taken as float32 of half the size");
    if (loaded.config.optimizer.shard) out.notes.push_back("sharded optimizer: its gather is taken as part of the sum");
    std::vector<Bucket> buckets;
    for (const std::size_t bytes : bucket_bytes) {
      const std::size_t begin = buckets.empty() ? 0 : buckets.back().end;
      buckets.push_back({begin, begin + bytes / sizeof(float)});
    }
    const SimulatedStep step = simulate(step_model(work, buckets, sum_costs(*comm, ranks), wire));
    out.step = step.seconds;
    out.exposed = step.exposed;
  }
  out.samples_per_second = static_cast<double>(loaded.config.batch.global) / out.step;
  out.efficiency = out.compute / out.step;
  if (ranks == 1) {
    out.speedup = 1;
  } else {
    try {
      out.speedup = predict(profile, loaded, bucket_bytes, 1, 1).step / out.step;
    } catch (const ConfigError&) {  // one rank cannot hold the batch
    }
  }
  return out;
}

}  // namespace dtrain::launch
