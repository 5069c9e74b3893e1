#include "comm/watch/leader_link.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace {

constexpr std::uint32_t magic = 0x64747261;
constexpr std::size_t secret_bytes = 16, host_room = 256;
constexpr std::uint32_t most_ranks = 4096;  // of a host
constexpr std::size_t most_connections = 16384;
constexpr double connect_seconds = 2, try_again_seconds = 2;

/// Both sides run the same program on machines of one kind: the ranks have agreed on that.
struct Header {
  std::uint32_t magic = 0, ranks = 0;
  std::array<char, secret_bytes> secret{};
  std::array<char, host_room> host{};
};
struct Sight {
  RankNote note;
  bool dead = false, stopped = false;
  double idle = 0;
};
static_assert(std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<Sight>);

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}
std::string from_hex(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  return bytes;
}

/// This machine's addresses, those of loopback last: they serve where all "hosts" are one machine.
std::vector<std::string> own_addresses() {
  std::vector<std::string> out, loopback;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return {"127.0.0.1"};
  for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
    if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_INET || (a->ifa_flags & IFF_UP) == 0) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* const in = reinterpret_cast<const sockaddr_in*>(a->ifa_addr);
    if (inet_ntop(AF_INET, &in->sin_addr, text.data(), text.size()) == nullptr) continue;
    ((a->ifa_flags & IFF_LOOPBACK) != 0 ? loopback : out).emplace_back(text.data());
  }
  freeifaddrs(all);
  out.insert(out.end(), loopback.begin(), loopback.end());
  return out;
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
  explicit Connection(int s) : socket(s) {}
  ~Connection() {
    if (socket >= 0) close(socket);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  int socket;
  int host = -1;  // known with the first message
  std::vector<std::byte> in;
};

LeaderServer::LeaderServer(const std::vector<std::string>& hosts, const LinkTimes& times)
    : times_(times), secret_(secret_bytes, '\0') {
  for (const auto& name : hosts) hosts_.emplace_back().name = name;
  if (getrandom(secret_.data(), secret_.size(), 0) != static_cast<ssize_t>(secret_.size()))
    throw CommError(fmt::format("cannot make a secret: {}", std::strerror(errno)));
  listening_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t size = sizeof any;
  if (listening_ < 0 || bind(listening_, reinterpret_cast<sockaddr*>(&any), size) != 0 ||
      listen(listening_, SOMAXCONN) != 0 || getsockname(listening_, reinterpret_cast<sockaddr*>(&any), &size) != 0) {
    const std::string why = std::strerror(errno);
    if (listening_ >= 0) close(listening_);
    throw CommError(fmt::format("cannot listen for the first ranks of the other hosts: {}", why));
  }
  port_ = ntohs(any.sin_port);
}

LeaderServer::~LeaderServer() {
  if (listening_ >= 0) close(listening_);
}

std::string LeaderServer::address() const {
  std::string text = fmt::format("{} {}", hex(secret_), port_);
  for (const auto& a : own_addresses()) text += " " + a;
  return text;
}

void LeaderServer::look(double now) {
  for (;;) {
    const int accepted = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted < 0) break;
    auto connection = std::make_unique<Connection>(accepted);
    if (connections_.size() >= most_connections) continue;
    watch_peer(accepted, times_.unanswered_seconds);
    connections_.push_back(std::move(connection));
  }
  for (auto& c : connections_) receive(*c, now);
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
  if (c.host < 0) return;
  Host& host = hosts_[static_cast<std::size_t>(c.host)];
  host.link = state;
  host.why = why;
  host.lost = now;
}

void LeaderServer::receive(Connection& c, double now) {
  std::array<std::byte, 4096> buffer{};
  for (;;) {
    const ssize_t n = recv(c.socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && would_block(errno)) break;
    if (n <= 0) return lose(c, n == 0 ? LinkState::ended : state_after(errno), text_of(n == 0 ? 0 : errno), now);
    c.in.insert(c.in.end(), buffer.begin(), buffer.begin() + n);
  }
  for (;;) {
    if (c.in.size() < sizeof(Header)) return;
    Header header;
    std::memcpy(&header, c.in.data(), sizeof header);
    // Whoever is none of ours is not answered.
    if (header.magic != magic || header.ranks > most_ranks ||
        std::memcmp(header.secret.data(), secret_.data(), secret_bytes) != 0)
      return lose(c, LinkState::ended, "it speaks another language", now);
    const std::size_t bytes = sizeof header + header.ranks * sizeof(Sight);
    if (c.in.size() < bytes) return;
    take(c, c.in.data(), bytes, now);
    c.in.erase(c.in.begin(), c.in.begin() + static_cast<std::ptrdiff_t>(bytes));
    const char answer = 1;
    (void)send(c.socket, &answer, 1, MSG_NOSIGNAL | MSG_DONTWAIT);  // what is lost with the link is noticed above
  }
}

