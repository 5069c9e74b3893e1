// What `dtrain checkpoint list`, `verify` and `diff` print.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint.hpp"
#include "io/checkpoint/checkpoint_best.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::io {
namespace {

using Json = nlohmann::json;

std::string print(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

bool is_step_directory(FileSystem& files, const std::string& path) {
  FileStatus status;
  if (files.status(join_path(path, manifest_name), status) == 0 && status.exists) return true;
  std::uint64_t step = 0;
  return parse_step_name(last_name(path), step);
}

template <class T>
T at(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

/// Keeps every tensor of one checkpoint in memory.
class Keep final : public TensorSink {
 public:
  explicit Keep(const Manifest& manifest) : data_(manifest.tensors.size()) {
    for (std::size_t i = 0; i < data_.size(); ++i) data_[i].reserve(manifest.tensors[i].bytes);
  }
  void piece(std::size_t tensor, std::uint64_t, std::span<const std::byte> data) override {
    data_[tensor].insert(data_[tensor].end(), data.begin(), data.end());
  }
  const std::vector<std::byte>& of(std::size_t tensor) const { return data_[tensor]; }

 private:
  std::vector<std::vector<std::byte>> data_;
};

struct Difference {
  std::uint64_t elements = 0;  // that are not the same bit by bit
  double largest = 0;          // absolute; NaN where one side is NaN and the other is not
};

/// Compares another checkpoint's tensors, as they come, with those that were kept.
class Compare final : public TensorSink {
 public:
  Compare(const Manifest& b, const Keep& kept, const std::vector<std::int64_t>& partner)
      : b_(b), kept_(kept), partner_(partner), differences_(b.tensors.size()) {}
  void piece(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> data) override {
    if (partner_[tensor] < 0) return;
    const auto* other = kept_.of(static_cast<std::size_t>(partner_[tensor])).data() + offset;
    if (std::memcmp(other, data.data(), data.size()) == 0) return;
    const auto dtype = b_.tensors[tensor].dtype;
    const auto step = size_of(dtype);
    auto& d = differences_[tensor];
    for (std::size_t i = 0; i < data.size(); i += step) {
      if (std::memcmp(other + i, data.data() + i, step) == 0) continue;
      ++d.elements;
      const double difference = std::abs(element_value(dtype, other + i) - element_value(dtype, data.data() + i));
      if (std::isnan(difference) || difference > d.largest) d.largest = difference;
    }
  }
  const Difference& of(std::size_t tensor) const { return differences_[tensor]; }

 private:
  const Manifest& b_;
  const Keep& kept_;
  const std::vector<std::int64_t>& partner_;
  std::vector<Difference> differences_;
};

}  // namespace

double element_value(DType dtype, const std::byte* data) {
  switch (dtype) {
    case DType::f32:
      return at<float>(data);
    case DType::f64:
      return at<double>(data);
    case DType::bf16:
      return to_float(at<Bf16>(data));
    case DType::f16:
      return to_float(at<F16>(data));
    case DType::u8:
      return at<std::uint8_t>(data);
    case DType::u16:
      return at<std::uint16_t>(data);
    case DType::i32:
      return at<std::int32_t>(data);
    case DType::i64:
      return static_cast<double>(at<std::int64_t>(data));
    case DType::u64:
      return static_cast<double>(at<std::uint64_t>(data));
  }
  return 0;
}

std::string pick_checkpoint(FileSystem& files, const std::string& given) {
  auto path = follow_label(files, given);
  if (is_step_directory(files, path)) return path;
  list_names(files, path);  // a directory, or an error
  const auto found = find_latest_valid(path, files);
  if (!found) throw CheckpointError(fmt::format("there is no checkpoint in {}", path));
  return found->path;
}

CheckpointReport list_checkpoints(const std::string& given, FileSystem& files) {
  const auto directory = checkpoints_of(files, given);
  list_names(files, directory);  // a directory, or an error
  CheckpointReport report;
  Json rows = Json::array();
  const auto best = read_best(files, directory);
  const auto line = [&](std::uint64_t step, const std::string& saved_at, const std::string& mib, const char* word,
                        const std::string& rest) {
    const auto state = fmt::format("{}{}", word, step == best ? ", best" : "");
    return fmt::format("{:>12}  {:<20}  {:>10}  {:<16}  {}\n", step, saved_at, mib, state, rest);
  };
  report.text = fmt::format("{:>12}  {:<20}  {:>10}  {:<16}  {}\n", "step", "saved at", "MiB", "state", "run");
  for (const auto step : list_steps(files, directory)) {
    const auto path = join_path(directory, step_name(step));
    Json row = {{"step", step}, {"path", path}, {"best", step == best}};
    try {
      const auto manifest = read_manifest(files, path);
      const auto& s = manifest.state;
      const double mib = static_cast<double>(manifest.total_bytes) / 1048576.0;
      report.text += line(step, s.saved_at, fmt::format("{:.2f}", mib), "complete", s.run_id);
      row.update({{"state", "complete"},
                  {"saved_at", s.saved_at},
                  {"bytes", manifest.total_bytes},
                  {"run_id", s.run_id},
                  {"samples", s.samples},
                  {"epoch", s.epoch},
                  {"world_size", s.world_size},
                  {"parameter_hash", s.parameter_hash}});
    } catch (const CheckpointError& e) {
      const auto* word = e.kind() == CheckpointError::Kind::incomplete ? "incomplete"
                         : e.kind() == CheckpointError::Kind::corrupt  ? "corrupt"
                                                                       : "unreadable";
      report.text += line(step, "-", "-", word, e.what());
      row.update({{"state", word}, {"error", e.what()}});
      report.ok = false;
    }
    rows.push_back(std::move(row));
  }
  if (rows.empty()) report.text = fmt::format("no checkpoints in {}\n", directory);
  report.json = print({{"directory", directory}, {"checkpoints", std::move(rows)}});
  return report;
}

CheckpointReport verify_checkpoints(const std::string& given, FileSystem& files) {
  const auto path = follow_label(files, given);
  std::vector<std::string> paths;
  if (is_step_directory(files, path)) {
    paths.push_back(path);
  } else {
    list_names(files, path);  // a directory, or an error
    for (const auto step : list_steps(files, path)) paths.push_back(join_path(path, step_name(step)));
  }
  CheckpointReport report;
  if (paths.empty()) {
    report.ok = false;
    report.text = fmt::format("there is no checkpoint in {}\n", path);
  }
  Json rows = Json::array();
  for (const auto& one : paths) {
    Json row = {{"path", one}};
    try {
      const auto manifest = verify_checkpoint(files, one);
      report.text += fmt::format("valid: {} ({} tensors, {} shards, {} bytes)\n", one, manifest.tensors.size(),
                                 manifest.shards.size(), manifest.total_bytes);
      row.update({{"valid", true}, {"tensors", manifest.tensors.size()}, {"bytes", manifest.total_bytes}});
    } catch (const CheckpointError& e) {
      report.text += fmt::format("not valid: {}\n", e.what());
      row.update({{"valid", false}, {"error", e.what()}});
      report.ok = false;
    }
    rows.push_back(std::move(row));
  }
  report.json = print({{"valid", report.ok}, {"checkpoints", std::move(rows)}});
  return report;
}

CheckpointReport diff_checkpoints(const std::string& a, const std::string& b, FileSystem& files) {
  const auto path_a = pick_checkpoint(files, a), path_b = pick_checkpoint(files, b);
  const auto left = read_manifest(files, path_a), right = read_manifest(files, path_b);
  std::map<std::string_view, std::size_t> left_index;
  for (std::size_t i = 0; i < left.tensors.size(); ++i) left_index.emplace(left.tensors[i].name, i);
  std::vector<std::int64_t> partner(right.tensors.size(), -1);
  for (std::size_t i = 0; i < right.tensors.size(); ++i) {
    const auto it = left_index.find(right.tensors[i].name);
    if (it == left_index.end()) continue;
    const auto& other = left.tensors[it->second];
    if (other.dtype == right.tensors[i].dtype && other.shape == right.tensors[i].shape) {
      partner[i] = static_cast<std::int64_t>(it->second);
    }
  }
  Keep kept(left);
  read_stream(files, path_a, left, kept);
  Compare compare(right, kept, partner);
  read_stream(files, path_b, right, compare);

  CheckpointReport report;
  Json rows = Json::array();
  const auto add = [&](const std::string& name, const std::string& status, const std::string& text, Json row) {
    report.text += fmt::format("{:<10}  {}{}\n", status, name, text);
    row.update({{"name", name}, {"status", status}});
    rows.push_back(std::move(row));
    if (status != "equal") report.ok = false;
  };
  for (std::size_t i = 0; i < right.tensors.size(); ++i) {
    const auto& tensor = right.tensors[i];
    const auto it = left_index.find(tensor.name);
    if (it == left_index.end()) {
      add(tensor.name, "only in b", "", Json::object());
      continue;
    }
    const auto& other = left.tensors[it->second];
    left_index.erase(it);
    if (partner[i] < 0) {
      add(tensor.name, "other kind",
          fmt::format("  {} {} against {} {}", name_of(other.dtype), other.shape.str(), name_of(tensor.dtype),
                      tensor.shape.str()),
          Json::object());
    } else if (const auto& d = compare.of(i); d.elements == 0) {
      add(tensor.name, "equal", "", {{"max_abs_diff", 0.0}});
    } else {
      add(tensor.name, "different",
          fmt::format("  {} of {} elements, largest difference {:.9g}", d.elements, tensor.shape.elements(), d.largest),
          {{"elements", d.elements}, {"max_abs_diff", d.largest}});
    }
  }
  for (const auto& [name, index] : left_index) add(left.tensors[index].name, "only in a", "", Json::object());
  const auto head =
      fmt::format("a: {} (step {})\nb: {} (step {})\n", path_a, left.state.step, path_b, right.state.step);
  report.text = head + report.text + (report.ok ? "all tensors are equal\n" : "the checkpoints differ\n");
  report.json = print({{"a", path_a},
                       {"b", path_b},
                       {"step_a", left.state.step},
                       {"step_b", right.state.step},
                       {"equal", report.ok},
                       {"tensors", std::move(rows)}});
  return report;
}

}  // namespace dtrain::io
