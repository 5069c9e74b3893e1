// Batches of any ports: what a graph of those inputs and a loader of them are told.
// A PortBatch collects ports, a source and options each; plain settings on the test's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/dataset/loader.hpp"
#include "runtime/program/batch_layout.hpp"

namespace dtrain::io::testing {

class PortBatch {
 public:
  /// `sample`: the shape of a sample as users write it; for index values without channels. Returns the port's options;
  /// key "-": a weight without a data set.
  PortOptions& port(PortUse use, const std::string& name, DType type, const std::vector<std::int64_t>& sample,
                    const std::string& key = "", const std::string& offsets = "") {
    ports_.push_back({use, name, type, sample});
    PortOptions& made = options.ports.emplace_back();
    made.use = use;
    if (key == "-") return made;
    made.source = static_cast<int>(sources.size());
    const bool index = type == DType::u8 || type == DType::u16 || type == DType::i32;
    sources.push_back({name, use, index, key, offsets, {}});
    return made;
  }
  Dataset open(const std::vector<std::string>& files, double cache_mib = 1024) const {
    DatasetOptions of;
    of.ports = sources;
    of.cache_mib = cache_mib;
    return Dataset(files, of);
  }
  /// For micro batches of so many samples.
  LoaderOptions of(std::int64_t micro, std::int64_t global = 0, int rank = 0, int ranks = 1) const {
    LoaderOptions made = options;
    Graph graph(micro);
    for (const Port& p : ports_) {
      std::vector<std::int64_t> extents{micro};
      extents.insert(extents.end(), p.sample.begin(), p.sample.end());
      const bool plain = p.use == PortUse::weight;
      graph.add_input(p.use, p.name,
                      plain ? TensorDesc{p.type, Shape(std::span<const std::int64_t>(extents))}
                            : TensorDesc::of_sample(p.type, micro, p.sample));
    }
    made.layout = batch_layout(graph, carry);
    made.global_batch = global > 0 ? global : micro;
    made.rank = rank;
    made.ranks = ranks;
    return made;
  }

  LoaderOptions options;
  std::vector<PortSource> sources;
  std::vector<PortCarry> carry;

 private:
  struct Port {
    PortUse use;
    std::string name;
    DType type;
    std::vector<std::int64_t> sample;
  };
  std::vector<Port> ports_;
};

/// One sample's values of a port.
template <class T>
std::vector<T> sample_of(const Batch& batch, std::size_t port, std::int64_t row) {
  const Tensor& t = batch.ports[port];
  const auto n = static_cast<std::size_t>(t.elements() / t.desc.batch());
  const T* at = t.as<T>() + static_cast<std::size_t>(row) * n;
  return {at, at + n};
}

}  // namespace dtrain::io::testing
