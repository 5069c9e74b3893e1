#include "comm/watch/leader_link.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

constexpr std::uint32_t magic = 0x64747262;
constexpr std::size_t host_room = 256;
constexpr std::uint32_t most_ranks = 4096;  // of a host
constexpr double connect_seconds = 2, try_again_seconds = 2;
// Who has not proved himself yet: the other hosts' first ranks, and so many more. As one address has no more than
// these, a stranger cannot keep the hosts away.
constexpr std::size_t more_strangers = 8;
// A turn, and in the system's queue until then: a flood of less leaves room there for a leader that comes again.
constexpr int most_admitted = 512;
constexpr std::string_view leader_role = "dtrain leader", server_role = "dtrain rank 0";

// The server greets, the leader answers with a header, the server with a Proof; then the leader sends a Sight a rank
// again and again, and the server a byte for each time. Both sides run the same program on machines of one kind: the
// ranks have agreed on that. Who could change the bytes of a connection on their way could do so with MPI's as well.
struct Greeting {
  std::uint32_t magic = 0;
  Nonce nonce{};
};
struct Introduction {
  std::uint32_t magic = 0, ranks = 0;
  Nonce nonce{};
  std::array<char, host_room> host{};
};
struct Header {
  Introduction who;
  Proof proof{};
};
struct Sight {
  RankNote note;
  std::uint8_t dead = 0, stopped = 0;
  double idle = 0;
};
static_assert(std::is_trivially_copyable_v<Greeting> && std::is_trivially_copyable_v<Header> &&
              std::is_trivially_copyable_v<Sight>);

template <class T>
std::vector<std::byte> bytes_of(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}

/// Not what another program would send.
bool sound(const Sight& s) {
  std::uint8_t asynchronous = 0;
  std::memcpy(&asynchronous, &s.note.device.asynchronous, 1);
  return s.dead <= 1 && s.stopped <= 1 && asynchronous <= 1 && s.note.state <= RankState::failed &&
         static_cast<std::size_t>(s.note.deadline) < deadline_settings.size();
}

/// What both sides prove that they have heard, each in its role.
std::vector<std::byte> said_by_both(const Nonce& server, const Introduction& leader) {
  std::vector<std::byte> said = bytes_of(server);
  const auto more = bytes_of(leader);
  said.insert(said.end(), more.begin(), more.end());
  return said;
}

/// "10.1.2.3:4567".
bool parse(const std::string& text, sockaddr_in& to) {
  const std::size_t colon = text.find(':');
  std::uint16_t port = 0;
  if (colon == std::string::npos) return false;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
  to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  return parsed.ec == std::errc{} && parsed.ptr == end &&
         inet_pton(AF_INET, text.substr(0, colon).c_str(), &to.sin_addr) == 1;
}

void set(int socket, int level, int option, int value) {
  (void)setsockopt(socket, level, option, &value, sizeof value);  // where it is not there the link is noticed later
}

/// The system itself tells of a peer that acknowledges nothing any more.
void watch_peer(int socket, double seconds) {
  set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(socket, IPPROTO_TCP, TCP_KEEPIDLE, std::max(1, static_cast<int>(seconds / 3)));
  set(socket, IPPROTO_TCP, TCP_KEEPINTVL, std::max(1, static_cast<int>(seconds / 4)));
  set(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(1000 * seconds));
  set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
}

LinkState state_after(int error) {
  return error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH || error == ENETDOWN ? LinkState::cut
                                                                                                  : LinkState::ended;
}
/// A process that ends with something unread resets its connections.
std::string text_of(int error) {
  return error == 0 || error == ECONNRESET || error == EPIPE ? "its process has ended" : std::strerror(error);
}

