#include "launch/place/device_placement.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <sstream>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "comm/collective/agree.hpp"
#include "comm/place/binding.hpp"
#include "comm/place/topology.hpp"
#include "comm/world/libraries.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::json;

std::vector<RankView> gather_views(const RankView& mine, Group& group) {
  Json gpus = Json::array();
  for (const GpuIdentity& g : mine.gpus) gpus.push_back({g.name, g.uuid, g.bus_id});
  const Json text{{"host", mine.host}, {"gpus", gpus}, {"why_none", mine.why_none}};
  std::vector<RankView> all;
  for (const std::string& packed : group.all_gather(text.dump(-1, ' ', false, Json::error_handler_t::replace))) {
    const Json j = Json::parse(packed);
    RankView& view = all.emplace_back(RankView{j.at("host"), {}, j.at("why_none")});
    for (const Json& g : j.at("gpus")) view.gpus.push_back({g.at(0), g.at(1), g.at(2), 0});
  }
  return all;
}

void agree_on_libraries(const std::string& host, Group& group, const std::vector<Library>& libraries) {
  std::vector<comm::Fact> facts;
  for (const Library& l : libraries)
    facts.push_back({"the version of " + l.name, l.version.empty() ? "none" : l.version});
  comm::agree_on(group, host, facts);
}

std::vector<Library> libraries_of_gpu_runs() {
  std::vector<Library> all = cuda_libraries();
  const std::vector<Library> others = comm::comm_libraries();
  all.insert(all.end(), others.begin(), others.end());
  return all;
}

/// Binds this process near its GPU, as far as what all ranks want fits together.
void bind_near(comm::World& world, Group& group, const comm::NearDevice& near) {
  const Json mine{{"host", world.host()}, {"free", world.free_cores()}, {"near", near.cpus}};
  std::vector<comm::CoresNearGpu> all;
  for (const std::string& packed : group.all_gather(mine.dump(-1, ' ', false, Json::error_handler_t::replace))) {
    const Json j = Json::parse(packed);
    all.push_back({j.at("host"), j.at("free"), j.at("near")});
  }
  const comm::Cores cores = comm::spread_near_gpus(all)[static_cast<std::size_t>(group.rank())];
  if (!cores.empty()) world.use_cores(cores);
}

RankPlace describe(const std::string& host, int ordinal, const GpuIdentity& gpu, const comm::NearDevice& near,
                   const PlacementSources& sources) {
  RankPlace place;
  place.host = host;
  place.ordinal = ordinal;
  place.gpu = gpu;
  place.numa_node = near.numa_node;
  place.cpus = comm::cpu_list(comm::allowed_cores());
  const comm::NetworkCard card = comm::choose_card(near.networks, sources.sys_root);
  place.network = card.name;
  place.network_rate = card.rate;
  const GpuMonitor monitor(sources.nvml);
  place.driver = monitor.driver();
  if (const auto links = monitor.links(gpu.bus_id)) place.links = *links;
  return place;
}

/// To NCCL each rank is a host of its own, and ranks of one GPU talk over sockets.
void part_ranks(const std::string& host, int rank) {
  setenv("NCCL_HOSTID", fmt::format("{}-{}", host, rank).c_str(), 0);
}

RankView view_gpus(const std::string& host) {
  RankView view{host, {}, {}};
  const int count = cuda_device_count(view.why_none);
  if (count > 0) {
    view.gpus = cuda_gpus();
    return view;
  }
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible != nullptr) view.why_none += fmt::format("; CUDA_VISIBLE_DEVICES is \"{}\"", visible);
  return view;
}

}  // namespace

PlacementSources this_machine() {
  return {view_gpus,
          [](const std::string& bus_id) { return comm::Topology::of_this_machine().near(bus_id); },
          libraries_of_gpu_runs,
          {}};
}

DevicePlacement choose_placement(const RunConfig& config, comm::World& world, Group& group,
                                 const PlacementSources& sources) {
  DevicePlacement placement;
  if (config.device == DeviceChoice::cpu) return placement;
  RankView mine;
  group.agree([&] { mine = sources.view(world.host()); });
  const PlacementRules rules{config.device, config.cuda.share_gpus, config.cuda.mixed_models};
  Placement all = place_ranks(gather_views(mine, group), rules);
  placement.warnings = std::move(all.warnings);
  placement.ordinal = all.ordinals[static_cast<std::size_t>(group.rank())];
  if (!placement.on_gpu()) return placement;
  agree_on_libraries(mine.host, group, sources.libraries());
  if (all.shared) part_ranks(mine.host, group.rank());
  const GpuIdentity& gpu = mine.gpus[static_cast<std::size_t>(placement.ordinal)];
  comm::NearDevice near;
  group.agree([&] { near = sources.near(gpu.bus_id); });
  if (config.cuda.affinity) bind_near(world, group, near);
  RankPlace place;
  group.agree([&] { place = describe(mine.host, placement.ordinal, gpu, near, sources); });
  for (const std::string& text : group.all_gather(to_text(place))) placement.places.push_back(rank_place(text));
  if (std::string text = compare_drivers(placement.places); !text.empty())
    placement.warnings.push_back(std::move(text));
  return placement;
}

int compute_threads(int configured, const comm::World& world) {
  if (configured > 0) return configured;
  const int online = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, std::min(world.cpus(), online / world.local_size()));
}

std::unique_ptr<Device> make_run_device(const RunConfig& config, const comm::World& world,
                                        const DevicePlacement& placement) {
  if (placement.on_gpu())
    return make_device(DeviceKind::cuda, placement.ordinal, 0, cuda_options(config, world.size()));
  if (config.precision == DType::f16)
    throw ConfigError("precision: float16 needs a GPU, and device: auto is the cpu here; use precision: bfloat16");
  return make_device(DeviceKind::cpu, 0, compute_threads(config.threads, world));
}

std::unique_ptr<Device> placed_device(const RunConfig& config, comm::World& world, Group& group,
                                      DevicePlacement& placement) {
  placement = choose_placement(config, world, group);
  std::unique_ptr<Device> device;
  group.agree([&] { device = make_run_device(config, world, placement); });
  return device;
}

}  // namespace dtrain::launch
