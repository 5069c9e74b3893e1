#include "comm/place/network.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdint>
#include <iterator>
#include <optional>

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

namespace dtrain::comm {

namespace {

std::optional<std::uint32_t> number_of(const std::string& address) {
  in_addr in{};
  if (inet_pton(AF_INET, address.c_str(), &in) != 1) return std::nullopt;
  return ntohl(in.s_addr);
}

bool same_network(const std::string& a, const std::string& b, int prefix) {
  const auto x = number_of(a), y = number_of(b);
  if (!x || !y || prefix < 0 || prefix > 32) return false;
  return prefix == 0 || (*x ^ *y) >> (32 - prefix) == 0;
}

std::vector<std::string> words_of(std::string_view text, char between) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(between, at), text.size());
    if (end > at) words.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// "10.1.2.3/16"; nothing where it is something else.
std::optional<NetworkAddress> address_of(const std::string& word) {
  const std::size_t slash = word.find('/');
  if (slash == std::string::npos) return std::nullopt;
  NetworkAddress a{.interface = {}, .address = word.substr(0, slash)};
  const char* const end = word.data() + word.size();
  const auto parsed = std::from_chars(word.data() + slash + 1, end, a.prefix);
  if (parsed.ec != std::errc{} || parsed.ptr != end || a.prefix < 0 || a.prefix > 32 || !number_of(a.address))
    return std::nullopt;
  return a;
}

bool listed(const NetworkAddress& a, const std::vector<std::string>& list) {
  return std::any_of(list.begin(), list.end(), [&](const std::string& word) {
    const auto network = address_of(word);
    return network ? same_network(a.address, network->address, network->prefix) : word == a.interface;
  });
}

bool contains(const std::vector<NetworkAddress>& addresses, const std::string& address) {
  return std::any_of(addresses.begin(), addresses.end(), [&](const auto& a) { return a.address == address; });
}

}  // namespace

std::vector<NetworkAddress> own_addresses() {
  std::vector<NetworkAddress> out;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return out;
  for (const ifaddrs* a = all; a != nullptr; a = a->ifa_next) {
    if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_INET || a->ifa_netmask == nullptr) continue;
    if ((a->ifa_flags & IFF_UP) == 0 || (a->ifa_flags & IFF_LOOPBACK) != 0) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* const in = reinterpret_cast<const sockaddr_in*>(a->ifa_addr);
    if (inet_ntop(AF_INET, &in->sin_addr, text.data(), text.size()) == nullptr) continue;
    const auto* const mask = reinterpret_cast<const sockaddr_in*>(a->ifa_netmask);
    out.push_back({a->ifa_name, text.data(), std::popcount(mask->sin_addr.s_addr)});
  }
  freeifaddrs(all);
  return out;
}

std::vector<NetworkAddress> allowed_addresses(std::vector<NetworkAddress> all, std::string_view include,
                                              std::string_view exclude) {
  const auto in = words_of(include, ','), out = words_of(exclude, ',');
  std::erase_if(all, [&](const NetworkAddress& a) { return in.empty() ? listed(a, out) : !listed(a, in); });
  return all;
}

std::string addresses_text(const std::vector<NetworkAddress>& addresses) {
  std::string text;
  for (const NetworkAddress& a : addresses)
    text += fmt::format("{}{}/{}", text.empty() ? "" : " ", a.address, a.prefix);
  return text;
}

std::vector<NetworkAddress> addresses_of(std::string_view text) {
  std::vector<NetworkAddress> out;
  for (const std::string& word : words_of(text, ' '))
    if (auto a = address_of(word)) out.push_back(std::move(*a));
  return out;
}

std::vector<std::string> meeting_addresses(const std::vector<NetworkAddress>& own,
                                           const std::vector<std::vector<NetworkAddress>>& others) {
  std::vector<std::string> usable, shared;
  for (const NetworkAddress& a : own) {
    if (std::any_of(others.begin(), others.end(), [&](const auto& other) { return contains(other, a.address); }))
      continue;
    usable.push_back(a.address);
    const bool with_all = std::all_of(others.begin(), others.end(), [&](const auto& other) {
      return std::any_of(other.begin(), other.end(),
                         [&](const NetworkAddress& b) { return same_network(a.address, b.address, a.prefix); });
    });
    if (with_all) shared.push_back(a.address);
  }
  if (usable.empty()) return {"127.0.0.1"};
  return shared.empty() ? usable : shared;
}

}  // namespace dtrain::comm
