// Which of this host's addresses the other hosts should use: those that MPI uses, in a network that all of them share.
// Pure functions over what the system, MPI and the other hosts say; World calls them on the main thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dtrain::comm {

/// An IPv4 address of an interface that is up and no loopback.
struct NetworkAddress {
  std::string interface, address;
  int prefix = 32;  // bits of the network
};

std::vector<NetworkAddress> own_addresses();

/// Those that remain by MPI's lists of interfaces and networks, "eth0,10.1.0.0/16"; an empty list says nothing.
std::vector<NetworkAddress> allowed_addresses(std::vector<NetworkAddress>, std::string_view include,
                                              std::string_view exclude);

/// "10.1.2.3/16 10.2.2.3/24", for the other hosts, and back.
std::string addresses_text(const std::vector<NetworkAddress>&);
std::vector<NetworkAddress> addresses_of(std::string_view text);

/// Of `own`, those in a network of which every other host has an address, too; all where there is none: routers may
/// know a way. Without those that another host also has (containers' bridges are alike on all hosts). Loopback where
/// nothing remains: all "hosts" are one machine then.
std::vector<std::string> meeting_addresses(const std::vector<NetworkAddress>& own,
                                           const std::vector<std::vector<NetworkAddress>>& others);

}  // namespace dtrain::comm
