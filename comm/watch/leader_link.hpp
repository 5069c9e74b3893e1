// LeaderLink: what the first rank of each host tells rank 0 of its host once a second, over TCP and past MPI, which may
// be what hangs; so rank 0 can name ranks of other hosts, and both sides notice where the other one is gone.
// Owns its sockets. Opened on the main thread at start and then used by the watchdog's thread alone; no call blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/watch/blame.hpp"

namespace dtrain::comm {

/// How a link stands. `ended`: the other process has closed it, or its system says that it is gone; `cut`: nothing that
/// was sent is acknowledged.
enum class LinkState : std::uint8_t { never, up, ended, cut };

struct LinkTimes {
  double send_seconds = 1;         // between two messages
  double silent_seconds = 3;       // without a message from a process that is there
  double unanswered_seconds = 10;  // until a link counts as cut, by its acknowledgements
};

/// On rank 0.
class LeaderServer {
 public:
  /// A host as its first rank told of it last.
  struct Host {
    std::string name;
    LinkState link = LinkState::never;
    std::string why;  // of ended and cut
    double heard = 0, lost = 0;
    std::vector<RankSight> ranks;  // idle counts on while nothing is heard; none before the first message
  };

  /// Listens. `hosts`: the others, by name. Throws CommError.
  explicit LeaderServer(const std::vector<std::string>& hosts, const LinkTimes& = {});
  ~LeaderServer();
  LeaderServer(const LeaderServer&) = delete;
  LeaderServer& operator=(const LeaderServer&) = delete;

  /// What leaders need to connect: ports, addresses and a secret.
  std::string address() const;
  /// Takes in what has come. `now`: seconds of any steady clock.
  void look(double now);
  const std::vector<Host>& hosts() const noexcept { return hosts_; }

 private:
  struct Connection;
  void receive(Connection&, double now);
  void take(Connection&, const std::byte* message, std::size_t bytes, double now);
  void lose(Connection&, LinkState, const std::string& why, double now);

  LinkTimes times_;
  int listening_ = -1;
  std::uint16_t port_ = 0;
  std::string secret_;
  std::vector<Host> hosts_;
  std::vector<std::unique_ptr<Connection>> connections_;
};

/// On the first rank of each other host.
class LeaderClient {
 public:
  /// `address`: of the server; `host`: this one.
  LeaderClient(const std::string& address, std::string host, const LinkTimes& = {});
  ~LeaderClient();
  LeaderClient(const LeaderClient&) = delete;
  LeaderClient& operator=(const LeaderClient&) = delete;

  /// Connects, again where it must, sends what is due, and takes in answers.
  void look(const std::vector<RankSight>&, double now);
  LinkState state() const noexcept { return state_; }
  const std::string& why() const noexcept { return why_; }
  /// Seconds since the link was lost; 0 while it is up or never was.
  double lost_for(double now) const noexcept {
    return state_ == LinkState::ended || state_ == LinkState::cut ? now - lost_ : 0;
  }
  /// Rank 0 has answered lately.
  bool alive(double now) const noexcept { return state_ == LinkState::up && now - heard_ < times_.silent_seconds; }

 private:
  void connect_next(double now);
  void lose(int error, double now);
  void close_socket() noexcept;

  LinkTimes times_;
  std::string host_, secret_;
  std::uint16_t port_ = 0;
  std::vector<std::string> addresses_;
  std::size_t next_ = 0;
  int socket_ = -1;
  bool connecting_ = false;
  LinkState state_ = LinkState::never;
  std::string why_;
  double tried_ = -1e9, sent_ = -1e9, heard_ = 0, lost_ = 0;
  std::vector<std::byte> out_;  // not sent yet
};

}  // namespace dtrain::comm
