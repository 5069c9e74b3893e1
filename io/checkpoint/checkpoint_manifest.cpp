#include "io/checkpoint/checkpoint_manifest.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint_digest.hpp"

namespace dtrain::io {
namespace {

using Json = nlohmann::json;

// Caps against hostile manifests; far above what a run writes.
constexpr std::uint64_t max_text_bytes = std::uint64_t{16} << 20;
constexpr std::uint64_t max_total_bytes = std::uint64_t{1} << 50;
constexpr std::size_t max_shards = 65536;
constexpr std::size_t max_name_bytes = 512;
constexpr int max_depth = 4;
constexpr std::uint64_t max_step = std::uint64_t{1} << 53;

[[noreturn]] void corrupt(const std::string& what) {
  throw CheckpointError(what, CheckpointError::Kind::corrupt);
}

// The file ends with the digest of everything before this tail, at a fixed place: it is checked before any parsing.
constexpr std::string_view tail_begin = ",\n \"sha256\": \"";
constexpr std::string_view tail_end = "\"\n}\n";
constexpr std::size_t tail_bytes = tail_begin.size() + 64 + tail_end.size();

std::string digest_of(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

/// Parses with a cap on the depth; duplicate keys are errors (the library would take the last one).
Json parse_strictly(std::string_view text) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&keys](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > max_depth) corrupt("MANIFEST.json is nested too deeply");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      corrupt(fmt::format("MANIFEST.json has the key {} twice", parsed.get<std::string>().substr(0, max_name_bytes)));
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception& e) {
    corrupt(fmt::format("MANIFEST.json is not valid JSON: {}", e.what()));
  }
}

/// Takes every member of an object exactly once, each with its type.
class Members {
 public:
  Members(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) corrupt(where_ + " is not an object");
  }
  const Json& take(const char* key) {
    const auto it = object_.find(key);
    if (it == object_.end()) corrupt(fmt::format("{} lacks the key {}", where_, key));
    ++taken_;
    return *it;
  }
  std::uint64_t number(const char* key, std::uint64_t cap = std::numeric_limits<std::uint64_t>::max()) {
    const auto& value = take(key);
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > cap) bad(key, "an integer in its range");
    return value.get<std::uint64_t>();
  }
  template <class T>
  std::optional<T> number_or_null(const char* key, T cap) {
    const auto& value = take(key);
    if (value.is_null()) return std::nullopt;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > cap) bad(key, "an integer in its range, or null");
    return value.get<T>();
  }
  double real(const char* key) {
    const auto& value = take(key);
    if (!value.is_number()) bad(key, "a number");
    return value.get<double>();
  }
  std::string text(const char* key) {
    const auto& value = take(key);
    if (!value.is_string()) bad(key, "a string");
    return value.get<std::string>();
  }
  /// Lower-case hex digits.
  std::string hex(const char* key, std::size_t digits) {
    auto value = text(key);
    if (value.size() != digits || value.find_first_not_of("0123456789abcdef") != std::string::npos) {
      bad(key, fmt::format("{} hex digits", digits));
    }
    return value;
  }
  const Json& array(const char* key, std::size_t cap) {
    const auto& value = take(key);
    if (!value.is_array() || value.size() > cap) bad(key, fmt::format("an array of at most {}", cap));
    return value;
  }
  std::map<std::string, std::string> texts(const char* key) {
    const auto& value = take(key);
    if (!value.is_object()) bad(key, "an object");
    std::map<std::string, std::string> out;
    for (const auto& [name, item] : value.items()) {
      if (!item.is_string()) bad(key, "an object of strings");
      out.emplace(name, item.get<std::string>());
    }
    return out;
  }
  /// JSON has no word for a NaN or infinity; they travel as null.
  std::map<std::string, double> reals(const char* key) {
    const auto& value = take(key);
    if (!value.is_object()) bad(key, "an object");
    std::map<std::string, double> out;
    for (const auto& [name, item] : value.items()) {
      if (!item.is_number() && !item.is_null()) bad(key, "an object of numbers");
      out.emplace(name, item.is_null() ? std::numeric_limits<double>::quiet_NaN() : item.get<double>());
    }
    return out;
  }
  void done() const {
    if (taken_ != object_.size()) corrupt(where_ + " has a key that does not belong there");
  }
  [[noreturn]] void bad(const char* key, const std::string& expected) const {
    corrupt(fmt::format("{}: {} is not {}", where_, key, expected));
  }

 private:
  const Json& object_;
  std::string where_;
  std::size_t taken_ = 0;
};

