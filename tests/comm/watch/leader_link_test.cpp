#include "comm/watch/leader_link.hpp"

#include <chrono>
#include <cstring>
#include <functional>
#include <optional>
#include <thread>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/watch/watchdog.hpp"
#include "tests/comm/watch/heard.hpp"

namespace dtrain::comm {
namespace {

using test::Heard;
using test::wait_until;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

const std::vector<std::string> loopback{"127.0.0.1"};

LinkTimes quick() {
  return {.send_seconds = 0.02, .silent_seconds = 0.3, .unanswered_seconds = 2};
}

RankSight sight(int rank, const char* phase) {
  RankSight s;
  s.note.rank = rank;
  s.note.state = RankState::running;
  s.note.step = 17;
  std::strncpy(s.note.phase.data(), phase, RankNote::phase_room);
  s.note.device.asynchronous = true;
  s.note.device.bucket = 2;
  s.note.device.step = 15;
  std::strncpy(s.note.device.state.data(), "NCCL: in progress", DeviceNote::state_room);
  return s;
}

TEST(LeaderLink, tells_rank_0_of_the_ranks_of_another_host) {
  LeaderServer server({"b", "c"}, loopback, quick());
  LeaderClient client(server.address(), "b", quick());
  std::vector<RankSight> ranks{sight(2, "results"), sight(3, "data")};
  ranks[1].stopped = true;
  ranks[1].idle = 7;
  const auto both = [&] {
    client.look(ranks, now());
    server.look(now());
  };
  ASSERT_TRUE(wait_until([&] {
    both();
    return server.hosts()[0].ranks.size() == 2 && client.alive(now());
  }));
  const auto& b = server.hosts()[0];
  EXPECT_EQ(b.link, LinkState::up);
  EXPECT_EQ(b.ranks[1].host, "b");
  EXPECT_EQ(b.ranks[1].note.rank, 3);
  EXPECT_STREQ(b.ranks[1].note.phase.data(), "data");
  EXPECT_EQ(b.ranks[1].note.step, 17u);
  EXPECT_EQ(b.ranks[1].note.device.bucket, 2);
  EXPECT_STREQ(b.ranks[1].note.device.state.data(), "NCCL: in progress");
  EXPECT_TRUE(b.ranks[1].stopped);
  EXPECT_EQ(b.ranks[1].idle, 7);
  EXPECT_EQ(server.hosts()[1].link, LinkState::never);
  // What it says next takes the place of what it said.
  ranks[1].note.step = 18;
  EXPECT_TRUE(wait_until([&] {
    both();
    return b.ranks[1].note.step == 18;
  }));
}

TEST(LeaderLink, a_leader_that_says_nothing_is_silent_and_what_was_idle_grows) {
  LeaderServer server({"b"}, loopback, quick());
  LeaderClient client(server.address(), "b", quick());
  const std::vector<RankSight> ranks{sight(1, "results")};
  ASSERT_TRUE(wait_until([&] {
    client.look(ranks, now());
    server.look(now());
    return !server.hosts()[0].ranks.empty();
  }));
  EXPECT_FALSE(server.hosts()[0].ranks[0].silent);
  std::this_thread::sleep_for(std::chrono::milliseconds(400));  // stopped: its system keeps the connection
  server.look(now());
  EXPECT_EQ(server.hosts()[0].link, LinkState::up);
  EXPECT_TRUE(server.hosts()[0].ranks[0].silent);
  EXPECT_GE(server.hosts()[0].ranks[0].idle, 0.3);
  ASSERT_TRUE(wait_until([&] {  // it goes on
    client.look(ranks, now());
    server.look(now());
    return !server.hosts()[0].ranks[0].silent;
  }));
  EXPECT_EQ(server.hosts()[0].ranks[0].idle, 0);
}

TEST(LeaderLink, each_side_notices_the_others_end_and_a_leader_may_come_again) {
  LeaderServer server({"b"}, loopback, quick());
  const std::vector<RankSight> ranks{sight(1, "results")};
  const auto meet = [&](LeaderClient& client) {
    return wait_until([&] {
      client.look(ranks, now());
      server.look(now());
      return server.hosts()[0].link == LinkState::up && client.alive(now());
    });
  };
  {
    LeaderClient client(server.address(), "b", quick());
    ASSERT_TRUE(meet(client));
  }
  ASSERT_TRUE(wait_until([&] {
    server.look(now());
    return server.hosts()[0].link == LinkState::ended;
  }));
  EXPECT_EQ(server.hosts()[0].why, "its process has ended");
  auto other = std::make_unique<LeaderServer>(std::vector<std::string>{"b"}, loopback, quick());
  LeaderClient client(other->address(), "b", quick());
  ASSERT_TRUE(wait_until([&] {
    client.look(ranks, now());
    other->look(now());
    return client.alive(now());
  }));
  other.reset();
  ASSERT_TRUE(wait_until([&] {
    client.look(ranks, now());
    return client.state() == LinkState::ended;
  }));
  EXPECT_GT(client.lost_for(now() + 1), 0.9);
  LeaderClient again(server.address(), "b", quick());
  EXPECT_TRUE(meet(again));
}

/// Two hosts of one rank each in this process.
struct TwoHosts {
  Heard here, there;
  std::unique_ptr<HostBoard> a = make_lone_board(0, "a"), b = make_lone_board(1, "b");
  std::optional<Watchdog> first, second;
  explicit TwoHosts(double timeout, double warn = 8) {
    const auto options = [&](Heard& heard) {
      Watchdog::Options o = heard.options(timeout, warn);
      o.ranks = 2;
      o.links = quick();
      return o;
    };
    first.emplace(*a, options(here));
    second.emplace(*b, options(there));
    second->connect(first->listen({"b"}, loopback));
  }
};

TEST(LeaderLink, rank_0_names_the_rank_of_another_host_with_the_table_of_all) {
  TwoHosts hosts(1.5, 0.5);
  struct Place final : DeviceWatch {
    DeviceNote look() noexcept override {
      DeviceNote n;
      n.asynchronous = true;
      n.step = 16;
      n.bucket = 3;
      return n;
    }
  } place;
  hosts.second->follow(&place);
  // Progress for as long as the two need to meet: what rank 0 does not know of host b it cannot say.
  for (int i = 0; i < 200; ++i) {
    hosts.first->beat("results", 17);
    hosts.second->beat("data", 17);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  hosts.a->enter_exchange();
  ASSERT_TRUE(wait_until([&] { return !hosts.here.errors().empty(); }));
  const std::string said = hosts.here.errors()[0];
  EXPECT_EQ(said.find("rank 1 (host b, pid "), 0u) << said;
  EXPECT_NE(said.find("in phase 'data' of step 17 (device at step 16, bucket 3); 1 rank waits for it"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("\n  rank 0     a  pid "), std::string::npos) << said;
  EXPECT_NE(said.find("\n  rank 1     b  pid "), std::string::npos) << said;
  ASSERT_FALSE(hosts.here.warnings().empty());
  EXPECT_EQ(hosts.here.warnings()[0].find("rank 1 (host b, pid "), 0u) << hosts.here.warnings()[0];
  hosts.second->follow(nullptr);
}

TEST(LeaderLink, a_lost_host_is_a_warning_while_there_is_progress_and_an_error_where_its_ranks_are_waited_for) {
  TwoHosts hosts(60, 30);
  hosts.first->beat("update", 3);
  hosts.second->beat("update", 3);
  std::this_thread::sleep_for(std::chrono::milliseconds(2000));  // some messages
  hosts.second.reset();                                          // without a word
  for (std::uint64_t step = 4; hosts.here.warnings().empty() && step < 2000; ++step) {
    hosts.first->beat("update", step);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_FALSE(hosts.here.warnings().empty());
  EXPECT_EQ(hosts.here.warnings()[0],
            "host b (rank 1) sends no more messages (its process has ended); training goes on as long as there is "
            "progress");
  EXPECT_TRUE(hosts.here.errors().empty());
  hosts.a->enter_exchange();
  ASSERT_TRUE(wait_until([&] { return !hosts.here.errors().empty(); }));
  EXPECT_EQ(hosts.here.errors()[0].find("host b (rank 1) sends no more messages (its process has ended); run the same"),
            0u)
      << hosts.here.errors()[0];
}

}  // namespace
}  // namespace dtrain::comm
