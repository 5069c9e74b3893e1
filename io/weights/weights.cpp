#include "io/weights/weights.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/hdf5/column.hpp"
#include "io/weights/names.hpp"
#include "io/weights/safetensors.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

namespace fs = std::filesystem;

/// A tensor of a source, as PyTorch would call it.
struct Weight {
  std::string name;
  Dims shape;
};
std::uint64_t elements_of(const Dims& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
}

/// Something with tensors in it; read once.
class Source {
 public:
  virtual ~Source() = default;
  virtual const std::string& path() const = 0;
  const std::vector<Weight>& weights() const { return weights_; }
  /// To float32: into[i] is where weight i goes, or null.
  virtual void read(std::span<float* const> into) = 0;

 protected:
  std::vector<Weight> weights_;
};

class CheckpointSource final : public Source {
 public:
  explicit CheckpointSource(std::string path)
      : path_(std::move(path)), manifest_(read_manifest(posix_file_system(), path_)) {
    if (!base_hash(manifest_.state).empty())
      throw DataError(
          fmt::format("{}: holds the adapters of a LoRA run without the model that they adapt; write both to one file "
                      "with dtrain checkpoint export, and start from that",
                      path_));
    const auto has_average = [](const auto& t) { return t.name.starts_with("ema/"); };
    const bool averaged = std::any_of(manifest_.tensors.begin(), manifest_.tensors.end(), has_average);
    for (std::size_t i = 0; i < manifest_.tensors.size(); ++i) {
      const auto& tensor = manifest_.tensors[i];
      if (!tensor.name.starts_with(averaged ? "ema/" : "param/") && !tensor.name.starts_with("state/")) continue;
      weights_.push_back({pytorch_name(tensor.name), dims_of(tensor.shape)});
      tensors_.push_back(i);
    }
  }
  const std::string& path() const override { return path_; }
  void read(std::span<float* const> into) override {
    struct Sink final : TensorSink {
      void piece(std::size_t tensor, std::uint64_t offset, std::span<const std::byte> data) override {
        const auto found = to.find(tensor);
        if (found == to.end()) return;
        const auto dtype = manifest->tensors[tensor].dtype;
        const auto size = size_of(dtype);
        for (std::size_t i = 0; i < data.size() / size; ++i)
          found->second[offset / size + i] = static_cast<float>(element_value(dtype, data.data() + i * size));
      }
      std::map<std::size_t, float*> to;
      const Manifest* manifest = nullptr;
    } sink;
    sink.manifest = &manifest_;
    for (std::size_t i = 0; i < into.size(); ++i)
      if (into[i] != nullptr) sink.to[tensors_[i]] = into[i];
    read_stream(posix_file_system(), path_, manifest_, sink);
  }

 private:
  const std::string path_;
  const Manifest manifest_;
  std::vector<std::size_t> tensors_;  // of the manifest, of each weight
};

class Hdf5Source final : public Source {
 public:
  explicit Hdf5Source(const std::string& path) : file_(path) {
    for (auto& info : file_.list().datasets) {
      if (!info.path.starts_with("/param/") && !info.path.starts_with("/state/")) continue;
      weights_.push_back({pytorch_name(info.path.substr(1)), info.dims});
      infos_.push_back(std::move(info));
    }
    if (weights_.empty())
      throw DataError(
          fmt::format("{}: has no parameters (data sets in the group /param); dtrain checkpoint export "
                      "writes such files. It has: {}",
                      path, file_.list().text()));
  }
  const std::string& path() const override { return file_.path(); }
  void read(std::span<float* const> into) override {
    for (std::size_t i = 0; i < into.size(); ++i) {
      if (into[i] == nullptr) continue;
      if (infos_[i].type != StoredType::f32)
        throw DataError(
            fmt::format("{}: {} is of type {}; float32 was expected", path(), infos_[i].path, infos_[i].type_text));
      Column(path(), infos_[i]).read_all(reinterpret_cast<std::byte*>(into[i]), 1);
    }
  }

 private:
  h5::File file_;
  std::vector<h5::DatasetInfo> infos_;
};

/// One file, or the shards of a model.
class SafeTensorsSource final : public Source {
 public:
  explicit SafeTensorsSource(std::string path, std::span<const std::string> shards = {}) : path_(std::move(path)) {
    if (shards.empty()) files_.emplace_back(path_);
    for (const auto& shard : shards) files_.emplace_back(shard);
    for (const auto& file : files_)
      for (const auto& tensor : file.tensors()) weights_.push_back({tensor.name, tensor.shape});
    for (const std::string_view wrapper : {"module.", "_orig_mod.", "module."}) strip(wrapper);
  }
  const std::string& path() const override { return path_; }
  void read(std::span<float* const> into) override {
    std::size_t i = 0;
    for (auto& file : files_) {
      for (const auto& tensor : file.tensors()) {
        float* const to = into[i++];
        if (to == nullptr) continue;
        const auto values = file.read_floats(tensor);
        std::copy(values.begin(), values.end(), to);
      }
    }
  }

