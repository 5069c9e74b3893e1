// Who holds up the others, and the sentences that say so. Pure functions over what a watching rank sees of its host,
// and rank 0 of the other hosts. Called by the watchdog's thread, where something is wrong.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "comm/watch/host_board.hpp"

namespace dtrain::comm {

/// A rank as another one sees it.
struct RankSight {
  RankNote note;
  std::string host = {};
  bool dead = false;
  bool stopped = false;
  bool silent = false;  // the first rank of another host, which has sent nothing for some seconds
  double idle = 0;      // seconds without any progress; 0 where none is expected

  bool watched() const noexcept { return !dead && note.state == RankState::running; }
};

/// Indices of the ranks that the others wait for: the stopped or silent ones, or those that are behind in the sequence
/// of exchanges, or busy while all others wait in an exchange, or whose devices are behind in the sequence of sums, or
/// behind in steps. None where all are equal.
std::vector<std::size_t> ranks_behind(std::span<const RankSight>);

/// "rank 1 (host a, pid 123) died in phase 'update' of step 17; ...".
std::string death_text(std::span<const RankSight>);

/// "rank 1 (host a, pid 123) is stopped (SIGSTOP or a debugger) and has made no progress for 9 s in phase ...; 3 ranks
/// wait for it". `elsewhere`: there are ranks on other hosts, of which nothing is known here.
std::string stall_text(std::span<const RankSight>, bool elsewhere);

/// "ranks 2, 3 and 5 to 8"
std::string ranks_text(std::span<const RankSight>);

/// One indented line a rank: host, phase, step, number of the exchange, where the device is and what the library of its
/// sums says.
std::string rank_table(std::span<const RankSight>);

}  // namespace dtrain::comm
