#include "comm/blame.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

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

std::string place(const RankNote& n) {
  return fmt::format("phase '{}' of step {}", n.phase.data(), n.step);
}

std::string name(const RankNote& n, const std::string& host) {
  return fmt::format("rank {} (host {}, pid {})", n.rank, host, n.pid);
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
  if (Indices stopped = select(ranks, [](const RankSight& r) { return r.watched() && r.stopped; }); !stopped.empty())
    return stopped;
  const Indices all = select(ranks, [](const RankSight& r) { return !r.dead && !r.note.ends(); });
  if (all.size() < 2) return {};
  // As a distance: the counts wrap around.
  const std::uint32_t base = ranks[all[0]].note.entered;
  Indices out =
      lowest(ranks, all, [base](const RankSight& r) { return static_cast<std::int32_t>(r.note.entered - base); });
  if (out.empty()) out = lowest(ranks, all, [](const RankSight& r) { return r.note.waits(); });
  if (out.empty()) out = lowest(ranks, all, [](const RankSight& r) { return r.note.step; });
  return out;
}

std::string death_text(std::span<const RankSight> ranks, const std::string& host) {
  const Indices dead = select(ranks, [](const RankSight& r) { return r.dead && !r.note.ends(); });
  return sentences(dead,
                   [&](std::size_t i) {
                     return fmt::format("{} died in {}", name(ranks[i].note, host), place(ranks[i].note));
                   }) +
         "; it was killed (by the kernel for want of memory, say) or crashed; run the same command again to resume "
         "from the last checkpoint";
}

std::string stall_text(std::span<const RankSight> ranks, const std::string& host, bool elsewhere) {
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
        watched.size() == 1 ? name(first.note, host) : fmt::format("the {} ranks of host {}", watched.size(), host),
        longest, place(first.note), watched.size() == 1 ? "it waits" : "all wait", first.note.entered,
        elsewhere ? "so a rank of another host or the network is lost or stuck" : "so the exchange itself is stuck");
  }
  if (behind.empty()) behind = watched;
  std::string text = sentences(behind, [&](std::size_t i) {
    return fmt::format("{} {}made no progress for {:.0f} s in {}", name(ranks[i].note, host),
                       ranks[i].stopped ? "is stopped (SIGSTOP or a debugger) and " : "", idle(i),
                       place(ranks[i].note));
  });
  std::size_t others = 0;
  for (std::size_t i : waiting) others += std::find(behind.begin(), behind.end(), i) == behind.end() ? 1 : 0;
  if (others > 0)
    text += fmt::format("; {} {} for {}", others, others == 1 ? "rank waits" : "ranks wait",
                        behind.size() == 1 ? "it" : "them");
  return text;
}

std::string rank_table(std::span<const RankSight> ranks) {
  std::string text;
  for (const RankSight& r : ranks) {
    const RankNote& n = r.note;
    const char* const state = r.dead                          ? "dead"
                              : n.state == RankState::leaving ? "leaving"
                              : n.state == RankState::failed  ? "failed"
                              : r.stopped                     ? "stopped"
                              : n.state == RankState::paused  ? "paused"
                              : n.waits()                     ? "waiting"
                                                              : "busy";
    fmt::format_to(std::back_inserter(text), "  rank {:<5} pid {:<8} {:<8} {} (exchange {}) for {:.0f} s\n", n.rank,
                   n.pid, state, place(n), n.entered, r.idle);
  }
  return text;
}

}  // namespace dtrain::comm
