// `dtrain checkpoint export` and `checkpoint.export`: the model of a checkpoint as an HDF5 or safetensors file.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint.hpp"
#include "io/checkpoint/checkpoint_best.hpp"
#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/checkpoint/checkpoint_publish.hpp"
#include "io/files/output.hpp"
#include "io/hdf5/hdf5_writer.hpp"
#include "io/weights/names.hpp"
#include "io/weights/safetensors.hpp"
#include "io/weights/weights.hpp"

namespace dtrain::io {
namespace {

/// The name in the file; nothing for what does not belong to the model in use.
std::optional<std::string> exported_name(const std::string& name, bool averaged) {
  const std::string_view parameters = averaged ? "ema/" : "param/";
  if (name.starts_with(parameters)) return "param/" + name.substr(parameters.size());
  if (name.starts_with("state/")) return name;
  return std::nullopt;
}

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

/// A file of the user's, to which tensors come in the checkpoint's order.
class ModelFile : public TensorSink {
 public:
  explicit ModelFile(const Manifest& manifest) : manifest_(manifest) {}
  virtual void commit() = 0;

 protected:
  const ManifestTensor& tensor(std::size_t index) const { return manifest_.tensors[index]; }

 private:
  const Manifest& manifest_;
};

/// Hands pieces on until the export is given up.
class WantedPieces final : public TensorSink {
 public:
  WantedPieces(TensorSink& to, const GivenUp& given_up) : to_(to), given_up_(given_up) {}
  void piece(std::size_t index, std::uint64_t offset, std::span<const std::byte> data) override {
    check_export_wanted(given_up_);
    to_.piece(index, offset, data);
  }

 private:
  TensorSink& to_;
  const GivenUp& given_up_;
};

using Names = std::vector<std::optional<std::string>>;           // of each tensor in the file, where it goes there
using Facts = std::vector<std::pair<std::string, std::string>>;  // texts about the model

/// Every float as float32, integers as they are. Writes each tensor when it is complete, so that one is in memory at a
/// time.
class Hdf5Model final : public ModelFile {
 public:
  Hdf5Model(const std::string& output, const Manifest& manifest, const Names& names, const Facts& facts)
      : ModelFile(manifest), writer_(output) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto& dataset = datasets_.emplace_back();
      if (!names[i]) continue;
      dataset = writer_.add(*names[i], stored_type(tensor(i).dtype), dims_of(tensor(i).shape));
    }
    writer_.file_attribute("step", static_cast<std::int64_t>(manifest.state.step));
    for (const auto& [name, text] : facts) writer_.file_attribute(name, text);
  }
  void piece(std::size_t index, std::uint64_t, std::span<const std::byte> data) override {
    if (!datasets_[index]) return;
    buffer_.insert(buffer_.end(), data.begin(), data.end());
    const auto& saved = tensor(index);
    if (buffer_.size() < saved.bytes) return;
    const std::uint64_t rows = saved.shape.rank() > 0 ? static_cast<std::uint64_t>(saved.shape[0]) : 1;
    if (saved.dtype == DType::f64 || saved.dtype == DType::bf16 || saved.dtype == DType::f16) {
      std::vector<float> values(static_cast<std::size_t>(saved.shape.elements()));
      for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(element_value(saved.dtype, buffer_.data() + i * size_of(saved.dtype)));
      writer_.write(*datasets_[index], 0, rows, values.data());
    } else {
      writer_.write(*datasets_[index], 0, rows, buffer_.data());
    }
    buffer_.clear();
  }
  void commit() override { writer_.commit(); }

 private:
  h5::Writer writer_;
  std::vector<std::optional<std::size_t>> datasets_;
  std::vector<std::byte> buffer_;
};

SafeTensorsMetadata metadata_of(const Manifest& manifest, const Facts& facts) {
  SafeTensorsMetadata metadata(facts.begin(), facts.end());
  metadata["format"] = "pt";  // transformers asks for it
  metadata["step"] = std::to_string(manifest.state.step);
  return metadata;
}

