#include "launch/cli/doctor.hpp"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "comm/place/topology.hpp"
#include "comm/world/libraries.hpp"
#include "io/hdf5/libraries.hpp"
#include "launch/base/text.hpp"
#include "launch/place/device_placement.hpp"
#include "launch/place/machine.hpp"
#include "runtime/config/version.hpp"
#include "runtime/device/device.hpp"
#include "runtime/device/gpu_monitor.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint64_t mib = 1 << 20, gib = 1 << 30;
constexpr std::uint64_t disk_probe_bytes = 64 * mib;

/// null: the kernel did not say; "unlimited": it sets none.
Json amount(std::uint64_t value) {
  if (value == Machine::unlimited) return "unlimited";
  return value == 0 ? Json() : Json(value);
}

std::string amount_text(const Json& value, bool bytes) {
  if (value.is_null()) return "unknown";
  if (value.is_string()) return value.get<std::string>();
  return bytes ? bytes_text(value.get<double>()) : grouped(value.get<std::int64_t>());
}

struct Advice {
  std::string what, remedy;
};

/// What is missing on one host that runs `ranks` ranks.
std::vector<Advice> advice_for(const Machine& m, const Disk& disk, int ranks, int rank_cpus) {
  std::vector<Advice> out;
  if (m.cpu_quota > 0 && m.cpu_quota < m.allowed_cpus)
    out.push_back({fmt::format("the container may use {:.1f} of {} cpus", m.cpu_quota, m.allowed_cpus),
                   fmt::format("give ranks x threads = {} at most: set `threads`, or raise the container's limit",
                               std::max(1, static_cast<int>(m.cpu_quota)))});
  if (ranks > m.cpus && m.cpus > 0)
    out.push_back({fmt::format("{} ranks share {} cpus", ranks, m.cpus), "start one rank a core, or fewer"});
  if (ranks > 1 && rank_cpus == 1 && m.cores / ranks > 1)
    out.push_back({fmt::format("each rank may use 1 cpu of {}", m.cpus),
                   "give mpirun another binding, `--bind-to none` say, or srun more `--cpus-per-task`"});
  if (!m.instructions.empty() && !m.has("avx2"))
    out.push_back({"this processor has no AVX2", "expect a fraction of the usual speed"});
  if (!m.has("avx512_bf16") && !m.has("amx_bf16"))
    out.push_back({"this processor has no bfloat16 instructions", "use precision: float32, which is faster here"});
  if (m.memory_available > 0 && m.memory_available < gib)
    out.push_back({fmt::format("only {} of memory are free", bytes_text(static_cast<double>(m.memory_available))),
                   "end what uses it; `dtrain check` says what a rank needs"});
  if (m.open_files > 0 && m.open_files < 1024)
    out.push_back({fmt::format("a process may open {} files", m.open_files), "raise it: ulimit -n 4096"});
  if (m.shared_memory > 0 && m.shared_memory < 64 * mib * static_cast<std::uint64_t>(ranks))
    out.push_back({fmt::format("/dev/shm has {} for {} ranks", bytes_text(static_cast<double>(m.shared_memory)), ranks),
                   "enlarge it: docker run --shm-size=1g, or mount -o remount,size=1g /dev/shm"});
  if (m.infiniband && m.locked_memory < 64 * mib)
    out.push_back({"InfiniBand is here, but a process may lock little memory", "raise it: ulimit -l unlimited"});
  std::string why;
  if (m.nvidia_driver && cuda_device_count(why) == 0)
    out.push_back({fmt::format("there is an NVIDIA driver, but no usable GPU: {}", why),
                   "see what nvidia-smi says, and build with -DDTRAIN_CUDA=ON"});
  if (!disk.problem.empty())
    out.push_back({fmt::format("{} cannot be written: {}", disk.directory, disk.problem),
                   "name another place: log.directory, or doctor --directory"});
  else if (disk.free < gib)
    out.push_back({fmt::format("{} has {} left", disk.directory, bytes_text(static_cast<double>(disk.free))),
                   "make room: a checkpoint holds parameters and optimizer state, several are kept"});
  else if (disk.write_rate < 50e6)
    out.push_back({fmt::format("{} takes {}B/s", disk.directory, quantity(disk.write_rate)),
                   "checkpoints will be slow: save less often, or to another disk"});
  if (find_program("mpirun").empty())
    out.push_back({"there is no mpirun in PATH", "install Open MPI (Debian: openmpi-bin), or start runs by srun"});
  return out;
}

