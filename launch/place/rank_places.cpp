#include "launch/place/rank_places.hpp"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <map>
#include <tuple>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "launch/base/text.hpp"
#include "launch/place/placement.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::json;

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}
std::string node_text(int node) {
  return node < 0 ? "-" : std::to_string(node);
}

/// Ranks of one host.
struct HostRow {
  std::string host;
  std::vector<int> ranks;
  std::map<std::string, int> models;
  std::vector<std::string> nodes, cards;

  /// Equal for hosts that need no rows of their own.
  auto form() const { return std::tie(models, nodes, cards); }
};

std::vector<HostRow> rows_of_hosts(std::span<const RankPlace> places) {
  std::vector<HostRow> rows;
  for (std::size_t r = 0; r < places.size(); ++r) {
    const RankPlace& p = places[r];
    auto row = std::find_if(rows.begin(), rows.end(), [&](const HostRow& h) { return h.host == p.host; });
    if (row == rows.end()) row = rows.insert(rows.end(), HostRow{p.host, {}, {}, {}, {}});
    row->ranks.push_back(static_cast<int>(r));
    ++row->models[p.gpu.name];
    row->nodes.push_back(node_text(p.numa_node));
    row->cards.push_back(card_text(p.network, p.network_rate));
  }
  return rows;
}

/// "0 0 1 1" -> "0 x 2, 1 x 2"; one value: itself.
std::string counted(const std::vector<std::string>& values) {
  std::map<std::string, int> counts;
  for (const std::string& v : values) ++counts[v];
  std::vector<std::string> parts;
  for (const auto& [value, count] : counts) parts.push_back(count == 1 ? value : fmt::format("{} x {}", count, value));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string table_of_hosts(std::span<const RankPlace> places) {
  const std::vector<HostRow> rows = rows_of_hosts(places);
  TextTable table({"<ranks", "<host", "<GPUs", "<NUMA", "<network"});
  for (std::size_t i = 0; i < rows.size();) {
    std::size_t last = i;
    while (last + 1 < rows.size() && rows[last + 1].form() == rows[i].form()) ++last;
    std::vector<int> ranks;
    for (std::size_t h = i; h <= last; ++h) ranks.insert(ranks.end(), rows[h].ranks.begin(), rows[h].ranks.end());
    std::sort(ranks.begin(), ranks.end());
    const std::string text = ranks_text(ranks);
    std::vector<std::string> models;
    for (const auto& [name, count] : rows[i].models) models.push_back(fmt::format("{} x {}", count, name));
    table.row(
        {text.substr(text.find(' ') + 1),
         last == i ? rows[i].host : fmt::format("{} to {} ({} hosts)", rows[i].host, rows[last].host, last - i + 1),
         fmt::format("{}", fmt::join(models, ", ")), counted(rows[i].nodes), counted(rows[i].cards)});
    i = last + 1;
  }
  return table.str();
}

}  // namespace

std::string to_text(const RankPlace& p) {
  Json links = Json::array();
  for (const GpuLinks::NvLink& l : p.links.nvlinks) links.push_back({l.to_switch, l.bus_id, l.rate});
  return Json{{"host", p.host},           {"ordinal", p.ordinal},
              {"name", p.gpu.name},       {"uuid", p.gpu.uuid},
              {"bus_id", p.gpu.bus_id},   {"memory", p.gpu.memory},
              {"numa_node", p.numa_node}, {"cpus", p.cpus},
              {"network", p.network},     {"network_rate", p.network_rate},
              {"nvlinks", links},         {"pcie", {p.links.pcie_generation, p.links.pcie_lanes}},
              {"driver", p.driver}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

RankPlace rank_place(const std::string& text) {
  try {
    const Json j = Json::parse(text);
    RankPlace p;
    p.host = j.at("host");
    p.ordinal = j.at("ordinal");
    p.gpu = {j.at("name"), j.at("uuid"), j.at("bus_id"), j.at("memory")};
    p.numa_node = j.at("numa_node");
    p.cpus = j.at("cpus");
    p.network = j.at("network");
    p.network_rate = j.at("network_rate");
    for (const Json& l : j.at("nvlinks")) p.links.nvlinks.push_back({l.at(0), l.at(1), l.at(2)});
    p.links.pcie_generation = j.at("pcie").at(0);
    p.links.pcie_lanes = j.at("pcie").at(1);
    p.driver = j.at("driver");
    return p;
  } catch (const Json::exception& e) {
    throw BugError(fmt::format("a rank's description of its place cannot be read: {}", e.what()));
  }
}

std::string card_text(const std::string& name, double bytes_per_second) {
  if (name.empty()) return "-";
  if (bytes_per_second <= 0) return name;
  return fmt::format("{} ({:.0f} Gbit/s)", name, bytes_per_second * 8 / 1e9);
}

std::string place_table(std::span<const RankPlace> places, std::size_t most_rows) {
  if (places.size() > most_rows) return table_of_hosts(places);
  TextTable table({"rank", "<host", "<GPU", "<UUID", "<PCI", "NUMA", "<cpus", "<network"});
  for (std::size_t r = 0; r < places.size(); ++r) {
    const RankPlace& p = places[r];
    table.row({std::to_string(r), p.host, fmt::format("{}: {}", p.ordinal, p.gpu.name), or_dash(p.gpu.uuid),
               or_dash(p.gpu.bus_id), node_text(p.numa_node), or_dash(p.cpus), card_text(p.network, p.network_rate)});
  }
  return table.str();
}

std::vector<RankLinks> links_of(std::span<const RankPlace> places) {
  std::vector<RankLinks> out;
  for (const RankPlace& p : places) {
    RankLinks& mine = out.emplace_back(RankLinks{p.host, 0, p.links.pcie_rate(), p.network, p.network_rate});
    for (const GpuLinks::NvLink& link : p.links.nvlinks) {
      const bool to_a_rank = std::any_of(places.begin(), places.end(), [&](const RankPlace& other) {
        return other.host == p.host && !link.bus_id.empty() && same_bus_id(other.gpu.bus_id, link.bus_id);
      });
      if (link.to_switch || to_a_rank) mine.nvlink += link.rate;
    }
  }
  return out;
}

std::string compare_drivers(std::span<const RankPlace> places) {
  std::map<std::string, std::vector<std::string>> hosts;  // by version
  for (const RankPlace& p : places) {
    auto& list = hosts[p.driver.empty() ? "unknown" : p.driver];
    if (std::find(list.begin(), list.end(), p.host) == list.end()) list.push_back(p.host);
  }
  if (hosts.size() < 2) return {};
  std::vector<std::string> parts;
  for (const auto& [version, list] : hosts)
    parts.push_back(fmt::format("{} on {}{}", version, list[0],
                                list.size() > 1 ? fmt::format(" and {} more", list.size() - 1) : ""));
  return fmt::format("NVIDIA drivers differ: {}; NCCL and speed may suffer: install one version on all hosts",
                     fmt::join(parts, ", "));
}

}  // namespace dtrain::launch
