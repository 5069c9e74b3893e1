#include "launch/report/run_choices.hpp"

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "launch/report/run_files.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

constexpr const char* file_name = "choices.txt";
constexpr std::string_view of_device = "algorithm/";

AlgorithmChoices algorithms(const AlgorithmChoices& all) {
  AlgorithmChoices out;
  for (const auto& [name, text] : all.all())
    if (name.starts_with(of_device)) out.set(name.substr(of_device.size()), text);
  return out;
}
AlgorithmChoices named(const AlgorithmChoices& algorithms) {
  AlgorithmChoices out;
  for (const auto& [key, text] : algorithms.all()) out.set(std::string(of_device) + key, text);
  return out;
}
/// What the first has, and the second has not, or otherwise.
AlgorithmChoices beyond(const AlgorithmChoices& more, const AlgorithmChoices& base) {
  AlgorithmChoices out;
  for (const auto& [key, text] : more.all())
    if (const std::string* known = base.find(key); known == nullptr || *known != text) out.set(key, text);
  return out;
}

AlgorithmChoices read(const std::string& path) {
  require_regular(path);
  std::ifstream in(path, std::ios::binary);
  if (!in) throw CheckpointError(fmt::format("{}: cannot read; remove it to measure again", path));
  std::ostringstream text;
  text << in.rdbuf();
  try {
    return AlgorithmChoices::parse(text.str());
  } catch (const CheckpointError& e) {
    throw CheckpointError(fmt::format("{}: {}; remove the file to measure again", path, e.what()), e.kind());
  }
}

}  // namespace

AlgorithmChoices RunChoices::shared(const AlgorithmChoices& mine) const {
  return AlgorithmChoices::parse(group_.broadcast(mine.text()));
}

void RunChoices::recall(const std::string& directory) {
  AlgorithmChoices found;
  group_.agree([&] {
    const std::string path = (std::filesystem::path(directory) / file_name).string();
    std::error_code ignored;
    if (group_.rank() == 0 && std::filesystem::exists(path, ignored)) found = read(path);
  });
  all_.merge(shared(found));
}

void RunChoices::recall(const std::map<std::string, std::string>& of_checkpoint) {
  for (const auto& [name, text] : of_checkpoint) {
    try {
      all_.set(name, text);
    } catch (const BugError& e) {  // not written by this program
      throw CheckpointError(fmt::format("the checkpoint has a choice that is none: {}", e.what()),
                            CheckpointError::Kind::corrupt);
    }
  }
}

std::string RunChoices::choose(const std::string& name, const std::function<std::string()>& measure) {
  if (const std::string* known = find(name)) return *known;
  return choose_again(name, measure);
}

std::string RunChoices::choose_again(const std::string& name, const std::function<std::string()>& measure) {
  std::string text;
  group_.agree([&] { text = measure(); });
  all_.set(name, group_.broadcast(text));
  return *find(name);
}

RunChoices::Tally RunChoices::prepare(Device& device, const std::function<void()>& prepare) {
  const AlgorithmChoices recalled = algorithms(all_);
  device.kernels().use(recalled);
  if (!group_.any(device.asynchronous())) {  // a cpu measures nothing
    group_.agree(prepare);
    return {recalled.all().size(), 0};
  }
  const bool first = group_.rank() == 0;
  group_.agree([&] {
    if (first) prepare();
  });
  const AlgorithmChoices of_first = shared(device.kernels().choices());
  if (!first) device.kernels().use(of_first);
  group_.agree([&] {
    if (!first) prepare();
  });
  // What a rank had to measure itself is kept as well; of several such ranks the first one's.
  AlgorithmChoices together;
  const std::vector<std::string> others = group_.all_gather(beyond(device.kernels().choices(), of_first).text());
  for (std::size_t r = others.size(); r-- > 0;) together.merge(AlgorithmChoices::parse(others[r]));
  together.merge(of_first);
  all_.merge(named(together));
  return {recalled.all().size(), beyond(of_first, recalled).all().size()};
}

void RunChoices::write(const std::string& directory) const {
  if (group_.rank() == 0 && !all().empty()) write_whole_file(directory, file_name, all_.text());
}

}  // namespace dtrain::launch