/// "NVIDIA H200, 139.8 GiB; NUMA node 0, mlx5_0 (400 Gbit/s), PCI Express 5 x 16, 18 NVLinks"
Json gpu_names(const GpuMonitor& monitor) {
  Json out = Json::array();
  const std::vector<GpuIdentity> gpus = cuda_gpus();
  if (gpus.empty()) return out;
  const auto topology = comm::Topology::of_this_machine();
  for (const GpuIdentity& g : gpus) {
    const comm::NearDevice near = topology.near(g.bus_id);
    const comm::NetworkCard card = comm::choose_card(near.networks);
    const auto links = monitor.links(g.bus_id);
    std::vector<std::string> parts;
    if (near.numa_node >= 0) parts.push_back(fmt::format("NUMA node {}", near.numa_node));
    if (!card.name.empty()) parts.push_back(card_text(card.name, card.rate));
    if (links && links->pcie_lanes > 0)
      parts.push_back(fmt::format("PCI Express {} x {}", links->pcie_generation, links->pcie_lanes));
    if (links && !links->nvlinks.empty()) parts.push_back(fmt::format("{} NVLinks", links->nvlinks.size()));
    out.push_back(fmt::format("{}, {}{}{}", g.name, bytes_text(static_cast<double>(g.memory)),
                              parts.empty() ? "" : "; ", fmt::join(parts, ", ")));
  }
  return out;
}

// ---- which rank would compute where

/// The device placement of a run with default settings, or why there would be none. Where no GPU can be asked, those
/// that CUDA_VISIBLE_DEVICES names stand in: what a launcher gives to ranks can be seen on any host.
struct DryPlacement {
  DevicePlacement placement;
  std::string problem;
  bool stand_ins = false;
};

DryPlacement dry_placement(comm::World& world, Group& group) {
  DryPlacement out;
  PlacementSources sources = this_machine();
  sources.view = [&out, ask = sources.view](const std::string& host) {
    RankView view = ask(host);
    if (!view.gpus.empty()) return view;
    const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (visible != nullptr) view.gpus = named_gpus(host, visible);
    out.stand_ins = !view.gpus.empty();
    return view;
  };
  try {
    out.placement = choose_placement({}, world, group, sources);
  } catch (const Error& e) {  // thrown by all alike
    out.problem = e.what();
  }
  return out;
}

Json to_json(const RankPlace& p) {
  return {{"ordinal", p.ordinal},
          {"name", p.gpu.name},
          {"uuid", p.gpu.uuid},
          {"bus_id", p.gpu.bus_id},
          {"numa_node", p.numa_node < 0 ? Json() : Json(p.numa_node)},
          {"network", p.network.empty() ? Json() : Json(p.network)}};
}

/// What NVML says of each GPU now; null where it does not know.
Json gpu_readings(const GpuMonitor& monitor) {
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(); };
  Json out = Json::array();
  for (const GpuReading& r : monitor.read_all())
    out.push_back({{"name", r.name},
                   {"bus_id", r.bus_id},
                   {"memory_bytes", or_null(r.memory_total)},
                   {"memory_used_bytes", or_null(r.memory_used)},
                   {"utilization_percent", or_null(r.utilization)},
                   {"watts", or_null(r.watts)},
                   {"celsius", or_null(r.celsius)},
                   {"counts_energy", r.joules.has_value()}});
  return out;
}

