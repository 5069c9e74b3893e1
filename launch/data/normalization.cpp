#include "launch/data/normalization.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "io/dataset/channel_statistics.hpp"
#include "io/dataset/convert.hpp"
#include "launch/data/data.hpp"

namespace dtrain::launch {

namespace {

using Json = nlohmann::json;

/// Parts of the set that are added in their order, whichever rank read them.
constexpr std::size_t parts = 256;
constexpr std::size_t most_listed = 3;

std::string key_of(const models::Port& port) {
  return fmt::format("normalize/{}/{}", port.use == PortUse::input ? "input" : "target", port.data);
}
std::string setting_of(const models::Port& port) {
  return fmt::format("data.{}.{}.normalize: auto", port.use == PortUse::input ? "inputs" : "targets", port.data);
}

bool is_automatic(const RunConfig& config, const models::Port& port) {
  return port.use != PortUse::weight && !port.indices && !port.data.empty() &&
         io::port_config(config.data, port.use, port.data, false).normalize.automatic;
}

/// What a rank's parts come to, one after another.
std::vector<double> moments_of(const io::Dataset& data, std::size_t port, const io::StoredChannels& channels, int rank,
                               int ranks) {
  const io::DataPort& stored = data.port(port);
  std::vector<std::byte> scratch(stored.scratch_bytes());
  std::vector<double> out;
  const auto begin = [](std::size_t r, std::size_t size) { return r * parts / size; };
  for (std::size_t p = begin(static_cast<std::size_t>(rank), static_cast<std::size_t>(ranks));
       p < begin(static_cast<std::size_t>(rank) + 1, static_cast<std::size_t>(ranks)); ++p) {
    io::ChannelStatistics part(stored.type, channels.channels, channels.pixels, channels.last);
    for (std::uint64_t i = io::part_begin(data.count(), p, parts); i < io::part_begin(data.count(), p + 1, parts);
         ++i) {
      const io::Dataset::Row row = data.row(port, i, scratch.data());
      part.add(row.data, static_cast<std::uint64_t>(row.length));
    }
    const std::vector<double> moments = part.moments();
    out.insert(out.end(), moments.begin(), moments.end());
  }
  return out;
}

io::ChannelStatistics statistics_of(const io::Dataset& data, std::size_t port, const io::StoredChannels& channels,
                                    Group& group) {
  std::vector<double> mine;
  group.agree([&] { mine = moments_of(data, port, channels, group.rank(), group.size()); });
  io::ChannelStatistics all(data.port(port).type, channels.channels, channels.pixels, channels.last);
  const std::size_t size = io::ChannelStatistics::moments_of(channels.channels);
  for (const std::vector<std::byte>& bytes : group.all_gather(std::as_bytes(std::span(mine)))) {
    std::vector<double> part(size);
    for (std::size_t at = 0; at + size * sizeof(double) <= bytes.size(); at += size * sizeof(double)) {
      std::memcpy(part.data(), bytes.data() + at, size * sizeof(double));
      all.merge(part);
    }
  }
  return all;
}

std::string to_text(const io::Normalize& n) {
  return Json{{"scale", n.scale}, {"mean", n.mean}, {"standard_deviation", n.standard_deviation}}.dump();
}

io::Normalize from_text(const std::string& text) {
  const Json json = Json::parse(text);
  return {json.at("scale").get<double>(), json.at("mean").get<std::vector<double>>(),
          json.at("standard_deviation").get<std::vector<double>>(), false};
}

std::string list_of(const std::vector<double>& values) {
  std::string text;
  for (std::size_t i = 0; i < std::min(values.size(), most_listed); ++i)
    text += fmt::format("{}{:.6g}", i == 0 ? "" : ", ", values[i]);
  return values.size() > most_listed ? fmt::format("[{} and {} more]", text, values.size() - most_listed)
                                     : fmt::format("[{}]", text);
}

/// Stored values that do not vary stay apart from 0 by nothing; they are not divided.
io::Normalize numbers_of(const io::ChannelStatistics& s, const models::Port& port, std::vector<std::string>& lines) {
  const double scale = s.scale();
  io::Normalize n{scale, s.mean(), s.standard_deviation(), false};
  std::vector<double> still;
  for (std::size_t c = 0; c < n.mean.size(); ++c) {
    if (!std::isfinite(n.mean[c]) || !std::isfinite(n.standard_deviation[c]))
      throw DataError(
          fmt::format("{}: the mean or the standard deviation of channel {} is not finite, as values of the "
                      "training set are not; `dtrain check` finds the first such value",
                      setting_of(port), c));
    if (n.standard_deviation[c] > 0) continue;
    n.standard_deviation[c] = 1;
    still.push_back(static_cast<double>(c));
  }
  lines.push_back(fmt::format("{}: mean {}, standard deviation {} of the training set", setting_of(port),
                              list_of(n.mean), list_of(n.standard_deviation)));
  if (!still.empty())
    lines.push_back(fmt::format("{}: the values of channels {} do not vary: only their mean is subtracted",
                                setting_of(port), list_of(still)));
  return n;
}

}  // namespace

std::vector<std::string> settle_normalization(RunConfig& config, const Graph& graph, const models::StoredPorts& stored,
                                              const io::Dataset& train, Group& group, RunChoices& choices,
                                              bool resumes) {
  std::vector<std::string> lines;
  const models::Ports ports = models::ports_of(config.model, stored);
  const io::LoaderOptions loading = loader_options(config, graph, stored, train, DataUse::training);
  for (std::size_t i = 0; i < loading.ports.size(); ++i) {
    const models::Port& port = ports.all[i];
    if (!is_automatic(config, port)) continue;
    const auto measure = [&] {
      const auto source = static_cast<std::size_t>(loading.ports[i].source);
      const io::StoredChannels channels =
          io::stored_channels(train, source, loading.layout.ports[i].desc.sample(), loading.ports[i].layout);
      return to_text(numbers_of(statistics_of(train, source, channels, group), port, lines));
    };
    const std::string text =
        resumes ? choices.choose(key_of(port), measure) : choices.choose_again(key_of(port), measure);
    io::normalize_of(config.data, port.use, port.data) = from_text(text);
  }
  return lines;
}

void recall_normalization(RunConfig& config, const std::map<std::string, std::string>& choices,
                          const std::string& path) {
  for (const models::Port& port : models::ports_of(config.model).all) {
    if (!is_automatic(config, port)) continue;
    const auto at = choices.find(key_of(port));
    if (at == choices.end())
      throw CheckpointError(
          fmt::format("{}: the checkpoint {} has no mean and standard deviation of it, as its run had "
                      "another setting; give the numbers",
                      setting_of(port), path),
          CheckpointError::Kind::incompatible);
    try {
      io::normalize_of(config.data, port.use, port.data) = from_text(at->second);
    } catch (const Json::exception& e) {
      throw CheckpointError(
          fmt::format("checkpoint {} is corrupt: its choice {} is none: {}", path, at->first, e.what()),
          CheckpointError::Kind::corrupt);
    }
  }
}

io::Normalize normalization_of_output(const RunConfig& config, const std::string& output) {
  for (const models::ModelLoss& loss : models::losses_of(config.model))
    if (loss.kind == models::Loss::mean_squared_error && (loss.of.empty() || loss.of == output))
      return io::port_config(config.data, PortUse::target, loss.target, false).normalize;
  return {};
}

}  // namespace dtrain::launch