bool would_block(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

// ---- rank 0 ---------------------------------------------------------------------------------------------------------

struct LeaderServer::Connection {
  Connection(int s, std::uint32_t address, double now) : socket(s), from(address), since(now) {}
  ~Connection() {
    if (socket >= 0) close(socket);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  bool stranger() const noexcept { return host < 0; }

  int socket;
  std::uint32_t from;
  double since;
  Nonce nonce{};
  int host = -1;  // known with the header
  // The header, and later one message: no byte is read beyond it.
  std::vector<std::byte> in = std::vector<std::byte>(sizeof(Header));
  std::size_t have = 0;
};

LeaderServer::LeaderServer(const std::vector<std::string>& hosts, const std::vector<std::string>& addresses,
                           const LinkTimes& times)
    : times_(times), secret_(make_secret()), address_(to_hex(secret_)) {
  for (const auto& name : hosts) hosts_.emplace_back().name = name;
  std::string why = "it has no address in their network";
  for (const std::string& address : addresses) {
    sockaddr_in at{};
    socklen_t size = sizeof at;
    const int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listening < 0 || !parse(address + ":0", at) || bind(listening, reinterpret_cast<sockaddr*>(&at), size) != 0 ||
        ::listen(listening, most_admitted) != 0 ||
        getsockname(listening, reinterpret_cast<sockaddr*>(&at), &size) != 0) {
      why = fmt::format("{}: {}", address, std::strerror(errno));
      if (listening >= 0) close(listening);
      continue;
    }
    listening_.push_back(listening);
    address_ += fmt::format(" {}:{}", address, ntohs(at.sin_port));
  }
  if (listening_.empty()) throw CommError(fmt::format("cannot listen for the first ranks of the other hosts: {}", why));
}

LeaderServer::~LeaderServer() {
  for (const int listening : listening_) close(listening);
}

void LeaderServer::admit(int listening, double now) {
  for (int i = 0; i < most_admitted; ++i) {
    sockaddr_in from{};
    socklen_t size = sizeof from;
    const int accepted = accept4(listening, reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted < 0) return;
    auto c = std::make_unique<Connection>(accepted, from.sin_addr.s_addr, now);
    std::size_t strangers = 0, neighbours = 0;
    for (const auto& other : connections_) {
      strangers += other->stranger() ? 1 : 0;
      neighbours += other->stranger() && other->from == c->from ? 1 : 0;
    }
    if (strangers >= hosts_.size() + more_strangers || neighbours >= more_strangers) continue;
    watch_peer(accepted, times_.unanswered_seconds);
    if (!make_nonce(c->nonce)) continue;
    const Greeting greeting{.magic = magic, .nonce = c->nonce};
    if (send(accepted, &greeting, sizeof greeting, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof greeting) continue;
    connections_.push_back(std::move(c));
  }
}

void LeaderServer::look(double now) {
  for (const int listening : listening_) admit(listening, now);
  for (auto& c : connections_) {
    if (c->socket >= 0) receive(*c, now);
    if (c->socket >= 0 && c->stranger() && now - c->since > times_.stranger_seconds)
      lose(*c, LinkState::ended, "it has not proved itself", now);
  }
  std::erase_if(connections_, [](const auto& c) { return c->socket < 0; });
  for (Host& host : hosts_) {
    if (host.link == LinkState::never) continue;
    const double unheard = now - host.heard;
    for (RankSight& r : host.ranks) {
      // What was idle then goes on being idle, as far as is known.
      if (unheard >= times_.silent_seconds && r.watched()) r.idle = std::max(r.idle, unheard);
    }
    if (!host.ranks.empty()) host.ranks[0].silent = unheard >= times_.silent_seconds;
  }
}

void LeaderServer::lose(Connection& c, LinkState state, const std::string& why, double now) {
  close(c.socket);
  c.socket = -1;
  if (c.stranger()) return;
  Host& host = hosts_[static_cast<std::size_t>(c.host)];
  host.link = state;
  host.why = why;
  host.lost = now;
}

void LeaderServer::receive(Connection& c, double now) {
  const ssize_t n = recv(c.socket, c.in.data() + c.have, c.in.size() - c.have, MSG_DONTWAIT);
  if (n < 0 && would_block(errno)) return;
  if (n <= 0) return lose(c, n == 0 ? LinkState::ended : state_after(errno), text_of(n == 0 ? 0 : errno), now);
  c.have += static_cast<std::size_t>(n);
  if (c.have < c.in.size()) return;
  c.have = 0;
  if (!(c.stranger() ? believe(c) : take(c, now))) lose(c, LinkState::ended, "it speaks another language", now);
}

/// The header: from now on this connection is the host's only one.
bool LeaderServer::believe(Connection& c) {
  Header header;
  std::memcpy(static_cast<void*>(&header), c.in.data(), sizeof header);
  const Introduction& who = header.who;
  if (who.magic != magic || who.ranks == 0 || who.ranks > most_ranks) return false;
  const auto said = said_by_both(c.nonce, who);
  if (!same(header.proof, prove(secret_, leader_role, said))) return false;
  const std::string name(who.host.data(), strnlen(who.host.data(), host_room));
  const auto found = std::find_if(hosts_.begin(), hosts_.end(), [&](const Host& h) { return h.name == name; });
  if (found == hosts_.end()) return false;
  const int host = static_cast<int>(found - hosts_.begin());
  for (auto& other : connections_) {
    if (other->host != host) continue;
    other->host = -1;  // it is not missed
    close(other->socket);
    other->socket = -1;
  }
  c.host = host;
  c.in.resize(who.ranks * sizeof(Sight));
  const Proof proof = prove(secret_, server_role, said);
  (void)send(c.socket, &proof, sizeof proof, MSG_NOSIGNAL | MSG_DONTWAIT);  // without it the leader tries again
  return true;
}

bool LeaderServer::take(const Connection& c, double now) {
  Host& host = hosts_[static_cast<std::size_t>(c.host)];
  host.link = LinkState::up;
  host.heard = now;
  host.ranks.resize(c.in.size() / sizeof(Sight));
  for (std::size_t i = 0; i < host.ranks.size(); ++i) {
    Sight sight;
    std::memcpy(static_cast<void*>(&sight), c.in.data() + i * sizeof sight, sizeof sight);
    if (!sound(sight)) return false;
    RankSight& r = host.ranks[i];
    r.note = sight.note;
    r.note.phase.back() = r.note.device.state.back() = '\0';
    r.host = host.name;
    r.dead = sight.dead != 0;
    r.stopped = sight.stopped != 0;
    r.silent = false;
    r.idle = sight.idle;
  }
  const char answer = 1;
  (void)send(c.socket, &answer, 1, MSG_NOSIGNAL | MSG_DONTWAIT);  // what is lost with the link is noticed later
  return true;
}

// ---- the first ranks of other hosts ---------------------------------------------------------------------------------

LeaderClient::LeaderClient(const std::string& address, std::string host, const LinkTimes& times)
    : times_(times), host_(std::move(host)) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at < address.size();) {
    const std::size_t end = std::min(address.find(' ', at), address.size());
    words.push_back(address.substr(at, end - at));
    at = end + 1;
  }
  if (words.size() < 2) throw BugError("what rank 0 has told is no address of its");
  secret_ = secret_of(words[0]);
  addresses_.assign(words.begin() + 1, words.end());
}