/// One host, as its first rank sees it.
Json describe_host(const comm::World& world, const std::string& directory) {
  const Machine m = read_machine();
  const Disk disk = measure_disk(directory, disk_probe_bytes);
  std::string why;
  const int gpus = cuda_device_count(why);
  const GpuMonitor monitor;
  Json advice = Json::array();
  for (const Advice& a : advice_for(m, disk, world.local_size(), world.cpus()))
    advice.push_back({{"what", a.what}, {"do", a.remedy}});
  return {
      {"host", world.host()},
      {"system", m.system},
      {"kernel", m.kernel},
      {"cpu",
       {{"model", m.cpu},
        {"sockets", m.sockets},
        {"cores", m.cores},
        {"cpus", m.cpus},
        {"quota", m.cpu_quota > 0 ? Json(m.cpu_quota) : Json()},
        {"instructions", m.instructions}}},
      {"memory",
       {{"bytes", amount(m.memory)}, {"available", amount(m.memory_available)}, {"limit", amount(m.memory_limit)}}},
      {"limits",
       {{"open_files", amount(m.open_files)},
        {"locked_memory", amount(m.locked_memory)},
        {"shared_memory", amount(m.shared_memory)},
        {"shared_memory_free", amount(m.shared_memory_free)}}},
      {"gpus",
       {{"devices", gpu_names(monitor)},
        {"why_none", gpus == 0 ? Json(why) : Json()},
        {"driver", monitor.driver().empty() ? Json() : Json(monitor.driver())},
        {"nvml", gpu_readings(monitor)},
        {"why_no_nvml", monitor.why_not().empty() ? Json() : Json(monitor.why_not())}}},
      {"infiniband", m.infiniband},
      {"mpirun", find_program("mpirun")},
      {"directory",
       {{"path", disk.directory},
        {"bytes", amount(disk.bytes)},
        {"free", amount(disk.free)},
        {"write_bytes_per_second", disk.write_rate},
        {"problem", disk.problem.empty() ? Json() : Json(disk.problem)}}},
      {"warnings", advice},
  };
}

/// "3 % busy, 0.9 of 139.8 GiB used, 55 C, 612 W"
std::string gpu_text(const Json& g) {
  std::vector<std::string> parts;
  if (!g["utilization_percent"].is_null())
    parts.push_back(fmt::format("{} % busy", g["utilization_percent"].get<int>()));
  if (!g["memory_used_bytes"].is_null())
    parts.push_back(fmt::format("{} of {} used", bytes_text(g["memory_used_bytes"].get<double>()),
                                bytes_text(g["memory_bytes"].get<double>())));
  if (!g["celsius"].is_null()) parts.push_back(fmt::format("{} C", g["celsius"].get<int>()));
  if (!g["watts"].is_null()) parts.push_back(fmt::format("{:.0f} W", g["watts"].get<double>()));
  if (!g["counts_energy"].get<bool>()) parts.emplace_back("does not count its energy");
  return fmt::format("{} at {}: {}", g["name"].get<std::string>(), g["bus_id"].get<std::string>(),
                     fmt::join(parts, ", "));
}

Json library_list() {
  std::vector<Library> all = runtime_libraries();
  for (const auto& list : {comm::comm_libraries(), io::io_libraries()}) all.insert(all.end(), list.begin(), list.end());
  Json out = Json::array();
  for (const Library& l : all)
    out.push_back({{"name", l.name}, {"version", l.version.empty() ? Json() : Json(l.version)}, {"remark", l.remark}});
  return out;
}