void LeaderServer::take(Connection& c, const std::byte* message, std::size_t bytes, double now) {
  Header header;
  std::memcpy(&header, message, sizeof header);
  header.host.back() = '\0';
  const auto found =
      std::find_if(hosts_.begin(), hosts_.end(), [&](const Host& h) { return h.name == header.host.data(); });
  if (found == hosts_.end() || bytes < sizeof header) return;
  c.host = static_cast<int>(found - hosts_.begin());
  found->link = LinkState::up;
  found->heard = now;
  found->ranks.resize(header.ranks);
  for (std::size_t i = 0; i < header.ranks; ++i) {
    Sight sight;
    std::memcpy(static_cast<void*>(&sight), message + sizeof header + i * sizeof sight, sizeof sight);
    RankSight& r = found->ranks[i];
    r.note = sight.note;
    r.note.phase.back() = r.note.device.state.back() = '\0';
    r.host = found->name;
    r.dead = sight.dead;
    r.stopped = sight.stopped;
    r.silent = false;
    r.idle = sight.idle;
  }
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
  if (words.size() < 3) throw BugError(fmt::format("\"{}\" is no address of rank 0", address));
  secret_ = from_hex(words[0]);
  secret_.resize(secret_bytes);
  port_ = static_cast<std::uint16_t>(std::stoi(words[1]));
  addresses_.assign(words.begin() + 2, words.end());
}

LeaderClient::~LeaderClient() {
  close_socket();
}

void LeaderClient::close_socket() noexcept {
  if (socket_ >= 0) close(socket_);
  socket_ = -1;
  connecting_ = false;
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
  to.sin_family = AF_INET;
  to.sin_port = htons(port_);
  if (inet_pton(AF_INET, address.c_str(), &to.sin_addr) != 1) return;
  socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (socket_ < 0) return;
  watch_peer(socket_, times_.unanswered_seconds);
  connecting_ = true;
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS) close_socket();
}

void LeaderClient::look(const std::vector<RankSight>& ranks, double now) {
  if (socket_ < 0) connect_next(now);
  if (socket_ < 0) return;
  if (connecting_) {
    pollfd event{socket_, POLLOUT, 0};
    if (poll(&event, 1, 0) > 0) {
      int error = 0;
      socklen_t size = sizeof error;
      if (getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) return close_socket();
      connecting_ = false;
      sent_ = now - times_.send_seconds;
    } else if (now - tried_ > connect_seconds) {
      return close_socket();
    } else {
      return;
    }
  }
  // Somebody who takes connections and says nothing is not rank 0.
  if (state_ != LinkState::up && now - tried_ > connect_seconds + times_.silent_seconds) return close_socket();
  std::array<char, 64> answers{};
  for (;;) {
    const ssize_t n = recv(socket_, answers.data(), answers.size(), MSG_DONTWAIT);
    if (n < 0 && would_block(errno)) break;
    if (n <= 0) return lose(n == 0 ? 0 : errno, now);
    // Whoever answers is rank 0, and not somebody else under one of its addresses.
    state_ = LinkState::up;
    heard_ = now;
    next_ = 0;
  }
  if (now - sent_ >= times_.send_seconds && out_.empty()) {
    Header header{.magic = magic, .ranks = static_cast<std::uint32_t>(ranks.size())};
    std::copy(secret_.begin(), secret_.end(), header.secret.begin());
    std::memcpy(header.host.data(), host_.data(), std::min(host_.size(), host_room - 1));
    out_.resize(sizeof header + ranks.size() * sizeof(Sight));
    std::memcpy(out_.data(), &header, sizeof header);
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const Sight sight{ranks[i].note, ranks[i].dead, ranks[i].stopped, ranks[i].idle};
      std::memcpy(out_.data() + sizeof header + i * sizeof sight, &sight, sizeof sight);
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
