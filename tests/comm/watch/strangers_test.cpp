// Strangers at rank 0's port, and behind the port that a leader takes for rank 0's.
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/watch/leader_link.hpp"
#include "comm/watch/watchdog.hpp"
#include "tests/comm/watch/heard.hpp"

namespace dtrain::comm {
namespace {

using test::Heard;
using test::wait_until;

const std::vector<std::string> loopback{"127.0.0.1"};
constexpr LinkTimes quick{
    .send_seconds = 0.02, .silent_seconds = 0.3, .unanswered_seconds = 2, .stranger_seconds = 0.4};
// A greeting, a header, a proof and a message about one rank, of leader_link.cpp.
constexpr std::size_t greeting_bytes = 20, header_bytes = 312, proof_bytes = 32, message_bytes = sizeof(RankNote) + 16;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<RankSight> one_rank() {
  RankSight s;
  s.note.rank = 1;
  s.note.state = RankState::running;
  return {s};
}

sockaddr_in address(const char* host, int port) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, host, &a.sin_addr);
  return a;
}

/// A non-blocking socket of the test.
class Socket {
 public:
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  /// Connected to a server of this process, from an address of loopback.
  static Socket to(int port, const char* from = "127.0.0.1") {
    Socket s(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const sockaddr_in own = address(from, 0), other = address("127.0.0.1", port);
    EXPECT_EQ(bind(s.descriptor_, reinterpret_cast<const sockaddr*>(&own), sizeof own), 0);
    (void)connect(s.descriptor_, reinterpret_cast<const sockaddr*>(&other), sizeof other);
    return s;
  }
  Socket(Socket&& s) noexcept : descriptor_(std::exchange(s.descriptor_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }
  /// Bytes that the system has taken; as many as it takes.
  std::size_t put(const std::string& bytes) const {
    const ssize_t n = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    return n < 0 ? 0 : static_cast<std::size_t>(n);
  }
  /// What is there; nothing where the other side has closed it, as ended() says.
  std::string take() {
    char buffer[4096];
    const ssize_t n = recv(descriptor_, buffer, sizeof buffer, 0);
    ended_ = ended_ || n == 0 || (n < 0 && errno != EAGAIN && errno != ENOTCONN);
    return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
  }
  bool ended() const { return ended_; }

 private:
  int descriptor_;
  bool ended_ = false;
};

int port_of(const std::string& address) {
  return std::stoi(address.substr(address.rfind(':') + 1));
}

/// What a leader would be told of another port.
std::string with_port(const std::string& address, int port) {
  return address.substr(0, address.rfind(':') + 1) + std::to_string(port);
}

std::size_t descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

std::size_t resident_kib() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (word == "VmRSS:") {
      std::size_t kib = 0;
      file >> kib;
      return kib;
    }
  return 0;
}

/// Rank 0's side, for the one other host "b".
struct Strangers : ::testing::Test {
  LeaderServer server{{"b"}, loopback, quick};
  int port = port_of(server.address());

