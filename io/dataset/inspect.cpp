#include "io/dataset/inspect.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "io/dataset/channel_statistics.hpp"
#include "io/dataset/detect.hpp"
#include "io/hdf5/column.hpp"
#include "io/hdf5/stored.hpp"
#include "io/text/token_file.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

constexpr std::uint64_t look_bytes = std::uint64_t{256} << 20;  // data sets up to this size are read
constexpr std::size_t max_classes = 1000;                       // of a histogram

struct Statistics {
  double min = INFINITY, max = -INFINITY, sum = 0;
  std::uint64_t count = 0, nonfinite = 0;
};

Statistics statistics_of(StoredType type, const std::vector<std::byte>& bytes) {
  return with_stored_type(type, [&](auto value) {
    Statistics s;
    for (std::size_t at = 0; at < bytes.size(); at += sizeof value) {
      std::memcpy(&value, bytes.data() + at, sizeof value);
      const auto x = static_cast<double>(value);
      if (!std::isfinite(x)) {
        ++s.nonfinite;
        continue;
      }
      s.min = std::min(s.min, x);
      s.max = std::max(s.max, x);
      s.sum += x;
      ++s.count;
    }
    return s;
  });
}

/// What data.normalize may say of the samples; of a large set, every so many samples are looked at.
void add_normalize(const std::string& path, const h5::DatasetInfo& samples, std::string& text,
                   nlohmann::ordered_json& json) {
  if (samples.rows() == 0 || samples.row_bytes() == 0) return;
  const Column column(path, samples);
  const std::span<const std::uint64_t> sample = std::span(samples.dims).subspan(1);
  ChannelStatistics statistics(*samples.type, sample, ChannelStatistics::last_by_shape(sample));
  const std::uint64_t most = std::max<std::uint64_t>(1, look_bytes / samples.row_bytes());
  const std::uint64_t step = (samples.rows() + most - 1) / most;
  std::vector<std::byte> row(samples.row_bytes());
  for (std::uint64_t i = 0; i < samples.rows(); i += step) {
    column.read_row(i, row.data());
    statistics.add(row.data(), 1);
  }
  const std::string normalize = statistics.normalize();
  if (normalize.empty()) return;
  text += fmt::format("normalize: {}{}\n", normalize, step > 1 ? fmt::format(" (one sample in {})", step) : "");
  json["normalize"] = {{"scale", statistics.scale()},
                       {"mean", statistics.mean()},
                       {"standard_deviation", statistics.standard_deviation()}};
}

/// What training would take as samples and targets. `contents`: of small data sets, by their path.
void add_samples(const h5::File& file, const std::map<std::string, std::vector<std::byte>>& contents, std::string& text,
                 nlohmann::ordered_json& json) {
  const Detected found = detect(file, "", "", TargetUse::automatic);
  json["sample"] = found.sample.path;
  json["count"] = found.sample.rows();
  text += fmt::format("samples: {} ({})\n", found.sample.path, found.sample.rows());
  add_normalize(file.path(), found.sample, text, json);
  if (found.target) {
    const h5::DatasetInfo& t = *found.target;
    json["target"] = t.path;
    const bool integers = !is_float(*t.type);
    text += fmt::format("targets: {} ({})\n", t.path, integers ? "labels" : "values");
    const auto content = contents.find(t.path);
    if (integers && t.row_bytes() == size_of(*t.type) && content != contents.end()) {
      std::vector<std::uint64_t> histogram;
      for (std::size_t at = 0; at < content->second.size(); at += size_of(*t.type)) {
        const std::int64_t label = *stored_whole(*t.type, content->second.data() + at);
        if (label < 0 || label >= static_cast<std::int64_t>(max_classes)) {
          histogram.clear();
          break;
        }
        if (static_cast<std::size_t>(label) >= histogram.size()) histogram.resize(static_cast<std::size_t>(label) + 1);
        ++histogram[static_cast<std::size_t>(label)];
      }
      if (!histogram.empty()) {
        json["classes"] = histogram;
        text += fmt::format("classes: {}; samples of each: {}\n", histogram.size(), fmt::join(histogram, " "));
      }
    }
  } else {
    text += "targets: none found; name them with data.target_key\n";
  }
}

