#include "comm/watch/blame.hpp"

#include <cstring>

#include <gtest/gtest.h>

namespace dtrain::comm {
namespace {

using Indices = std::vector<std::size_t>;

RankSight rank_at(int rank, const char* phase, std::uint64_t step, std::uint32_t entered, std::uint32_t left,
                  double idle = 61) {
  RankSight s;
  s.host = "a";
  s.note.rank = rank;
  s.note.pid = 100 + rank;
  s.note.state = RankState::running;
  s.note.step = step;
  s.note.entered = entered;
  s.note.left = left;
  s.idle = idle;
  std::strncpy(s.note.phase.data(), phase, RankNote::phase_room);
  return s;
}

TEST(Blame, finds_the_rank_that_has_not_come_to_the_exchange) {
  const RankSight ranks[] = {rank_at(0, "update", 17, 35, 34), rank_at(1, "forward", 17, 34, 34),
                             rank_at(2, "update", 17, 35, 34)};
  EXPECT_EQ(ranks_behind(ranks), Indices{1});
  EXPECT_EQ(stall_text(ranks, false),
            "rank 1 (host a, pid 101) made no progress for 61 s in phase 'forward' of step 17; 2 ranks wait for it");
}

TEST(Blame, counts_wrap_around) {
  const RankSight ranks[] = {rank_at(0, "update", 17, 0xffffffffu, 0xffffffffu), rank_at(1, "update", 17, 1, 0)};
  EXPECT_EQ(ranks_behind(ranks), Indices{0});
}

TEST(Blame, finds_a_stopped_rank_before_all_others) {
  RankSight ranks[] = {rank_at(0, "update", 17, 34, 33), rank_at(1, "update", 17, 35, 34)};
  ranks[1].stopped = true;
  EXPECT_EQ(ranks_behind(ranks), Indices{1});
  EXPECT_EQ(stall_text(ranks, false),
            "rank 1 (host a, pid 101) is stopped (SIGSTOP or a debugger) and made no progress for 61 s in phase "
            "'update' of step 17; 1 rank waits for it");
}

TEST(Blame, without_exchanges_the_lowest_step_is_behind) {
  const RankSight ranks[] = {rank_at(0, "step", 5, 0, 0), rank_at(1, "step", 4, 0, 0)};
  EXPECT_EQ(ranks_behind(ranks), Indices{1});
}

TEST(Blame, names_nobody_of_this_host_where_all_wait_in_the_same_exchange) {
  const RankSight ranks[] = {rank_at(0, "update", 17, 35, 34), rank_at(1, "update", 17, 35, 34)};
  EXPECT_TRUE(ranks_behind(ranks).empty());
  EXPECT_EQ(stall_text(ranks, true),
            "the 2 ranks of host a made no progress for 61 s in phase 'update' of step 17: all wait in exchange 35, so "
            "a rank of another host or the network is lost or stuck");
}

TEST(Blame, a_rank_that_ends_is_not_behind) {
  RankSight ranks[] = {rank_at(0, "save", 17, 35, 35), rank_at(1, "save", 17, 36, 35)};
  ranks[0].note.state = RankState::leaving;
  EXPECT_TRUE(ranks_behind(ranks).empty());
}

TEST(Blame, a_death_names_rank_host_pid_phase_and_step_and_what_to_do) {
  RankSight ranks[] = {rank_at(0, "update", 17, 35, 34), rank_at(1, "data", 17, 34, 34),
                       rank_at(2, "data", 18, 34, 34)};
  ranks[1].dead = ranks[2].dead = true;
  EXPECT_EQ(
      death_text(ranks),
      "rank 1 (host a, pid 101) died in phase 'data' of step 17; rank 2 (host a, pid 102) died in phase 'data' of "
      "step 18; it was killed (by the kernel for want of memory, say) or crashed; run the same command again to "
      "resume from the last checkpoint");
}

TEST(Blame, the_table_has_a_line_a_rank) {
  RankSight ranks[] = {rank_at(0, "update", 17, 35, 34), rank_at(1, "data", 17, 34, 34)};
  ranks[1].stopped = true;
  EXPECT_EQ(rank_table(ranks),
            "  rank 0     a  pid 100      waiting  phase 'update' of step 17 (exchange 35) for 61 s\n"
            "  rank 1     a  pid 101      stopped  phase 'data' of step 17 (exchange 34) for 61 s\n");
}

DeviceNote device_at(std::uint64_t step, int bucket, const char* state = "", std::uint64_t sequence = 0) {
  DeviceNote d;
  d.asynchronous = true;
  d.step = step;
  d.bucket = bucket;
  d.sequence = sequence;
  std::strncpy(d.state.data(), state, DeviceNote::state_room);
  return d;
}

TEST(Blame, where_all_hosts_wait_the_device_that_has_begun_the_fewest_sums_is_behind) {
  RankSight ranks[] = {rank_at(0, "results", 17, 35, 34), rank_at(1, "results", 17, 35, 34),
                       rank_at(2, "results", 17, 35, 34)};
  ranks[0].note.device = device_at(17, 2);
  ranks[1].note.device = device_at(17, 1);
  ranks[2].note.device = device_at(17, 2);
  EXPECT_EQ(ranks_behind(ranks), Indices{1});
  EXPECT_EQ(stall_text(ranks, false),
            "rank 1 (host a, pid 101) made no progress for 61 s in phase 'results' of step 17 (device at step 17, "
            "bucket 1); 2 ranks wait for it");
  ranks[1].note.device = device_at(16, 4);
  EXPECT_EQ(ranks_behind(ranks), Indices{1});
  ranks[1].note.device = device_at(17, 2);
  EXPECT_TRUE(ranks_behind(ranks).empty());
}

TEST(Blame, the_table_names_hosts_devices_and_what_their_library_says) {
  RankSight ranks[] = {rank_at(3, "results", 17, 35, 34), rank_at(1, "data", 19, 34, 34)};
  ranks[0].host = "node-12";
  ranks[0].silent = true;
  ranks[0].note.device = device_at(17, 2, "NCCL: remote error", 51);
  ranks[1].note.device = device_at(17, 1);
  ranks[1].note.device.asynchronous = false;
  EXPECT_EQ(rank_table(ranks),
            "  rank 1     a        pid 101      busy     phase 'data' of step 19 (exchange 34) for 61 s; sums at step "
            "17, bucket 1\n"
            "  rank 3     node-12  pid 103      silent   phase 'results' of step 17 (exchange 35) for 61 s; device at "
            "step 17, bucket 2, collective 51; NCCL: remote error\n");
  EXPECT_EQ(ranks_text(ranks), "ranks 1 and 3");
  const RankSight many[] = {rank_at(5, "", 0, 0, 0), rank_at(2, "", 0, 0, 0), rank_at(4, "", 0, 0, 0),
                            rank_at(3, "", 0, 0, 0), rank_at(9, "", 0, 0, 0)};
  EXPECT_EQ(ranks_text(many), "ranks 2 to 5 and 9");
}

TEST(Blame, a_rank_of_a_host_that_sends_nothing_is_behind) {
  RankSight ranks[] = {rank_at(0, "update", 17, 35, 34), rank_at(1, "update", 17, 35, 34)};
  ranks[1].host = "b";
  ranks[1].silent = true;
  EXPECT_EQ(stall_text(ranks, false),
            "rank 1 (host b, pid 101) has sent nothing (it is stopped, or its link is cut) and made no progress for 61 "
            "s in phase 'update' of step 17; 1 rank waits for it");
}

}  // namespace
}  // namespace dtrain::comm