std::string host_text(const Json& h) {
  const Json &cpu = h["cpu"], &memory = h["memory"], &limits = h["limits"], &disk = h["directory"];
  std::vector<std::pair<std::string, std::string>> rows;
  rows.emplace_back("system",
                    fmt::format("{}, Linux {}", h["system"].get<std::string>(), h["kernel"].get<std::string>()));
  rows.emplace_back(
      "cpu",
      fmt::format(
          "{}: {} cpus, {} cores, {} {}{}", cpu["model"].get<std::string>(), cpu["cpus"].get<int>(),
          cpu["cores"].get<int>(), cpu["sockets"].get<int>(), cpu["sockets"] == 1 ? "socket" : "sockets",
          cpu["quota"].is_null() ? "" : fmt::format("; the container may use {:.1f}", cpu["quota"].get<double>())));
  rows.emplace_back("instructions",
                    fmt::format("{}", fmt::join(cpu["instructions"].get<std::vector<std::string>>(), " ")));
  rows.emplace_back("memory",
                    fmt::format("{}, {} available, the container's limit {}", amount_text(memory["bytes"], true),
                                amount_text(memory["available"], true), amount_text(memory["limit"], true)));
  rows.emplace_back(
      "limits", fmt::format("{} open files, {} of locked memory, /dev/shm {}", amount_text(limits["open_files"], false),
                            amount_text(limits["locked_memory"], true), amount_text(limits["shared_memory"], true)));
  const auto devices = h["gpus"]["devices"].get<std::vector<std::string>>();
  if (devices.empty()) rows.emplace_back("GPUs", "none: " + h["gpus"]["why_none"].get<std::string>());
  for (std::size_t i = 0; i < devices.size(); ++i) rows.emplace_back(fmt::format("GPU {}", i), devices[i]);
  if (!h["gpus"]["driver"].is_null()) rows.emplace_back("NVIDIA driver", h["gpus"]["driver"].get<std::string>());
  for (const Json& g : h["gpus"]["nvml"]) rows.emplace_back("NVML", gpu_text(g));
  if (h["gpus"]["nvml"].empty() && !devices.empty() && !h["gpus"]["why_no_nvml"].is_null())
    rows.emplace_back("NVML", "nothing to be seen: " + h["gpus"]["why_no_nvml"].get<std::string>());
  const auto mpirun = h["mpirun"].get<std::string>();
  rows.emplace_back("mpirun", mpirun.empty() ? "not in PATH" : mpirun);
  rows.emplace_back(
      "disk", fmt::format("{}: {} free of {}, {}", disk["path"].get<std::string>(), amount_text(disk["free"], true),
                          amount_text(disk["bytes"], true),
                          disk["problem"].is_null()
                              ? quantity(disk["write_bytes_per_second"].get<double>()) + "B/s written and synced"
                              : disk["problem"].get<std::string>()));
  for (const auto& rank : h["ranks"])
    rows.emplace_back(fmt::format("rank {}", rank["rank"].get<int>()),
                      fmt::format("may use {} cpus", rank["cpus"].get<int>()));
  std::string out = fmt::format("Host {}\n", h["host"].get<std::string>());
  for (const auto& [name, value] : rows) out += fmt::format("  {:<14}{}\n", name, value);
  return out;
}

std::string report_text(const Json& report) {
  std::string out = fmt::format(
      "dtrain {}, {} {} on {} {}, launched by {}\n\nLibraries\n", report["dtrain"].get<std::string>(),
      report["launch"]["ranks"].get<int>(), report["launch"]["ranks"] == 1 ? "rank" : "ranks", report["hosts"].size(),
      report["hosts"].size() == 1 ? "host" : "hosts",
      report["launch"]["launcher"] == "none" ? "hand, without MPI" : report["launch"]["launcher"].get<std::string>());
  for (const Json& l : report["libraries"]) {
    const auto remark = l["remark"].get<std::string>();
    out += fmt::format("  {:<14}{}{}\n", l["name"].get<std::string>(),
                       l["version"].is_null() ? "" : l["version"].get<std::string>(),
                       remark.empty() ? "" : (l["version"].is_null() ? "" : ", ") + remark);
  }
  for (const Json& host : report["hosts"]) out += "\n" + host_text(host);
  if (!report["gpu_table"].is_null())
    out += fmt::format("\nRanks and GPUs{}\n{}",
                       report["gpus_as_named"] == true ? ", as CUDA_VISIBLE_DEVICES names them: none can be asked" : "",
                       report["gpu_table"].get<std::string>());
  for (const Json& note : report["notes"]) out += "\nNote: " + note.get<std::string>() + "\n";
  out += report["warnings"].empty() ? "\nNothing to complain about.\n" : "\n";
  for (const Json& w : report["warnings"])
    out += fmt::format("Warning: {}{}; {}\n",
                       report["hosts"].size() > 1 && w.contains("host") ? w["host"].get<std::string>() + ": " : "",
                       w["what"].get<std::string>(), w["do"].get<std::string>());
  return out;
}