/// Types as they are saved; names as PyTorch has them.
class SafeTensorsModel final : public ModelFile {
 public:
  SafeTensorsModel(const std::string& output, const Manifest& manifest, const Names& names, const Facts& facts,
                   FileSystem& files)
      : ModelFile(manifest),
        names_(names),
        writer_(output, tensors_of(manifest, names), metadata_of(manifest, facts), files) {}
  void piece(std::size_t index, std::uint64_t, std::span<const std::byte> data) override {
    if (names_[index]) writer_.write(data);
  }
  void commit() override { writer_.commit(); }

 private:
  static std::vector<SafeTensor> tensors_of(const Manifest& manifest, const Names& names) {
    std::vector<SafeTensor> tensors;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!names[i]) continue;
      const auto& saved = manifest.tensors[i];
      tensors.push_back(
          {pytorch_name(*names[i]), std::string(safetensors_type(saved.dtype)), dims_of(saved.shape), 0, 0});
    }
    return tensors;
  }

  const Names names_;
  SafeTensorsWriter writer_;
};

/// As another library has it: weights under its names and in its layouts, then the other files of its folder.
class ForeignFile final : public ModelFile {
 public:
  ForeignFile(const std::string& output, const Manifest& manifest, const Names& names, const Facts& facts,
              ForeignForm form, FileSystem& files)
      : ModelFile(manifest),
        files_(files),
        output_(output),
        form_(std::move(form)),
        foreign_(foreign_of(manifest, names, form_)),
        writer_(form_.files.empty() ? output : join_path(output, "model.safetensors"), tensors_of(manifest, foreign_),
                metadata_of(manifest, facts), files) {}
  void piece(std::size_t index, std::uint64_t, std::span<const std::byte> data) override {
    if (!foreign_[index]) return;
    buffer_.insert(buffer_.end(), data.begin(), data.end());
    const auto& saved = tensor(index);
    if (buffer_.size() < saved.bytes) return;
    const auto& [parts, layout] = *foreign_[index];
    writer_.write(bytes_there(layout, dims_of(saved.shape), buffer_, size_of(saved.dtype), parts.size()));
    buffer_.clear();
  }
  void commit() override {
    writer_.commit();
    try {
      for (const auto& [name, text] : form_.files) {
        const auto path = join_path(output_, name), temporary = path + ".tmp";
        write_text(files_, temporary, text);
        rename(files_, temporary, path);
      }
      if (!form_.files.empty()) sync_directory(files_, output_);
    } catch (const CheckpointError& e) {
      throw DataError(e.what());
    }
  }

 private:
  using Foreign = std::vector<std::optional<ForeignTensor>>;
  static Foreign foreign_of(const Manifest& manifest, const Names& names, const ForeignForm& form) {
    const std::string& family = form.family;
    const NameMap& map = *foreign_names(family, form.timm ? Library::timm : Library::usual);
    std::vector<std::string> model;
    for (const auto& name : names) model.push_back(name ? pytorch_name(*name) : std::string());
    Foreign foreign;
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto& tensor = foreign.emplace_back();
      if (!names[i]) continue;
      tensor = map.foreign(model[i], model);
      if (!tensor)
        throw DataError(fmt::format("{} has no place in other libraries' {}; use --names dtrain", model[i], family));
      if (size_of(manifest.tensors[i].dtype) * static_cast<std::size_t>(manifest.tensors[i].shape.elements()) !=
          manifest.tensors[i].bytes)
        throw BugError(model[i] + " has other bytes than its shape");
    }
    return foreign;
  }
  static std::vector<SafeTensor> tensors_of(const Manifest& manifest, const Foreign& foreign) {
    std::vector<SafeTensor> tensors;
    for (std::size_t i = 0; i < foreign.size(); ++i) {
      if (!foreign[i]) continue;
      const auto& saved = manifest.tensors[i];
      const auto shapes = shapes_there(foreign[i]->layout, dims_of(saved.shape), foreign[i]->names.size());
      for (std::size_t k = 0; k < shapes.size(); ++k)
        tensors.push_back({foreign[i]->names[k], std::string(safetensors_type(saved.dtype)), shapes[k], 0, 0});
    }
    return tensors;
  }

  FileSystem& files_;
  const std::string output_;
  const ForeignForm form_;
  const Foreign foreign_;
  SafeTensorsWriter writer_;
  std::vector<std::byte> buffer_;
};

}  // namespace

void check_export_wanted(const GivenUp& given_up) {
  if (given_up && given_up()) throw DataError("the export was given up: the run is stopping");
}