 private:
  /// What PyTorch's DistributedDataParallel and compile() put before every name.
  void strip(std::string_view wrapper) {
    const auto wrapped = [&](const Weight& w) { return w.name.starts_with(wrapper); };
    if (!std::all_of(weights_.begin(), weights_.end(), wrapped)) return;
    for (Weight& w : weights_) w.name.erase(0, wrapper.size());
  }

  const std::string path_;
  std::vector<SafeTensorsFile> files_;
};

/// A file of another library's names as the tensors of this model; what belongs to none of them is there
/// under its own name.
class ForeignSource final : public Source {
 public:
  ForeignSource(std::unique_ptr<Source> file, const NameMap& names, std::span<const StateTensor> tensors)
      : file_(std::move(file)) {
    const auto& there = file_->weights();
    std::map<std::string, std::size_t> places;
    for (std::size_t i = 0; i < there.size(); ++i) places.emplace(names.canonical(there[i].name), i);
    std::vector<std::string> model;
    for (const auto& tensor : tensors) model.push_back(pytorch_name(tensor.name));
    std::vector<bool> used(there.size());
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      const auto foreign = names.foreign(model[t], model);
      if (!foreign) continue;
      Made made{foreign->layout, {}};
      for (const auto& name : foreign->names)
        if (const auto found = places.find(name); found != places.end()) made.parts.push_back(found->second);
      for (const auto part : made.parts) used[part] = true;
      const bool folded =
          made.layout == Layout::with_first_row && !made.parts.empty() && places.contains(foreign->names[0]);
      if (made.parts.size() != foreign->names.size() && !folded) continue;
      std::vector<Dims> shapes;
      for (const auto part : made.parts) shapes.push_back(there[part].shape);
      try {
        weights_.push_back(
            {model[t], shape_here(made.layout, shapes, static_cast<std::size_t>(tensors[t].shape.rank()))});
      } catch (const DataError& e) {
        throw DataError(fmt::format("{}: {} {}", path(), model[t], e.what()));
      }
      renamed_ = renamed_ || foreign->names.size() > 1 || there[made.parts[0]].name != model[t];
      made_.push_back(std::move(made));
    }
    for (std::size_t i = 0; i < there.size(); ++i)
      if (!used[i] && !names.passed_over(names.canonical(there[i].name))) weights_.push_back(there[i]);
  }
  /// False: the file has this model's own names, or nothing of it.
  bool renamed() const { return renamed_; }
  std::unique_ptr<Source> file() { return std::move(file_); }

  const std::string& path() const override { return file_->path(); }
  void read(std::span<float* const> into) override {
    for (std::size_t i = 0; i < made_.size(); ++i) {
      if (into[i] == nullptr) continue;
      std::vector<Dims> shapes;
      std::vector<std::vector<float>> values;
      std::vector<float*> parts(file_->weights().size());
      for (const auto part : made_[i].parts) {
        shapes.push_back(file_->weights()[part].shape);
        values.emplace_back(elements_of(shapes.back()));
        parts[part] = values.back().data();
      }
      file_->read(parts);
      values_here(made_[i].layout, shapes, values, into[i]);
    }
  }

 private:
  struct Made {
    Layout layout;
    std::vector<std::size_t> parts;  // weights of the file
  };
  std::unique_ptr<Source> file_;
  std::vector<Made> made_;  // of the first weights
  bool renamed_ = false;
};

bool is_hdf5(const std::string& path) {
  std::array<char, 8> begin{};
  std::ifstream(path, std::ios::binary).read(begin.data(), begin.size());
  return std::string_view(begin.data(), begin.size()) == "\x89HDF\r\n\x1a\n";
}

/// The files that a model's index names, each once. Throws DataError.
std::vector<std::string> shards_of(const std::string& folder, const std::string& index) {
  constexpr std::uint64_t most_bytes = 64 << 20;
  std::set<std::string> names;
  try {
    const auto map = nlohmann::json::parse(read_text(posix_file_system(), index, most_bytes)).at("weight_map");
    for (const auto& file : map) names.insert(file.get<std::string>());
  } catch (const CheckpointError& e) {
    throw DataError(e.what());
  } catch (const nlohmann::json::exception&) {
    throw DataError(fmt::format("{}: is no index of shards: a weight_map of files was expected", index));
  }
  std::vector<std::string> paths;
  for (const auto& name : names) {
    if (name.empty() || name.find('/') != std::string::npos)
      throw DataError(fmt::format("{}: names the file \"{}\"; a file beside it was expected", index, name));
    paths.push_back(join_path(folder, name));
  }
  if (paths.empty()) throw DataError(fmt::format("{}: names no files", index));
  return paths;
}

std::unique_ptr<Source> open_safetensors(const std::string& path, std::span<const std::string> shards,
                                         std::string_view family, std::span<const StateTensor> tensors) {
  std::unique_ptr<Source> file = std::make_unique<SafeTensorsSource>(path, shards);
  for (const Library library : {Library::usual, Library::timm}) {
    const NameMap* names = foreign_names(family, library);
    if (names == nullptr) continue;
    auto foreign = std::make_unique<ForeignSource>(std::move(file), *names, tensors);
    if (foreign->renamed()) return foreign;
    file = foreign->file();
  }
  return file;
}