/// What should be the same everywhere and is not.
void compare_hosts(const std::vector<Json>& ranks, Json& warnings) {
  const auto differs = [&](const char* key, const char* what, const char* remedy) {
    std::map<std::string, std::string> first_host;  // by value
    for (const Json& r : ranks) first_host.emplace(r[key].dump(), r["host"].get<std::string>());
    if (first_host.size() < 2) return;
    std::vector<std::string> values;
    for (const auto& [value, host] : first_host) values.push_back(fmt::format("{} on {}", value, host));
    warnings.push_back(
        {{"what", fmt::format("hosts differ in {}: {}", what, fmt::join(values, ", "))}, {"do", remedy}});
  };
  differs("dtrain", "the version of dtrain", "start the same build everywhere: training refuses this");
  differs("libraries", "their libraries", "results may differ from host to host: install the same");
  differs("cpu", "their processors", "a step takes as long as on the slowest; other instructions give other roundings");
}

}  // namespace

DoctorReport doctor(comm::World& world, const std::string& directory) {
  const auto group = world.make_group();
  Json mine{{"host", world.host()}, {"rank", world.rank()}, {"local_rank", world.local_rank()},
            {"cpus", world.cpus()}, {"dtrain", version()},  {"cpu", nullptr}};
  mine["libraries"] = library_list();
  const DryPlacement dry = dry_placement(world, *group);
  mine["cpus"] = world.cpus();  // near the GPU
  mine["gpus_as_named"] = dry.stand_ins;
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  mine["cuda_visible_devices"] = visible != nullptr ? Json(visible) : Json();
  group->agree([&] {
    if (world.local_rank() == 0) mine["facts"] = describe_host(world, directory);
    mine["cpu"] = read_machine().cpu;
  });
  std::vector<Json> ranks;
  for (const std::string& text : group->all_gather(mine.dump())) ranks.push_back(Json::parse(text));

  Json hosts = Json::array(), warnings = Json::array();
  std::map<std::string, std::size_t> place;
  for (const Json& r : ranks) {
    if (!r.contains("facts")) continue;
    place.emplace(r["host"].get<std::string>(), hosts.size());
    hosts.push_back(r["facts"]);
    for (Json w : r["facts"]["warnings"]) {
      w["host"] = r["host"];
      warnings.push_back(w);
    }
    hosts.back().erase("warnings");
    hosts.back()["ranks"] = Json::array();
  }
  const auto& places = dry.placement.places;
  bool stand_ins = false;
  for (const Json& r : ranks) {
    const auto number = r["rank"].get<std::size_t>();
    hosts[place.at(r["host"].get<std::string>())]["ranks"].push_back(
        {{"rank", r["rank"]},
         {"local_rank", r["local_rank"]},
         {"cpus", r["cpus"]},
         {"cuda_visible_devices", r["cuda_visible_devices"]},
         {"gpu", places.empty() ? Json() : to_json(places[number])}});
    stand_ins = stand_ins || r["gpus_as_named"] == true;
  }
  std::vector<std::string> complaints = dry.placement.warnings;
  if (!dry.problem.empty()) complaints.push_back(dry.problem);
  for (const std::string& text : complaints) {
    const auto end = std::min(text.find("; "), text.size());
    warnings.push_back({{"what", text.substr(0, end)}, {"do", text.substr(std::min(end + 2, text.size()))}});
  }
  compare_hosts(ranks, warnings);
  const auto launch = comm::discover_launch(comm::process_environment());
  const Json report{{"dtrain", version()},
                    {"launch", {{"launcher", comm::name_of(launch.launcher)}, {"ranks", world.size()}}},
                    {"libraries", mine["libraries"]},
                    {"hosts", hosts},
                    {"gpus_as_named", stand_ins},
                    {"gpu_table", places.empty() ? Json() : Json(dry.placement.table())},
                    {"notes", world.notes()},
                    {"warnings", warnings}};
  return {report_text(report), report.dump(2) + "\n"};
}

}  // namespace dtrain::launch
