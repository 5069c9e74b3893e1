#include "launch/plan/profile.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <xxhash.h>

#include "launch/report/run_files.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr int format = 2;

Json to_json(const CommProfile& c) {
  Json points = Json::array();
  for (const auto& p : c.points)
    points.push_back({{"bytes", p.bytes}, {"seconds", p.seconds}, {"processor", p.processor}});
  return {{"ranks", c.ranks}, {"hosts", c.hosts}, {"algorithm", c.algorithm}, {"points", points}};
}

Json to_json(const StepProfile& s) {
  return {
      {"work", s.work},
      {"micro", s.micro},
      {"ranks_on_host", s.ranks_on_host},
      {"threads", s.threads},
      {"cpus", s.cpus},
      {"seconds",
       {{"data", s.data}, {"forward", s.forward}, {"backward", s.backward}, {"update", s.update}, {"other", s.other}}},
      {"ready", s.ready},
      {"ends", s.ends}};
}

CommProfile comm_of(const Json& j) {
  CommProfile c{j.at("ranks").get<int>(), j.at("hosts").get<int>(), j.at("algorithm").get<std::string>(), {}};
  for (const Json& p : j.at("points"))
    c.points.push_back({p.at("bytes").get<double>(), p.at("seconds").get<double>(), p.at("processor").get<double>()});
  return c;
}

StepProfile step_of(const Json& j) {
  StepProfile s;
  s.work = j.at("work").get<std::string>();
  s.micro = j.at("micro").get<std::int64_t>();
  s.ranks_on_host = j.at("ranks_on_host").get<int>();
  s.threads = j.at("threads").get<int>();
  s.cpus = j.at("cpus").get<double>();
  const Json& seconds = j.at("seconds");
  s.data = seconds.at("data").get<double>();
  s.forward = seconds.at("forward").get<double>();
  s.backward = seconds.at("backward").get<double>();
  s.update = seconds.at("update").get<double>();
  s.other = seconds.at("other").get<double>();
  s.ready = j.at("ready").get<std::vector<double>>();
  s.ends = j.at("ends").get<std::vector<double>>();
  if (s.ready.size() != s.ends.size()) throw ConfigError("");
  return s;
}

bool same_conditions(const CommProfile& a, const CommProfile& b) {
  return a.ranks == b.ranks && a.hosts == b.hosts && a.algorithm == b.algorithm;
}
bool same_conditions(const StepProfile& a, const StepProfile& b) {
  return a.work == b.work && a.micro == b.micro && a.ranks_on_host == b.ranks_on_host && a.threads == b.threads;
}

template <class Part>
void put(std::vector<Part>& parts, const Part& part) {
  std::erase_if(parts, [&](const Part& old) { return same_conditions(old, part); });
  parts.push_back(part);
}

void write(const std::string& path, const Profile& profile) {
  Json comm = Json::array(), steps = Json::array();
  for (const auto& c : profile.comm) comm.push_back(to_json(c));
  for (const auto& s : profile.steps) steps.push_back(to_json(s));
  const fs::path file(path);
  const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
  write_whole_file(folder, file.filename().string(),
                   Json{{"dtrain_profile", format}, {"comm", comm}, {"steps", steps}}.dump(1) + "\n");
}

Profile read_or_new(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? read_profile(path) : Profile{};
}

}  // namespace

std::string work_hash(const LoadedConfig& loaded) {
  constexpr const char* sections[] = {
      "model.", "memory.", "optimizer.", "precision", "device", "deterministic", "communication.gradient_dtype"};
  std::string text;
  for (const auto& field : loaded.fields)
    if (std::any_of(std::begin(sections), std::end(sections),
                    [&](const char* s) { return field.first.starts_with(s); }))
      text += field.first + "=" + field.second + "\n";
  return fmt::format("{:016x}", XXH3_64bits(text.data(), text.size()));
}

Profile read_profile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (!in && text.empty())
    throw ConfigError(fmt::format(
        "--profile: cannot read {}; make it with `dtrain bench step CONFIG --profile {}` and `mpirun -np 2 dtrain "
        "bench comm --profile {}`",
        path, path, path));
  Profile profile;
  try {
    const Json j = Json::parse(text);
    if (j.at("dtrain_profile") != format) throw ConfigError("");
    for (const Json& c : j.at("comm")) profile.comm.push_back(comm_of(c));
    for (const Json& s : j.at("steps")) profile.steps.push_back(step_of(s));
  } catch (const std::exception&) {
    throw ConfigError(fmt::format(
        "--profile: {} is no profile of this version of dtrain; name another file, or remove this one", path));
  }
  return profile;
}

void note(const std::string& path, const CommProfile& part) {
  Profile profile = read_or_new(path);
  put(profile.comm, part);
  write(path, profile);
}

void note(const std::string& path, const StepProfile& part) {
  Profile profile = read_or_new(path);
  put(profile.steps, part);
  write(path, profile);
}

}  // namespace dtrain::launch
