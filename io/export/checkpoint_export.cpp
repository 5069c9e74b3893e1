// `dtrain checkpoint export`: the model of a checkpoint as an HDF5 file.
#include <algorithm>
#include <cstring>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint.hpp"
#include "io/checkpoint/checkpoint_best.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"

namespace dtrain::io {
namespace {

/// The name in the file; nothing for what does not belong to the model in use.
std::optional<std::string> exported_name(const std::string& name, bool averaged) {
  const std::string_view parameters = averaged ? "ema/" : "param/";
  if (name.starts_with(parameters)) return "param/" + name.substr(parameters.size());
  if (name.starts_with("state/")) return name;
  return std::nullopt;
}

/// What HDF5 gets: every float as float32, integers as they are.
struct Target {
  StoredType type = StoredType::f32;
  std::string name;
  std::size_t dataset = 0;
};

StoredType stored_type(DType dtype) {
  switch (dtype) {
    case DType::u8:
      return StoredType::u8;
    case DType::u16:
      return StoredType::u16;
    case DType::i32:
      return StoredType::i32;
    case DType::i64:
    case DType::u64:
      return StoredType::i64;
    default:
      return StoredType::f32;
  }
}

/// Writes each tensor when it is complete, so that one is in memory at a time.
class Exporter final : public TensorSink {
 public:
  Exporter(const Manifest& manifest, h5::Writer& writer, const std::vector<std::optional<Target>>& targets)
      : manifest_(manifest), writer_(writer), targets_(targets) {}
  void piece(std::size_t tensor, std::uint64_t, std::span<const std::byte> data) override {
    if (!targets_[tensor]) return;
    buffer_.insert(buffer_.end(), data.begin(), data.end());
    const auto& saved = manifest_.tensors[tensor];
    if (buffer_.size() < saved.bytes) return;
    const std::uint64_t rows = saved.shape.rank() > 0 ? static_cast<std::uint64_t>(saved.shape[0]) : 1;
    const auto& target = *targets_[tensor];
    if (saved.dtype == DType::f64 || saved.dtype == DType::bf16 || saved.dtype == DType::f16) {
      std::vector<float> values(static_cast<std::size_t>(saved.shape.elements()));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(element_value(saved.dtype, buffer_.data() + i * size_of(saved.dtype)));
      writer_.write(target.dataset, 0, rows, values.data());
    } else {
      writer_.write(target.dataset, 0, rows, buffer_.data());
    }
    buffer_.clear();
  }

 private:
  const Manifest& manifest_;
  h5::Writer& writer_;
  const std::vector<std::optional<Target>>& targets_;
  std::vector<std::byte> buffer_;
};

}  // namespace

CheckpointReport export_checkpoint(const std::string& given, const std::string& output, bool raw, FileSystem& files) {
  check_output(output, {});
  const auto path = pick_checkpoint(files, given);
  const auto manifest = read_manifest(files, path);
  const bool averaged = !raw && std::any_of(manifest.tensors.begin(), manifest.tensors.end(),
                                            [](const auto& t) { return t.name.starts_with("ema/"); });
  h5::Writer writer(output);
  std::vector<std::optional<Target>> targets;
  std::size_t parameters = 0, states = 0;
  for (const auto& tensor : manifest.tensors) {
    auto& target = targets.emplace_back();
    const auto name = exported_name(tensor.name, averaged);
    if (!name) continue;
    ++(name->starts_with("param/") ? parameters : states);
    std::vector<std::uint64_t> dims;
    for (int i = 0; i < tensor.shape.rank(); ++i) dims.push_back(static_cast<std::uint64_t>(tensor.shape[i]));
    target = Target{stored_type(tensor.dtype), *name, 0};
    target->dataset = writer.add(*name, target->type, dims);
  }
  const auto& s = manifest.state;
  const char* kind = averaged ? "averaged" : "raw";
  writer.file_attribute("step", static_cast<std::int64_t>(s.step));
  for (const auto& [name, text] :
       {std::pair("parameters", std::string(kind)), std::pair("parameter_hash", s.parameter_hash),
        std::pair("configuration", s.configuration), std::pair("configuration_hash", s.configuration_hash),
        std::pair("data_fingerprint", s.data_fingerprint), std::pair("run_id", s.run_id)})
    writer.file_attribute(name, text);
  Exporter exporter(manifest, writer, targets);
  read_stream(files, path, manifest, exporter);
  writer.commit();
  CheckpointReport report;
  report.text = fmt::format("wrote {}: {} parameters ({}), {} running statistics, of step {} of {}\n", output,
                            parameters, kind, states, s.step, path);
  report.json = nlohmann::json{{"output", output},         {"checkpoint", path}, {"step", s.step},
                               {"parameters", parameters}, {"states", states},   {"averaged", averaged}}
                    .dump(2) +
                "\n";
  return report;
}

}  // namespace dtrain::io