bool is_clean_name(const std::string& name) {
  return !name.empty() && name.size() <= max_name_bytes &&
         std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

ManifestTensor parse_tensor(const Json& json, std::size_t index) {
  Members m(json, fmt::format("tensor {}", index));
  ManifestTensor tensor;
  tensor.name = m.text("name");
  if (!is_clean_name(tensor.name)) m.bad("name", "a short printable name");
  const auto dtype = m.text("dtype");
  try {
    tensor.dtype = dtype_from_name(dtype);
  } catch (const Error&) {
    m.bad("dtype", "a known type");
  }
  const auto& shape = m.array("shape", Shape::max_rank);
  std::vector<std::int64_t> extents;
  std::uint64_t bytes = size_of(tensor.dtype);
  for (const auto& extent : shape) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > max_total_bytes) m.bad("shape", "a shape");
    const auto n = extent.get<std::uint64_t>();
    if (n != 0 && bytes > max_total_bytes / n) m.bad("shape", "of a size that can be");
    bytes *= n;
    extents.push_back(static_cast<std::int64_t>(n));
  }
  try {
    tensor.shape = Shape(std::span<const std::int64_t>(extents));
  } catch (const Error&) {
    m.bad("shape", "a shape");
  }
  tensor.offset = m.number("offset", max_total_bytes);
  tensor.bytes = m.number("bytes", max_total_bytes);
  if (tensor.bytes != bytes) m.bad("bytes", "what shape and dtype say");
  const auto hex = m.hex("xxh3", 16);
  std::from_chars(hex.data(), hex.data() + hex.size(), tensor.xxh3, 16);
  m.done();
  return tensor;
}

ManifestShard parse_shard(const Json& json, std::size_t index) {
  Members m(json, fmt::format("shard {}", index));
  // The name is stated for people; it can only be this one, so no manifest points outside of its directory.
  if (m.text("name") != shard_name(index)) m.bad("name", shard_name(index));
  ManifestShard shard;
  shard.begin = m.number("begin", max_total_bytes);
  shard.end = m.number("end", max_total_bytes);
  shard.sha256 = m.hex("sha256", 64);
  m.done();
  return shard;
}

RunState parse_state(Members& m, std::uint64_t format) {
  RunState s;
  s.step = m.number("step");
  s.applied_steps = m.number("applied_steps");
  s.samples = m.number("samples");
  s.epoch = m.real("epoch");
  s.global_batch = m.number("global_batch");
  s.seed = m.number("seed");
  s.loss_scale = m.real("loss_scale");
  if (format >= 2) s.good_steps = m.number_or_null("good_steps", std::numeric_limits<std::uint32_t>::max());
  s.data_fingerprint = m.text("data_fingerprint");
  s.configuration = m.text("configuration");
  s.configuration_hash = m.text("configuration_hash");
  for (const auto& field : m.array("fields", 100000)) {
    if (!field.is_array() || field.size() != 2 || !field[0].is_string() || !field[1].is_string()) {
      m.bad("fields", "pairs of strings");
    }
    s.fields.emplace_back(field[0].get<std::string>(), field[1].get<std::string>());
  }
  s.choices = m.texts("choices");
  s.metrics = m.reals("metrics");
  s.versions = m.texts("versions");
  s.world_size = static_cast<int>(m.number("world_size", 1 << 24));
  s.run_id = m.text("run_id");
  s.parent_run_id = m.text("parent_run_id");
  s.parameter_hash = m.text("parameter_hash");
  s.saved_at = m.text("saved_at");
  return s;
}

