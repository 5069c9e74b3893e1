#include "comm/place/network.hpp"

#include <gtest/gtest.h>

namespace dtrain::comm {
namespace {

using Addresses = std::vector<NetworkAddress>;
using Texts = std::vector<std::string>;

const Addresses node{{"eth0", "10.1.0.3", 16}, {"ib0", "10.2.0.3", 16}, {"docker0", "172.17.0.1", 16}};

TEST(Network, mpis_lists_of_interfaces_and_networks_decide) {
  const auto allowed = [](const char* include, const char* exclude) {
    Texts names;
    for (const auto& a : allowed_addresses(node, include, exclude)) names.push_back(a.interface);
    return names;
  };
  EXPECT_EQ(allowed("", "127.0.0.1/8,sppp"), (Texts{"eth0", "ib0", "docker0"}));
  EXPECT_EQ(allowed("", "docker0,10.2.0.0/16"), (Texts{"eth0"}));
  EXPECT_EQ(allowed("ib0", "127.0.0.1/8,sppp"), (Texts{"ib0"}));
  EXPECT_EQ(allowed("10.1.0.0/16", ""), (Texts{"eth0"}));
  EXPECT_EQ(allowed("eth1", ""), Texts{});
}

TEST(Network, hosts_meet_in_a_network_that_all_of_them_have) {
  const Addresses second{{"", "10.1.0.4", 16}, {"", "10.2.0.4", 16}, {"", "172.17.0.1", 16}};
  const Addresses third{{"", "10.2.0.5", 16}, {"", "172.17.0.1", 16}};
  EXPECT_EQ(meeting_addresses(node, {second}), (Texts{"10.1.0.3", "10.2.0.3"}));
  EXPECT_EQ(meeting_addresses(node, {second, third}), (Texts{"10.2.0.3"}));
  // Only routers know a way.
  EXPECT_EQ(meeting_addresses(node, {{{"", "192.168.0.1", 24}}}), (Texts{"10.1.0.3", "10.2.0.3", "172.17.0.1"}));
  // One machine under two names, and one without a network.
  EXPECT_EQ(meeting_addresses(node, {node}), (Texts{"127.0.0.1"}));
  EXPECT_EQ(meeting_addresses({}, {second}), (Texts{"127.0.0.1"}));
}

TEST(Network, addresses_travel_as_text) {
  EXPECT_EQ(addresses_text(node), "10.1.0.3/16 10.2.0.3/16 172.17.0.1/16");
  const auto back = addresses_of(addresses_text(node) + " 10.1.0.3 x/8 10.1.0.3/33 10.1.0/16");
  ASSERT_EQ(back.size(), 3u);
  EXPECT_EQ(back[1].address, "10.2.0.3");
  EXPECT_EQ(back[1].prefix, 16);
  EXPECT_EQ(addresses_text({}), "");
  for (const auto& a : own_addresses()) {
    EXPECT_NE(a.address.substr(0, 4), "127.");
    EXPECT_FALSE(a.interface.empty());
  }
}

}  // namespace
}  // namespace dtrain::comm