/// Of a file of tokens: whose they are, and how its first documents begin.
void add_text(const h5::File& file, const TokenFile& of, std::string& text, nlohmann::ordered_json& json) {
  constexpr std::uint64_t shown_documents = 3, shown_tokens = 40;
  const std::unique_ptr<Tokenizer> tokenizer = stored_tokenizer(file, of);
  const std::uint64_t documents = of.offsets.rows() - 1;
  text += fmt::format("text: {} tokens of {} document{}; tokenizer {}, {} ids, hash {}\n", of.tokens.rows(), documents,
                      documents == 1 ? "" : "s", of.tokenizer, tokenizer->vocabulary(), of.tokenizer_hash);
  json["text"] = {{"tokens", of.tokens.rows()},
                  {"documents", documents},
                  {"tokenizer", of.tokenizer},
                  {"tokenizer_hash", of.tokenizer_hash},
                  {"vocabulary", tokenizer->vocabulary()},
                  {"begin", nlohmann::ordered_json::array()}};
  for (const Document& d : first_documents(of, file.path(), *tokenizer, shown_documents, shown_tokens)) {
    json["text"]["begin"].push_back(d.begin);
    const std::string quoted = nlohmann::json(d.begin).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    text += fmt::format("  {}{} ({} tokens)\n", quoted, d.tokens > shown_tokens ? " ..." : "", d.tokens);
  }
}

}  // namespace

Inspection inspect(const std::string& path) {
  const h5::File file(path);
  const h5::File::Listing listing = file.list();
  nlohmann::ordered_json json;
  json["file"] = path;
  json["bytes"] = file.bytes();
  json["datasets"] = nlohmann::ordered_json::array();
  std::string text = fmt::format("{} ({} bytes)\n", path, file.bytes());
  std::map<std::string, std::vector<std::byte>> contents;
  for (const h5::DatasetInfo& d : listing.datasets) {
    nlohmann::ordered_json entry{{"path", d.path}, {"shape", d.dims}, {"dtype", d.type_text}};
    entry["chunks"] =
        d.storage == h5::Storage::chunked ? nlohmann::ordered_json(d.chunk) : nlohmann::ordered_json(nullptr);
    if (d.storage == h5::Storage::contiguous) entry["offset"] = d.offset;  // of its bytes in the file
    entry["filters"] = nlohmann::ordered_json::array();
    for (const auto& f : d.filters) entry["filters"].push_back(f.text);
    text += fmt::format("  {}  {}\n", d.text(), d.storage_text());
    if (!d.refused.empty()) {
      entry["refused"] = d.refused;
      if (d.type_text != "string")  // names of classes, say
        text += fmt::format("    cannot be used: {}\n", d.refused);
    } else if (d.rows() > 0 && d.row_bytes() > 0 && d.rows() <= look_bytes / d.row_bytes()) {
      const Column column(path, d);
      std::vector<std::byte> bytes(static_cast<std::size_t>(d.rows() * d.row_bytes()));
      column.read_all(bytes.data(), 1);
      const Statistics s = statistics_of(*d.type, bytes);
      if (s.count > 0) {
        const double mean = s.sum / static_cast<double>(s.count);
        entry["min"] = s.min;
        entry["max"] = s.max;
        entry["mean"] = mean;
        text += fmt::format("    min {:.6g}, max {:.6g}, mean {:.6g}\n", s.min, s.max, mean);
      }
      if (s.nonfinite > 0) {
        entry["nonfinite"] = s.nonfinite;
        text += fmt::format("    {} values are not finite\n", s.nonfinite);
      }
      if (d.dims.size() <= 2) contents.emplace(d.path, std::move(bytes));
    }
    json["datasets"].push_back(std::move(entry));
  }
  if (listing.datasets.empty()) text += "  no data sets\n";
  nlohmann::ordered_json notes = listing.notes;
  for (const char* name : {"sample", "target", "count", "classes", "normalize"}) json[name] = nullptr;
  try {
    if (const auto tokens = find_tokens(file)) {
      add_text(file, *tokens, text, json);
    } else {
      add_samples(file, contents, text, json);
    }
  } catch (const DataError& error) {
    notes.push_back(error.what());
  }
  for (const auto& note : notes) text += fmt::format("note: {}\n", note.get<std::string>());
  json["notes"] = std::move(notes);
  // Names come from the file and need not be UTF-8.
  return {text, json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n"};
}

}  // namespace dtrain::io
