// LeaderLink: what the first rank of each host tells rank 0 of its host once a second, over TCP and past MPI, which may
// be what hangs; so rank 0 can name ranks of other hosts, and both sides notice where the other one is gone.
// Owns its sockets. Opened on the main thread at start and then used by the watchdog's thread alone; no call blocks.
// Anybody may connect, or answer: both sides prove the run's secret (proof.hpp) before the other one believes a word,
// and strangers cost a bounded number of descriptors, bytes and reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/watch/blame.hpp"
#include "comm/watch/proof.hpp"

namespace dtrain::comm {

/// How a link stands. `ended`: the other process has closed it, or its system says that it is gone; `cut`: nothing that
/// was sent is acknowledged.
enum class LinkState : std::uint8_t { never, up, ended, cut };

struct LinkTimes {
  double send_seconds = 1;         // between two messages
  double silent_seconds = 3;       // without a message from a process that is there
  double unanswered_seconds = 10;  // until a link counts as cut, by its acknowledgements
  double stranger_seconds = 5;     // for the other side to prove itself
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

  /// Listens at these of this host's addresses alone. `hosts`: the others, by name. Throws CommError.
  LeaderServer(const std::vector<std::string>& hosts, const std::vector<std::string>& addresses, const LinkTimes& = {});
  ~LeaderServer();
  LeaderServer(const LeaderServer&) = delete;
  LeaderServer& operator=(const LeaderServer&) = delete;

  /// What leaders need to connect: a secret, addresses and ports. Not for strangers' eyes.
  const std::string& address() const noexcept { return address_; }
  /// Takes in what has come, by one read a connection. `now`: seconds of any steady clock.
  void look(double now);
  const std::vector<Host>& hosts() const noexcept { return hosts_; }

 private:
  struct Connection;
  void admit(int listening, double now);
  void receive(Connection&, double now);
  bool believe(Connection&);
  bool take(const Connection&, double now);
  void lose(Connection&, LinkState, const std::string& why, double now);

  LinkTimes times_;
  std::vector<int> listening_;
  Secret secret_;
  std::string address_;
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
  enum class Stage : std::uint8_t { connecting, greeting, proving, talking };
  void connect_next(double now);
  void finish_connecting(double now);
  void receive(std::size_t ranks, double now);
  void lose(int error, double now);
  void close_socket() noexcept;

  LinkTimes times_;
  std::string host_;
  Secret secret_;
  std::vector<std::string> addresses_;  // "10.1.2.3:4567"
  std::size_t next_ = 0;
  int socket_ = -1;
  Stage stage_ = Stage::connecting;
  LinkState state_ = LinkState::never;
  std::string why_;
  double tried_ = -1e9, sent_ = -1e9, heard_ = 0, lost_ = 0;
  std::vector<std::byte> in_, said_;  // what is read now, and what is to be proved
  std::size_t have_ = 0;
  std::vector<std::byte> out_;  // not sent yet
};

}  // namespace dtrain::comm