/// torch.save writes a zip file, and wrote pickled objects before version 1.6.
bool is_of_torch_save(const std::string& path) {
  std::array<char, 9> begin{};
  std::ifstream(path, std::ios::binary).read(begin.data(), begin.size());
  const std::string_view bytes(begin.data(), begin.size());
  if (bytes.back() == '{') return false;  // the header of a safetensors file behind its length
  return bytes.starts_with("PK\x03\x04") || bytes.starts_with("\x80\x02\x8a\x0a");
}

std::unique_ptr<Source> open_source(const std::string& from, std::string_view family,
                                    std::span<const StateTensor> tensors) {
  std::error_code failed;
  if (fs::is_directory(from, failed)) {
    const auto model = join_path(from, "model.safetensors"), index = model + ".index.json";
    if (fs::exists(index, failed)) return open_safetensors(from, shards_of(from, index), family, tensors);
    if (fs::exists(model, failed)) return open_safetensors(model, {}, family, tensors);
    const std::string of_run = join_path(from, "checkpoints");
    const bool run = fs::is_directory(of_run, failed);
    return std::make_unique<CheckpointSource>(pick_checkpoint(posix_file_system(), run ? of_run : from));
  }
  if (fs::is_regular_file(from, failed) && is_hdf5(from)) return std::make_unique<Hdf5Source>(from);
  if (fs::is_regular_file(from, failed) && is_of_torch_save(from))
    throw DataError(fmt::format(
        "{}: is a file of torch.save, which only Python can read; write its state dictionary as safetensors "
        "there: safetensors.torch.save_file(model.state_dict(), \"weights.safetensors\")",
        from));
  if (fs::is_regular_file(from, failed) && last_name(from) != "best")
    return open_safetensors(from, {}, family, tensors);
  return std::make_unique<CheckpointSource>(pick_checkpoint(posix_file_system(), from));
}

}  // namespace

std::string pytorch_name(const std::string& name) {
  constexpr std::string_view ours = ".running_variance", theirs = ".running_var";
  std::string out = name.substr(name.find('/') + 1);
  if (out.ends_with(ours)) out.replace(out.size() - ours.size(), ours.size(), theirs);
  return out;
}

std::string some_of(std::span<const std::string> names, std::size_t most) {
  const std::size_t more = names.size() > most ? names.size() - most : 0;
  return fmt::format("{}{}", fmt::join(names.first(names.size() - more), ", "),
                     more > 0 ? fmt::format(" and {} more", more) : std::string());
}

StartWeights load_weights(const std::string& from, std::string_view family, std::span<const StateTensor> tensors,
                          const std::function<bool(const std::string&)>& wanted) {
  constexpr std::size_t named = 3;
  const auto source = open_source(from, family, tensors);
  StartWeights result;
  result.source = source->path();
  const auto& weights = source->weights();
  std::vector<float*> into(weights.size());
  std::vector<std::size_t> taken(weights.size());
  std::map<std::string, std::size_t> places;
  for (std::size_t i = 0; i < weights.size(); ++i) places.emplace(weights[i].name, i);
  std::set<std::string> known;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::string name = pytorch_name(tensors[t].name);
    known.insert(name);
    if (!wanted(name)) continue;
    const auto found = places.find(name);
    if (found == places.end()) {
      result.absent.push_back(name);
      continue;
    }
    const Dims shape = dims_of(tensors[t].shape);
    const auto& there = weights[found->second].shape;
    if (there != shape) {
      result.other_shape.push_back(fmt::format("{} is {} there and {} here", name, text_of(there), text_of(shape)));
      continue;
    }
    if (tensors[t].dtype != DType::f32) throw BugError(tensors[t].name + " is not float32");
    into[found->second] = static_cast<float*>(tensors[t].data);
    taken[found->second] = t;
    result.taken.push_back(name);
  }
  for (const auto& weight : weights)  // PyTorch counts the batches of its batch norms; here nothing needs them
    if (!known.contains(weight.name) && !weight.name.ends_with(".num_batches_tracked"))
      result.unused.push_back(weight.name);
  if (result.taken.empty())
    throw DataError(
        fmt::format("{}: has nothing for this model: {}", result.source,
                    !result.other_shape.empty()
                        ? some_of(result.other_shape, named)
                        : fmt::format("its tensors are {}; those of the model are {}",
                                      result.unused.empty() ? "none" : some_of(result.unused, named),
                                      result.absent.empty() ? "all skipped" : some_of(result.absent, named))));
  source->read(into);
  for (std::size_t i = 0; i < into.size(); ++i) {
    if (into[i] == nullptr) continue;
    const std::span<const float> values(into[i], static_cast<std::size_t>(tensors[taken[i]].shape.elements()));
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
      throw DataError(fmt::format("{}: {} has numbers that are not finite", result.source, weights[i].name));
  }
  return result;
}

}  // namespace dtrain::io