LeaderClient::~LeaderClient() {
  close_socket();
}

void LeaderClient::close_socket() noexcept {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  stage_ = Stage::connecting;
  out_.clear();
}

void LeaderClient::lose(int error, double now) {
  const bool was_up = state_ == LinkState::up;
  close_socket();
  if (!was_up) return;  // another address may be the right one
  state_ = state_after(error);
  why_ = text_of(error);
  lost_ = now;
}

void LeaderClient::connect_next(double now) {
  // Each address in turn, and a pause after the last.
  if (next_ == 0 && now - tried_ < try_again_seconds) return;
  tried_ = now;
  const std::string& address = addresses_[next_];
  next_ = (next_ + 1) % addresses_.size();
  sockaddr_in to{};
  if (!parse(address, to)) return;
  socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_ < 0) return;
  watch_peer(socket_, times_.unanswered_seconds);
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS) close_socket();
}

void LeaderClient::finish_connecting(double now) {
  pollfd event{socket_, POLLOUT, 0};
  if (poll(&event, 1, 0) <= 0) {
    if (now - tried_ > connect_seconds) close_socket();
    return;
  }
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return close_socket();
  stage_ = Stage::greeting;
  in_.resize(sizeof(Greeting));
  have_ = 0;
}

void LeaderClient::receive(std::size_t ranks, double now) {
  const ssize_t n = recv(socket_, in_.data() + have_, in_.size() - have_, MSG_DONTWAIT);
  if (n < 0 && would_block(errno)) return;
  if (n <= 0) return lose(n == 0 ? 0 : errno, now);
  have_ += static_cast<std::size_t>(n);
  if (stage_ == Stage::talking) {  // a byte for each message
    have_ = 0;
    heard_ = now;
    return;
  }
  if (have_ < in_.size()) return;
  have_ = 0;
  if (stage_ == Stage::greeting) {
    Greeting greeting;
    std::memcpy(static_cast<void*>(&greeting), in_.data(), sizeof greeting);
    Header header{.who = {.magic = magic, .ranks = static_cast<std::uint32_t>(ranks)}};
    if (greeting.magic != magic || !make_nonce(header.who.nonce)) return close_socket();
    std::memcpy(header.who.host.data(), host_.data(), std::min(host_.size(), host_room - 1));
    said_ = said_by_both(greeting.nonce, header.who);
    header.proof = prove(secret_, leader_role, said_);
    out_ = bytes_of(header);
    in_.resize(sizeof(Proof));
    stage_ = Stage::proving;
    return;
  }
  // Whoever proves this is rank 0, and not somebody else under one of its addresses.
  Proof proof;
  std::memcpy(proof.data(), in_.data(), sizeof proof);
  if (!same(proof, prove(secret_, server_role, said_))) return close_socket();
  stage_ = Stage::talking;
  state_ = LinkState::up;
  heard_ = now;
  sent_ = now - times_.send_seconds;
  next_ = 0;
}

void LeaderClient::look(const std::vector<RankSight>& ranks, double now) {
  if (socket_ < 0) connect_next(now);
  if (socket_ >= 0 && stage_ == Stage::connecting) finish_connecting(now);
  if (socket_ < 0 || stage_ == Stage::connecting) return;
  if (stage_ != Stage::talking && now - tried_ > times_.stranger_seconds) return close_socket();
  receive(ranks.size(), now);
  if (socket_ < 0) return;
  if (stage_ == Stage::talking && now - sent_ >= times_.send_seconds && out_.empty()) {
    out_.resize(ranks.size() * sizeof(Sight));
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const Sight sight{ranks[i].note, ranks[i].dead, ranks[i].stopped, ranks[i].idle};
      std::memcpy(out_.data() + i * sizeof sight, &sight, sizeof sight);
    }
    sent_ = now;
  }
  while (!out_.empty()) {
    const ssize_t n = send(socket_, out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && would_block(errno)) break;
    if (n <= 0) return lose(errno, now);
    out_.erase(out_.begin(), out_.begin() + n);
  }
}

}  // namespace dtrain::comm
