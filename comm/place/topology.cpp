#include "comm/place/topology.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <tuple>
#include <utility>

#include <hwloc.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

namespace fs = std::filesystem;

namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const noexcept { hwloc_topology_destroy(topology); }
};
using Handle = std::unique_ptr<hwloc_topology, Destroy>;

Handle make_topology() {
  hwloc_topology_t raw = nullptr;
  // Its plugins would load OpenCL and X, which lose memory when they are unloaded; what is asked here it knows by
  // itself.
  setenv("HWLOC_PLUGINS_PATH", "/nonexistent", 0);
  if (hwloc_topology_init(&raw) != 0) throw CommError("hwloc cannot start");
  Handle topology(raw);
  hwloc_topology_set_io_types_filter(raw, HWLOC_TYPE_FILTER_KEEP_IMPORTANT);
  // Where MPI has loaded them already: they would start drivers, for what the bus id says as well.
  for (const char* plugin : {"cuda", "nvml", "opencl", "gl", "rsmi", "levelzero"})
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, plugin);
  return topology;
}

std::vector<const hwloc_obj*> path_of(const hwloc_obj* object) {
  std::vector<const hwloc_obj*> path;
  for (; object != nullptr; object = object->parent) path.push_back(object);
  std::reverse(path.begin(), path.end());
  return path;
}

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// Bytes/s; 0 where the link is down or says nothing.
double rdma_rate(const fs::path& card) {
  double best = 0;
  std::error_code ignored;
  for (const auto& port : fs::directory_iterator(card / "ports", ignored)) {
    if (first_line(port.path() / "state").find("ACTIVE") == std::string::npos) continue;
    best = std::max(best, std::strtod(first_line(port.path() / "rate").c_str(), nullptr));  // "400 Gb/sec (4X NDR)"
  }
  return best * 1e9 / 8;
}

double ethernet_rate(const fs::path& card) {
  if (first_line(card / "operstate") == "down") return 0;
  return std::max(0.0, std::strtod(first_line(card / "speed").c_str(), nullptr)) * 1e6 / 8;  // Mbit/s; -1: not known
}

}  // namespace

struct Topology::State {
  Handle topology;
};

Topology::Topology(std::unique_ptr<State> state) : state_(std::move(state)) {}
Topology::Topology(Topology&&) noexcept = default;
Topology& Topology::operator=(Topology&&) noexcept = default;
Topology::~Topology() = default;

Topology Topology::of_this_machine() {
  Handle topology = make_topology();
  if (hwloc_topology_load(topology.get()) != 0) throw CommError("hwloc cannot read this machine's topology");
  return Topology(std::make_unique<State>(State{std::move(topology)}));
}

Topology Topology::of_xml(const std::string& xml) {
  Handle topology = make_topology();
  if (hwloc_topology_set_xmlbuffer(topology.get(), xml.c_str(), static_cast<int>(xml.size()) + 1) != 0 ||
      hwloc_topology_load(topology.get()) != 0)
    throw CommError("hwloc cannot read this description of a topology");
  return Topology(std::make_unique<State>(State{std::move(topology)}));
}

NearDevice Topology::near(const std::string& bus_id) const {
  NearDevice out;
  hwloc_topology* const t = state_->topology.get();
  hwloc_obj* const device = bus_id.empty() ? nullptr : hwloc_get_pcidev_by_busidstring(t, bus_id.c_str());
  if (device == nullptr) return out;
  const hwloc_obj* const place = hwloc_get_non_io_ancestor_obj(t, device);
  // Below the whole of a machine with several nodes: its firmware does not say which.
  const bool known = place->type != HWLOC_OBJ_MACHINE || hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_NUMANODE) == 1;
  if (known) {
    int cpu = -1;
    while ((cpu = hwloc_bitmap_next(place->cpuset, cpu)) >= 0) out.cpus.push_back(cpu);
    out.numa_node = hwloc_bitmap_first(place->nodeset);
  }
  const auto way = path_of(device);
  for (const hwloc_obj* card = nullptr; (card = hwloc_get_next_osdev(t, const_cast<hwloc_obj*>(card))) != nullptr;) {
    const bool rdma = card->attr->osdev.type == HWLOC_OBJ_OSDEV_OPENFABRICS;
    if (!rdma && card->attr->osdev.type != HWLOC_OBJ_OSDEV_NETWORK) continue;
    const auto other = path_of(card);
    const auto parting = std::mismatch(way.begin(), way.end(), other.begin(), other.end());
    out.networks.push_back({card->name, rdma, static_cast<int>(parting.first - way.begin())});
  }
  return out;
}

NetworkCard choose_card(std::span<const NearNetwork> cards, const std::string& root_name) {
  const fs::path classes = fs::path(root_name.empty() ? "/" : root_name) / "sys/class";
  NetworkCard best;
  std::tuple<bool, bool, int, double> best_rank;
  for (const NearNetwork& card : cards) {
    const double rate =
        card.rdma ? rdma_rate(classes / "infiniband" / card.name) : ethernet_rate(classes / "net" / card.name);
    const std::tuple<bool, bool, int, double> rank{rate > 0, card.rdma, card.common_steps, rate};
    if (!best.name.empty() && rank <= best_rank) continue;
    best = {card.name, rate};
    best_rank = rank;
  }
  return best;
}

}  // namespace dtrain::comm
