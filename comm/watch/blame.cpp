#include "comm/watch/blame.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "runtime/ranks/group.hpp"

namespace dtrain::comm {

namespace {

using Indices = std::vector<std::size_t>;

template <class Test>
Indices select(std::span<const RankSight> ranks, Test test) {
  Indices out;
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (test(ranks[i])) out.push_back(i);
  }
  return out;
}

/// The ranks with the lowest value, unless it is everyone's.
template <class Value>
Indices lowest(std::span<const RankSight> ranks, const Indices& among, Value value) {
  Indices out;
  for (std::size_t i : among) {
    if (!out.empty() && value(ranks[i]) < value(ranks[out[0]])) out.clear();
    if (out.empty() || value(ranks[i]) == value(ranks[out[0]])) out.push_back(i);
  }
  if (out.size() == among.size()) out.clear();
  return out;
}

/// Where the device is, as its sums tell: empty where it has begun none.
std::string device_place(const DeviceNote& d) {
  if (d.bucket < 0) return {};
  return fmt::format("{} at step {}, bucket {}", d.asynchronous ? "device" : "sums", d.step, d.bucket);
}

/// In a sentence that blames: the host may be ahead of its device.
std::string place(const RankNote& n) {
  const std::string text = fmt::format("phase '{}' of step {}", n.phase.data(), n.step);
  return n.device.bucket < 0 ? text : fmt::format("{} ({})", text, device_place(n.device));
}

std::string name(const RankSight& r) {
  return fmt::format("rank {} (host {}, pid {})", r.note.rank, r.host, r.note.pid);
}

bool one_host(std::span<const RankSight> ranks) {
  return std::all_of(ranks.begin(), ranks.end(), [&](const RankSight& r) { return r.host == ranks[0].host; });
}

/// One sentence for each of the first ones.
template <class Sentence>
std::string sentences(const Indices& which, Sentence sentence) {
  constexpr std::size_t named = 4;
  std::string text;
  for (std::size_t i = 0; i < std::min(which.size(), named); ++i) text += (i == 0 ? "" : "; ") + sentence(which[i]);
  if (which.size() > named) text += fmt::format("; and {} more ranks alike", which.size() - named);
  return text;
}

}  // namespace

Indices ranks_behind(std::span<const RankSight> ranks) {
  if (Indices stopped = select(ranks, [](const RankSight& r) { return r.watched() && (r.stopped || r.silent); });
      !stopped.empty())
    return stopped;
  const Indices all = select(ranks, [](const RankSight& r) { return !r.dead && !r.note.ends(); });
  if (all.size() < 2) return {};
  // As a distance: the counts wrap around.
  const std::uint32_t base = ranks[all[0]].note.entered;
  Indices out =
      lowest(ranks, all, [base](const RankSight& r) { return static_cast<std::int32_t>(r.note.entered - base); });
  if (out.empty()) out = lowest(ranks, all, [](const RankSight& r) { return r.note.waits(); });
  const bool devices = std::all_of(all.begin(), all.end(), [&](std::size_t i) {
    return ranks[i].note.device.asynchronous && ranks[i].note.device.bucket >= 0;
  });
  if (out.empty() && devices) {
    out = lowest(ranks, all, [](const RankSight& r) { return std::pair(r.note.device.step, r.note.device.bucket); });
  }
  if (out.empty()) out = lowest(ranks, all, [](const RankSight& r) { return r.note.step; });
  return out;
}

std::string death_text(std::span<const RankSight> ranks) {
  const Indices dead = select(ranks, [](const RankSight& r) { return r.dead && !r.note.ends(); });
  return sentences(dead,
                   [&](std::size_t i) { return fmt::format("{} died in {}", name(ranks[i]), place(ranks[i].note)); }) +
         "; it was killed (by the kernel for want of memory, say) or crashed; run the same command again to resume "
         "from the last checkpoint";
}

std::string stall_text(std::span<const RankSight> ranks, bool elsewhere) {
  Indices behind = ranks_behind(ranks);
  const Indices watched = select(ranks, [](const RankSight& r) { return r.watched(); });
  const Indices waiting = select(ranks, [](const RankSight& r) { return r.watched() && r.note.waits(); });
  const auto idle = [&](std::size_t i) { return ranks[i].idle; };
  if (behind.empty() && !waiting.empty() && waiting.size() == watched.size() && (elsewhere || watched.size() > 1)) {
    const RankSight& first = ranks[watched[0]];
    double longest = 0;
    for (std::size_t i : watched) longest = std::max(longest, idle(i));
    return fmt::format(
        "{} made no progress for {:.0f} s in {}: {} in exchange {}, {}",
        watched.size() == 1 ? name(first)
        : one_host(ranks)   ? fmt::format("the {} ranks of host {}", watched.size(), first.host)
                            : fmt::format("all {} ranks", watched.size()),
        longest, place(first.note), watched.size() == 1 ? "it waits" : "all wait", first.note.entered,
        elsewhere ? "so a rank of another host or the network is lost or stuck" : "so the exchange itself is stuck");
  }
  if (behind.empty()) behind = watched;
  std::string text = sentences(behind, [&](std::size_t i) {
    return fmt::format("{} {}made no progress for {:.0f} s in {}", name(ranks[i]),
                       ranks[i].stopped  ? "is stopped (SIGSTOP or a debugger) and "
                       : ranks[i].silent ? "has sent nothing (it is stopped, or its link is cut) and "
                                         : "",
                       idle(i), place(ranks[i].note));
  });
  std::size_t others = 0;
  for (std::size_t i : waiting) others += std::find(behind.begin(), behind.end(), i) == behind.end() ? 1 : 0;
  if (others > 0)
    text += fmt::format("; {} {} for {}", others, others == 1 ? "rank waits" : "ranks wait",
                        behind.size() == 1 ? "it" : "them");
  return text;
}

std::string ranks_text(std::span<const RankSight> ranks) {
  std::vector<int> numbers;
  for (const RankSight& r : ranks) numbers.push_back(r.note.rank);
  return dtrain::ranks_text(std::move(numbers));
}

std::string rank_table(std::span<const RankSight> ranks) {
  std::vector<const RankSight*> by_rank;
  std::size_t width = 0;
  for (const RankSight& r : ranks) {
    by_rank.push_back(&r);
    width = std::max(width, r.host.size());
  }
  std::sort(by_rank.begin(), by_rank.end(),
            [](const RankSight* a, const RankSight* b) { return a->note.rank < b->note.rank; });
  std::string text;
  for (const RankSight* const sight : by_rank) {
    const RankSight& r = *sight;
    const RankNote& n = r.note;
    const char* const state = r.dead                          ? "dead"
                              : n.state == RankState::leaving ? "leaving"
                              : n.state == RankState::failed  ? "failed"
                              : r.stopped                     ? "stopped"
                              : r.silent                      ? "silent"
                              : n.state == RankState::paused  ? "paused"
                              : n.waits()                     ? "waiting"
                                                              : "busy";
    fmt::format_to(std::back_inserter(text),
                   "  rank {:<5} {:<{}}  pid {:<8} {:<8} phase '{}' of step {} (exchange {}) for {:.0f} s", n.rank,
                   r.host, width, n.pid, state, n.phase.data(), n.step, n.entered, r.idle);
    if (n.device.bucket >= 0) text += "; " + device_place(n.device);
    if (n.device.sequence > 0) fmt::format_to(std::back_inserter(text), ", collective {}", n.device.sequence);
    if (n.device.state[0] != 0) fmt::format_to(std::back_inserter(text), "; {}", n.device.state.data());
    text += '\n';
  }
  return text;
}

}  // namespace dtrain::comm