CheckpointReport export_checkpoint(const std::string& given, const std::string& output, bool raw, ExportFormat format,
                                   FileSystem& files, const ModelForm& form, const WholeModel& whole,
                                   const GivenUp& given_up) {
  check_export_wanted(given_up);
  const bool hdf5 = format == ExportFormat::hdf5;
  check_output(output, {}, hdf5 ? OutputKind::hdf5 : OutputKind::other);
  const auto path = pick_checkpoint(files, given);
  auto manifest = read_manifest(files, path);
  auto foreign = form ? form(manifest.state) : std::nullopt;
  std::error_code failed;
  if (foreign && !foreign->files.empty() && std::filesystem::exists(output, failed) &&
      !std::filesystem::is_directory(output, failed))
    throw ConfigError(fmt::format(
        "-o {}: this is a file, but a model of Hugging Face's is a folder; name another one, or use --names "
        "dtrain for one file",
        output));
  const bool averaged = !raw && std::any_of(manifest.tensors.begin(), manifest.tensors.end(),
                                            [](const auto& t) { return t.name.starts_with("ema/"); });
  std::vector<StateTensor> tensors;  // where not those of the checkpoint
  const bool part = !base_hash(manifest.state).empty();
  if (part) {
    if (!whole) throw BugError(path + " holds a part of its model");
    tensors = whole(path, manifest.state, averaged);
    Manifest made = lay_out(tensors);
    made.state = std::move(manifest.state);
    manifest = std::move(made);
  }
  Names names;
  std::size_t parameters = 0, states = 0;
  for (const auto& tensor : manifest.tensors)
    if (const auto& name = names.emplace_back(exported_name(tensor.name, averaged && !part)))
      ++(name->starts_with("param/") ? parameters : states);
  const auto& s = manifest.state;
  const char* kind = averaged ? "averaged" : "raw";
  Facts facts{{"parameters", kind},
              {"configuration", s.configuration},
              {"configuration_hash", s.configuration_hash},
              {"data_fingerprint", s.data_fingerprint},
              {"run_id", s.run_id}};
  if (!part) facts.emplace_back("parameter_hash", s.parameter_hash);  // a whole that is made of a part has others
  std::unique_ptr<ModelFile> model;
  std::string written = output;
  if (hdf5) {
    model = std::make_unique<Hdf5Model>(output, manifest, names, facts);
  } else if (foreign) {
    std::string others;
    for (const auto& file : foreign->files) others += ", " + file.first;
    if (!others.empty()) written += fmt::format(" for Hugging Face's transformers (model.safetensors{})", others);
    model = std::make_unique<ForeignFile>(output, manifest, names, facts, std::move(*foreign), files);
  } else {
    model = std::make_unique<SafeTensorsModel>(output, manifest, names, facts, files);
  }
  WantedPieces pieces(*model, given_up);
  if (!part) read_stream(files, path, manifest, pieces);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    pieces.piece(i, 0, {static_cast<const std::byte*>(tensors[i].data), tensors[i].bytes()});
  model->commit();
  CheckpointReport report;
  report.text = fmt::format("wrote {}: {} parameters ({}), {} running statistics, of step {} of {}\n", written,
                            parameters, kind, states, s.step, path);
  report.json = nlohmann::json{{"output", output},         {"checkpoint", path}, {"step", s.step},
                               {"parameters", parameters}, {"states", states},   {"averaged", averaged}}
                    .dump(2) +
                "\n";
  return report;
}

void export_into_checkpoint(const std::string& path, const std::optional<ForeignForm>& form, const WholeModel& whole,
                            FileSystem& files, const GivenUp& given_up) {
  const std::string temporary = unfinished_export(path);
  try {
    remove_tree(files, temporary);
    const bool folder = form && !form->files.empty();
    export_checkpoint(
        path, folder ? temporary : join_path(temporary, "model.safetensors"), false, ExportFormat::safetensors, files,
        [&form](const RunState&) { return form; }, whole, given_up);
    rename(files, temporary, join_path(path, exported_model));
    sync_directory(files, path);
  } catch (const Error&) {
    try {
      remove_tree(files, temporary);
    } catch (const CheckpointError&) {  // the next run that takes the directory removes it
    }
    throw;
  }
}

}  // namespace dtrain::io
