// Predictions: the HDF5 file that `dtrain predict` writes: what a model's outputs come to, a row a sample.
// Owns the file, which all ranks make and commit together; write() is each rank's own business, on its main thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/hdf5/rows_file.hpp"
#include "launch/config/config.hpp"
#include "launch/data/data.hpp"
#include "runtime/graph/graph.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

class Predictions {
 public:
  /// `graph`: built for prediction. Of the outputs that a cross_entropy reads, classes are written: of a sample with
  /// logits and probabilities beside them; of each position alone, or with the logits where they are asked for. Of
  /// others the values, in the units of their targets. Of a single output they are called class, logits, probabilities
  /// or prediction; of several as the output, or with NAME_ before that. Values of images lie channels first, as users
  /// write shapes. `names`: on rank 0, of the rows; empty: none. `classes`: what labels
  /// mean, where that is known.
  Predictions(Group&, const RunConfig&, const Graph& graph, const std::string& path, std::uint64_t rows, bool logits,
              const std::vector<std::pair<std::string, std::string>>& attributes, std::span<const std::string> names,
              const Reference& classes);

  std::size_t outputs() const noexcept { return outputs_.size(); }
  /// `count` rows of output `index` from row `first` on: f32, as the graph has them.
  void write(std::size_t index, std::uint64_t first, std::size_t count, const float* values);
  void commit() { file_.commit(); }
  /// "logits, probabilities, class and file"
  std::string text() const;

 private:
  struct Output {
    TensorDesc desc;
    bool classifies = false;
    io::Normalize target{};                             // of what its values are compared with
    int classes = -1, logits = -1, probabilities = -1;  // columns; -1: none
  };
  static std::vector<Output> outputs_of_graph(const RunConfig&, const Graph&, bool logits,
                                              std::vector<io::RowsColumn>& columns);

  io::RowsFile::Texts texts_;
  std::vector<io::RowsColumn> columns_;
  std::vector<Output> outputs_;
  io::RowsFile file_;
  std::vector<float> restored_, values_, probabilities_;
  std::vector<std::int32_t> classes_;
};

}  // namespace dtrain::launch
