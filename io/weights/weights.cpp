#include "io/weights/weights.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "io/checkpoint/checkpoint_manifest.hpp"
#include "io/hdf5/column.hpp"
#include "io/weights/safetensors.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

namespace fs = std::filesystem;

/// A tensor of a source, as PyTorch would call it.
struct Weight {
  std::string name;
  std::vector<std::uint64_t> shape;
};

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
    const auto has_average = [](const auto& t) { return t.name.starts_with("ema/"); };
    const bool averaged = std::any_of(manifest_.tensors.begin(), manifest_.tensors.end(), has_average);
    for (std::size_t i = 0; i < manifest_.tensors.size(); ++i) {
      const auto& tensor = manifest_.tensors[i];
      if (!tensor.name.starts_with(averaged ? "ema/" : "param/") && !tensor.name.starts_with("state/")) continue;
      auto& weight = weights_.emplace_back();
      weight.name = pytorch_name(tensor.name);
      for (int k = 0; k < tensor.shape.rank(); ++k) weight.shape.push_back(static_cast<std::uint64_t>(tensor.shape[k]));
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

class SafeTensorsSource final : public Source {
 public:
  explicit SafeTensorsSource(const std::string& path) : file_(path) {
    for (const auto& tensor : file_.tensors()) weights_.push_back({tensor.name, tensor.shape});
  }
  const std::string& path() const override { return file_.path(); }
  void read(std::span<float* const> into) override {
    for (std::size_t i = 0; i < into.size(); ++i) {
      if (into[i] == nullptr) continue;
      const auto values = file_.read_floats(file_.tensors()[i]);
      std::copy(values.begin(), values.end(), into[i]);
    }
  }

 private:
  SafeTensorsFile file_;
};

bool is_hdf5(const std::string& path) {
  std::array<char, 8> begin{};
  std::ifstream(path, std::ios::binary).read(begin.data(), begin.size());
  return std::string_view(begin.data(), begin.size()) == "\x89HDF\r\n\x1a\n";
}

std::unique_ptr<Source> open_source(const std::string& from) {
  std::error_code failed;
  if (fs::is_directory(from, failed)) {
    const std::string of_run = join_path(from, "checkpoints");
    const bool run = fs::is_directory(of_run, failed);
    return std::make_unique<CheckpointSource>(pick_checkpoint(posix_file_system(), run ? of_run : from));
  }
  if (fs::is_regular_file(from, failed) && is_hdf5(from)) return std::make_unique<Hdf5Source>(from);
  if (fs::is_regular_file(from, failed) && last_name(from) != "best") return std::make_unique<SafeTensorsSource>(from);
  return std::make_unique<CheckpointSource>(pick_checkpoint(posix_file_system(), from));
}

std::string text_of(std::span<const std::uint64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::string some_of(std::vector<std::string> names) {
  constexpr std::size_t most = 3;
  const std::size_t more = names.size() > most ? names.size() - most : 0;
  names.resize(names.size() - more);
  return fmt::format("{}{}", fmt::join(names, ", "), more > 0 ? fmt::format(" and {} more", more) : std::string());
}

}  // namespace

std::string pytorch_name(const std::string& name) {
  constexpr std::string_view ours = ".running_variance", theirs = ".running_var";
  std::string out = name.substr(name.find('/') + 1);
  if (out.ends_with(ours)) out.replace(out.size() - ours.size(), ours.size(), theirs);
  return out;
}

StartWeights load_weights(const std::string& from, std::span<const StateTensor> tensors,
                          const std::function<bool(const std::string&)>& wanted) {
  const auto source = open_source(from);
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
    std::vector<std::uint64_t> shape;
    for (int k = 0; k < tensors[t].shape.rank(); ++k) shape.push_back(static_cast<std::uint64_t>(tensors[t].shape[k]));
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
    throw DataError(fmt::format("{}: has nothing for this model: {}", result.source,
                                !result.other_shape.empty()
                                    ? some_of(result.other_shape)
                                    : fmt::format("its tensors are {}; those of the model are {}",
                                                  result.unused.empty() ? "none" : some_of(result.unused),
                                                  result.absent.empty() ? "all skipped" : some_of(result.absent))));
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