void check_layout(const Manifest& manifest) {
  std::set<std::string_view> names;
  std::uint64_t expected = 0;
  for (const auto& tensor : manifest.tensors) {
    if (tensor.offset != expected) corrupt(fmt::format("tensor {} does not start where it must", tensor.name));
    if (!names.insert(tensor.name).second) corrupt(fmt::format("tensor {} is there twice", tensor.name));
    expected = align_up(tensor.offset + tensor.bytes);
    if (expected > max_total_bytes) corrupt("the tensors are larger than any disk");
  }
  if (manifest.total_bytes != expected) corrupt("total_bytes is not the sum of the tensors");
  if (manifest.shards.empty()) corrupt("there is no shard");
  std::uint64_t begin = 0;
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    const auto& shard = manifest.shards[i];
    if (shard.begin != begin || shard.end < begin || shard.end % checkpoint_alignment != 0) {
      corrupt(fmt::format("{} does not follow on the one before it", shard_name(i)));
    }
    begin = shard.end;
  }
  if (begin != manifest.total_bytes) corrupt("the shards do not hold all tensors");
}

}  // namespace

std::string shard_name(std::size_t index) {
  return fmt::format("shard-{:05}.bin", index);
}

std::string step_name(std::uint64_t step) {
  return fmt::format("step-{:09}", step);
}

bool parse_step_name(const std::string& name, std::uint64_t& step) {
  constexpr std::string_view prefix = "step-";
  if (name.compare(0, prefix.size(), prefix) != 0) return false;
  const char* begin = name.data() + prefix.size();
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, step);
  return error == std::errc{} && stop == end && step_name(step) == name;
}

std::uint64_t align_up(std::uint64_t bytes) noexcept {
  return (bytes + checkpoint_alignment - 1) / checkpoint_alignment * checkpoint_alignment;
}

std::array<std::uint64_t, 2> part_of(std::uint64_t total, int rank, int size) noexcept {
  const auto lines = total / checkpoint_alignment, r = static_cast<std::uint64_t>(rank),
             n = static_cast<std::uint64_t>(size);
  // lines * r could pass 2^64 only for states beyond the cap.
  return {lines * r / n * checkpoint_alignment, lines * (r + 1) / n * checkpoint_alignment};
}

Manifest lay_out(std::span<const StateTensor> tensors) {
  Manifest manifest;
  for (const auto& tensor : tensors) {
    if (!is_clean_name(tensor.name)) throw BugError(fmt::format("\"{}\" is no name for a tensor", tensor.name));
    ManifestTensor entry;
    entry.name = tensor.name;
    entry.dtype = tensor.dtype;
    entry.shape = tensor.shape;
    entry.offset = manifest.total_bytes;
    entry.bytes = tensor.bytes();
    manifest.total_bytes = align_up(entry.offset + entry.bytes);
    manifest.tensors.push_back(std::move(entry));
  }
  return manifest;
}

std::string format_manifest(const Manifest& manifest) {
  const auto& s = manifest.state;
  Json tensors = Json::array(), shards = Json::array(), fields = Json::array();
  for (const auto& t : manifest.tensors) {
    const auto extents = t.shape.extents();
    tensors.push_back({{"name", t.name},
                       {"dtype", name_of(t.dtype)},
                       {"shape", std::vector<std::uint64_t>(extents.begin(), extents.end())},
                       {"offset", t.offset},
                       {"bytes", t.bytes},
                       {"xxh3", fmt::format("{:016x}", t.xxh3)}});
  }
  for (std::size_t i = 0; i < manifest.shards.size(); ++i) {
    const auto& shard = manifest.shards[i];
    shards.push_back({{"name", shard_name(i)}, {"begin", shard.begin}, {"end", shard.end}, {"sha256", shard.sha256}});
  }
  for (const auto& [path, value] : s.fields) fields.push_back(Json::array({path, value}));
  const Json json = {{"format", checkpoint_format},
                     {"step", s.step},
                     {"applied_steps", s.applied_steps},
                     {"samples", s.samples},
                     {"epoch", s.epoch},
                     {"global_batch", s.global_batch},
                     {"seed", s.seed},
                     {"loss_scale", s.loss_scale},
                     {"good_steps", s.good_steps ? Json(*s.good_steps) : Json()},
                     {"data_fingerprint", s.data_fingerprint},
                     {"configuration", s.configuration},
                     {"configuration_hash", s.configuration_hash},
                     {"fields", std::move(fields)},
                     {"choices", s.choices},
                     {"metrics", s.metrics},
                     {"versions", s.versions},
                     {"world_size", s.world_size},
                     {"run_id", s.run_id},
                     {"parent_run_id", s.parent_run_id},
                     {"parameter_hash", s.parameter_hash},
                     {"saved_at", s.saved_at},
                     {"total_bytes", manifest.total_bytes},
                     {"tensors", std::move(tensors)},
                     {"shards", std::move(shards)}};
  auto text = json.dump(1, ' ', false, Json::error_handler_t::replace);
  text.resize(text.size() - 2);  // "\n}"
  const auto digest = digest_of(text);
  text += tail_begin;
  text += digest;
  text += tail_end;
  if (text.size() > max_text_bytes) throw BugError("the manifest is too long");
  return text;
}