  bool links(LeaderClient& client) {
    return wait_until([&] {
      client.look(one_rank(), now());
      server.look(now());
      return server.hosts()[0].link == LinkState::up && client.alive(now());
    });
  }
  /// Looks until the server has ended this connection.
  bool sends_away(Socket& stranger) {
    return wait_until([&] {
      server.look(now());
      (void)stranger.take();
      return stranger.ended();
    });
  }
};

TEST_F(Strangers, a_flood_of_connections_takes_few_descriptors_and_keeps_no_leader_away) {
  const std::size_t before = descriptors();
  std::vector<Socket> flood;
  for (int i = 0; i < 400; ++i) {
    flood.push_back(Socket::to(port, "127.0.0.2"));
    server.look(now());
    ASSERT_LE(descriptors(), before + flood.size() + 9) << "hosts + 8";
  }
  for (int i = 0; i < 20; ++i) server.look(now());
  EXPECT_GE(descriptors(), before + flood.size() + 1) << "some were let in";
  // They still have time to prove themselves; a leader from another address need not wait for that.
  LeaderClient client(server.address(), "b", quick);
  ASSERT_TRUE(links(client));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  ASSERT_TRUE(links(client));
  flood.clear();
  server.look(now());
  EXPECT_LE(descriptors(), before + 2) << "the link alone";
}

TEST_F(Strangers, nobody_has_longer_than_the_limit_to_prove_himself) {
  Socket silent = Socket::to(port), slow = Socket::to(port);
  const double begin = now();
  ASSERT_TRUE(wait_until([&] {
    (void)slow.put("x");  // a header, byte by byte
    server.look(now());
    (void)slow.take();
    (void)silent.take();
    return silent.ended() && slow.ended();
  }));
  EXPECT_GE(now() - begin, 0.3);
  EXPECT_LT(now() - begin, 5);
}

TEST_F(Strangers, garbage_is_sent_away_after_one_header_and_not_answered) {
  Socket stranger = Socket::to(port);
  std::string heard;
  ASSERT_TRUE(wait_until([&] {
    server.look(now());
    heard += stranger.take();
    return heard.size() >= greeting_bytes;
  }));
  EXPECT_EQ(stranger.put(std::string(header_bytes, 'z')), header_bytes);
  ASSERT_TRUE(sends_away(stranger));
  EXPECT_EQ(heard.size(), greeting_bytes);
  EXPECT_EQ(server.hosts()[0].link, LinkState::never);
}

TEST_F(Strangers, a_sender_that_never_stops_costs_one_read_a_turn_and_no_memory) {
  const std::size_t before = resident_kib();
  std::atomic<bool> ended = false;
  std::atomic<std::size_t> sent = 0;
  std::thread sender([&] {
    const std::string block(1 << 16, 'z');
    while (!ended) {
      Socket stranger = Socket::to(port);
      for (int i = 0; i < 2000 && !ended; ++i) sent += stranger.put(block);
    }
  });
  ASSERT_TRUE(wait_until([&] {
    server.look(now());
    return sent > 20u << 20;
  }));
  ended = true;
  sender.join();
  EXPECT_LT(resident_kib(), before + (8u << 10));
  LeaderClient client(server.address(), "b", quick);
  EXPECT_TRUE(links(client));
}

TEST_F(Strangers, whoever_does_not_know_the_secret_is_sent_away) {
  std::string told = server.address();
  told[0] = told[0] == '0' ? '1' : '0';
  LeaderClient stranger(told, "b", quick);
  for (int i = 0; i < 40; ++i) {
    stranger.look(one_rank(), now());
    server.look(now());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(stranger.state(), LinkState::never);
  EXPECT_EQ(server.hosts()[0].link, LinkState::never);
  EXPECT_TRUE(server.hosts()[0].ranks.empty());
  LeaderClient other(server.address(), "nobody of the run", quick);
  for (int i = 0; i < 40; ++i) {
    other.look(one_rank(), now());
    server.look(now());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(other.state(), LinkState::never);
}

/// Somebody who listens at a port of his own, which a leader takes for rank 0's.
struct Listener {
  Socket listening{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  int port = 0;
  std::optional<Socket> leader;

  Listener() {
    sockaddr_in at = address("127.0.0.1", 0);
    socklen_t size = sizeof at;
    EXPECT_EQ(bind(listening.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(listen(listening.get(), 8), 0);
    EXPECT_EQ(getsockname(listening.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    port = ntohs(at.sin_port);
  }
  void look() {
    if (leader) return;
    const int accepted = accept4(listening.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted >= 0) leader.emplace(accepted);
  }
};

/// Somebody through whom a leader reaches rank 0, and who keeps what he has heard.
struct Between {
  explicit Between(Strangers& r) : run(r) {}
  Strangers& run;
  Listener listener;
  LeaderClient client{with_port(run.server.address(), listener.port), "b", quick};
  Socket onward = Socket::to(run.port);
  std::string of_leader = {}, of_server = {};

  bool links() {
    return wait_until([&] {
      client.look(one_rank(), now());
      listener.look();
      if (listener.leader) {
        const std::string up = listener.leader->take();
        of_leader += up;
        if (!up.empty()) (void)onward.put(up);
        const std::string down = onward.take();
        of_server += down;
        if (!down.empty()) (void)listener.leader->put(down);
      }
      run.server.look(now());
      return client.alive(now()) && run.server.hosts()[0].link == LinkState::up;
    });
  }
};

TEST_F(Strangers, who_listens_between_the_two_sees_no_secret_and_cannot_use_what_he_has_seen_again) {
  Between between(*this);
  ASSERT_TRUE(between.links());
  ASSERT_GE(between.of_leader.size(), header_bytes);
  std::string secret;
  for (std::size_t i = 0; i < 32; i += 2)
    secret += static_cast<char>(std::stoi(server.address().substr(i, 2), nullptr, 16));
  for (const std::string& seen : {between.of_leader, between.of_server}) {
    EXPECT_EQ(seen.find(secret), std::string::npos);
    EXPECT_EQ(seen.find(server.address().substr(0, 32)), std::string::npos);
  }
  Socket again = Socket::to(port);
  EXPECT_EQ(again.put(between.of_leader.substr(0, header_bytes)), header_bytes);
  ASSERT_TRUE(sends_away(again));
  EXPECT_EQ(server.hosts()[0].link, LinkState::up) << "the link goes on";
}

TEST_F(Strangers, messages_without_an_end_behind_a_proof_cost_one_read_a_turn_and_no_memory) {
  Between between(*this);
  ASSERT_TRUE(between.links());
  const std::string message = between.of_leader.substr(header_bytes, message_bytes);
  ASSERT_EQ(message.size(), message_bytes);
  std::string block;
  for (int i = 0; i < 200; ++i) block += message;
  const std::size_t before = resident_kib();
  std::size_t sent = 0;
  for (int i = 0; i < 2000; ++i) {
    if (sent % message_bytes == 0) sent += between.onward.put(block);
    server.look(now());
  }
  EXPECT_GT(sent, 100u << 10);
  EXPECT_EQ(server.hosts()[0].link, LinkState::up);
  EXPECT_EQ(server.hosts()[0].ranks.size(), 1u);
  EXPECT_LT(resident_kib(), before + (8u << 10));
}

TEST_F(Strangers, a_message_that_is_none_ends_the_link) {
  Between between(*this);
  ASSERT_TRUE(between.links());
  EXPECT_EQ(between.onward.put(std::string(message_bytes, 'z')), message_bytes);
  ASSERT_TRUE(sends_away(between.onward));
  EXPECT_EQ(server.hosts()[0].link, LinkState::ended);
  EXPECT_EQ(server.hosts()[0].why, "it speaks another language");
}

TEST_F(Strangers, a_leader_tells_nothing_to_who_cannot_prove_that_he_is_rank_0) {
  Listener stranger;
  LeaderClient client(with_port(server.address(), stranger.port), "b", quick);
  std::string heard;
  const auto hears = [&](std::size_t bytes) {
    return wait_until([&] {
      client.look(one_rank(), now());
      stranger.look();
      if (stranger.leader) heard += stranger.leader->take();
      return stranger.leader && (heard.size() >= bytes || stranger.leader->ended());
    });
  };
  std::string greeting;
  Socket real = Socket::to(port);
  ASSERT_TRUE(wait_until([&] {
    server.look(now());
    greeting += real.take();
    return greeting.size() >= greeting_bytes;
  }));
  ASSERT_TRUE(hears(0));
  EXPECT_EQ(stranger.leader->put(greeting), greeting_bytes);
  ASSERT_TRUE(hears(header_bytes));
  ASSERT_EQ(heard.size(), header_bytes);
  // Its own proof, sent back.
  EXPECT_EQ(stranger.leader->put(heard.substr(header_bytes - proof_bytes)), proof_bytes);
  ASSERT_TRUE(hears(header_bytes + 1));
  EXPECT_TRUE(stranger.leader->ended());
  EXPECT_EQ(heard.size(), header_bytes) << "no word of the ranks";
  EXPECT_EQ(client.state(), LinkState::never);
}

TEST_F(Strangers, a_leader_that_comes_again_takes_the_place_of_its_old_link) {
  auto old = std::make_unique<LeaderClient>(server.address(), "b", quick);
  ASSERT_TRUE(links(*old));
  LeaderClient client(server.address(), "b", quick);
  ASSERT_TRUE(links(client));
  old.reset();
  for (int i = 0; i < 20; ++i) {
    client.look(one_rank(), now());
    server.look(now());
  }
  EXPECT_EQ(server.hosts()[0].link, LinkState::up);
}

TEST(StrangersAtARun, training_goes_on_under_a_flood_and_rank_0_still_hears_of_the_other_host) {
  Heard first_heard, second_heard;
  const auto a = make_lone_board(0, "a"), b = make_lone_board(1, "b");
  const auto options = [](Heard& heard) {
    Watchdog::Options o = heard.options(1, 0.5);
    o.ranks = 2;
    o.links = quick;
    o.links.stranger_seconds = 2;  // a watchdog looks four times a second
    return o;
  };
  Watchdog first(*a, options(first_heard)), second(*b, options(second_heard));
  const std::string told = first.listen({"b"}, loopback);
  second.connect(told);
  std::atomic<bool> ended = false;
  std::thread flood([&] {
    const std::string block(1 << 14, 'z');
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));  // the two have met, as at a run's start
    while (!ended) {
      std::vector<Socket> sockets;
      for (int i = 0; i < 100; ++i) {
        sockets.push_back(Socket::to(port_of(told), "127.0.0.2"));
        (void)sockets.back().put(block);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  });
  const double begin = now();
  for (std::uint64_t step = 1; now() - begin < 2.5; ++step) {
    first.beat("update", step);
    second.beat("update", step);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(first_heard.errors().empty() && second_heard.errors().empty());
  second.beat("data", 9999);  // and stands still there, while the other one waits
  first.beat("results", 9999);
  a->enter_exchange();
  EXPECT_TRUE(wait_until([&] { return !first_heard.errors().empty(); }));
  ended = true;
  flood.join();
  ASSERT_FALSE(first_heard.errors().empty());
  EXPECT_EQ(first_heard.errors()[0].find("rank 1 (host b, pid "), 0u) << first_heard.errors()[0];
}

}  // namespace
}  // namespace dtrain::comm