Manifest parse_manifest(const std::string& text) {
  if (text.size() < tail_bytes) corrupt("MANIFEST.json ends early");
  const std::string_view body(text.data(), text.size() - tail_bytes);
  const auto tail = fmt::format("{}{}{}", tail_begin, digest_of(body), tail_end);
  if (std::string_view(text).substr(body.size()) != tail) corrupt("MANIFEST.json does not match its own SHA-256");
  const auto json = parse_strictly(text);
  Members m(json, "MANIFEST.json");
  const auto format = m.number("format");
  if (format < 1 || format > checkpoint_format) {
    throw CheckpointError(
        fmt::format("it has format {}, and this program reads formats 1 to {}", format, checkpoint_format),
        CheckpointError::Kind::incompatible);
  }
  Manifest manifest;
  manifest.format = format;
  manifest.state = parse_state(m, format);
  manifest.total_bytes = m.number("total_bytes", max_total_bytes);
  const auto& tensors = m.array("tensors", max_text_bytes);
  for (std::size_t i = 0; i < tensors.size(); ++i) manifest.tensors.push_back(parse_tensor(tensors[i], i));
  const auto& shards = m.array("shards", max_shards);
  for (std::size_t i = 0; i < shards.size(); ++i) manifest.shards.push_back(parse_shard(shards[i], i));
  m.text("sha256");
  m.done();
  check_layout(manifest);
  return manifest;
}

void check_state(const Manifest& manifest) {
  const RunState& s = manifest.state;
  const auto require = [](bool holds, const std::string& what) {
    if (!holds) corrupt("MANIFEST.json contradicts itself: " + what);
  };
  require(s.step <= max_step, fmt::format("no run has {} steps", s.step));
  require(s.applied_steps <= s.step, fmt::format("applied_steps is {} of {} steps", s.applied_steps, s.step));
  // What a warm-up makes of it is known to who can read the configuration.
  const bool grows = std::any_of(s.fields.begin(), s.fields.end(),
                                 [](const ConfigField& field) { return field.first == "batch.warmup.from"; });
  const auto fits = [&] {
    const std::uint64_t steps = s.samples / s.global_batch;
    return grows ? s.samples >= s.step && steps <= s.step : s.samples % s.global_batch == 0 && steps == s.step;
  };
  require(s.global_batch > 0 && fits(),
          fmt::format("samples is {} after {} steps of {}", s.samples, s.step, s.global_batch));
  require(std::isfinite(s.epoch) && s.epoch >= 0, fmt::format("epoch is {}", s.epoch));
  require(std::isfinite(s.loss_scale) && s.loss_scale > 0, fmt::format("loss_scale is {}", s.loss_scale));
  // Format 1 did not promise it, and bytes that are no UTF-8 do not come back as they were.
  Xxh3 hash;
  hash.add(std::as_bytes(std::span(s.configuration)));
  require(manifest.format < 2 || s.configuration.find("\xef\xbf\xbd") != std::string::npos ||
              s.configuration_hash == fmt::format("{:016x}", hash.value()),
          "configuration_hash is not that of configuration");
}

}  // namespace dtrain::io
