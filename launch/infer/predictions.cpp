#include "launch/infer/predictions.hpp"

#include <algorithm>
#include <cmath>

#include "launch/data/normalization.hpp"

namespace dtrain::launch {

namespace {

/// [batch, positions...] without the batch.
Shape positions_of(const TensorDesc& desc) {
  const auto extents = desc.shape.extents();
  return Shape(extents.subspan(1, extents.size() - 2));
}

/// Whether a cross_entropy reads the output.
bool classifies(const models::ModelConfig& model, const std::string& output) {
  const auto losses = models::losses_of(model);
  return std::any_of(losses.begin(), losses.end(), [&output](const models::ModelLoss& loss) {
    return loss.kind == models::Loss::cross_entropy && (loss.of.empty() || loss.of == output);
  });
}

/// `file` of each row, and `class_names` (of several outputs NAME_class_names), as far as they are known.
io::RowsFile::Texts texts_of(const models::ModelConfig& model, const Graph& graph, std::span<const std::string> names,
                             const Reference& classes) {
  io::RowsFile::Texts texts;
  if (!names.empty()) texts.emplace_back("file", std::vector<std::string>(names.begin(), names.end()));
  for (const GraphOutput& output : graph.outputs())
    for (const models::ModelLoss& loss : models::losses_of(model)) {
      if (loss.kind != models::Loss::cross_entropy || (!loss.of.empty() && loss.of != output.name)) continue;
      const io::Description* const said = io::find_description(classes, PortUse::target, loss.target);
      if (said == nullptr || !said->classes || said->names.empty()) continue;
      texts.emplace_back(graph.outputs().size() == 1 ? "class_names" : output.name + "_class_names", said->names);
      break;
    }
  return texts;
}

/// Images and volumes channel by channel, as TensorDesc::sample() has them; others stay.
const float* channels_first(const TensorDesc& desc, std::size_t count, const float* values, std::vector<float>& to) {
  if (desc.shape.rank() < 4) return values;
  const auto channels = static_cast<std::size_t>(desc.channels()), pixels = static_cast<std::size_t>(desc.positions());
  to.resize(count * channels * pixels);
  for (std::size_t n = 0; n < count; ++n)
    for (std::size_t p = 0; p < pixels; ++p)
      for (std::size_t c = 0; c < channels; ++c)
        to[(n * channels + c) * pixels + p] = values[(n * pixels + p) * channels + c];
  return to.data();
}

}  // namespace

std::vector<Predictions::Output> Predictions::outputs_of_graph(const RunConfig& config, const Graph& graph, bool logits,
                                                               std::vector<io::RowsColumn>& columns) {
  std::vector<Output> outputs;
  const bool single = graph.outputs().size() == 1;
  for (const GraphOutput& output : graph.outputs()) {
    Output& out = outputs.emplace_back();
    out.desc = graph.desc(output.value);
    out.classifies = classifies(config.model, output.name);
    if (!out.classifies) out.target = normalization_of_output(config, output.name);
    const auto add = [&](const std::string& what, io::StoredType type, std::vector<std::uint64_t> row) {
      const std::string name = single                                    ? what
                               : what == "class" || what == "prediction" ? output.name
                                                                         : output.name + "_" + what;
      columns.push_back({name, type, std::move(row)});
      return static_cast<int>(columns.size()) - 1;
    };
    const io::Dims row = io::dims_of(out.desc.sample());
    const bool of_samples = out.desc.shape.rank() == 2;
    if (!out.classifies) {
      out.logits = add("prediction", io::StoredType::f32, row);
      continue;
    }
    if (of_samples || logits) out.logits = add("logits", io::StoredType::f32, row);
    if (of_samples) out.probabilities = add("probabilities", io::StoredType::f32, row);
    out.classes = add("class", io::StoredType::i32, io::dims_of(positions_of(out.desc)));
  }
  return outputs;
}

Predictions::Predictions(Group& group, const RunConfig& config, const Graph& graph, const std::string& path,
                         std::uint64_t rows, bool logits,
                         const std::vector<std::pair<std::string, std::string>>& attributes,
                         std::span<const std::string> names, const Reference& classes)
    : texts_(texts_of(config.model, graph, names, classes)),
      outputs_(outputs_of_graph(config, graph, logits, columns_)),
      file_(group, path, rows, columns_, attributes, texts_) {}

void Predictions::write(std::size_t index, std::uint64_t first, std::size_t count, const float* values) {
  if (count == 0) return;
  const Output& out = outputs_[index];
  if (out.target != io::Normalize()) {
    const auto channels = static_cast<std::size_t>(out.desc.channels());
    restored_.resize(count * static_cast<std::size_t>(out.desc.positions()) * channels);
    for (std::size_t i = 0; i < restored_.size(); ++i)
      restored_[i] = static_cast<float>(out.target.restored(static_cast<double>(values[i]), i % channels));
    values = restored_.data();
  }
  if (out.logits >= 0)
    file_.write(static_cast<std::size_t>(out.logits), first, count, channels_first(out.desc, count, values, values_));
  if (!out.classifies) return;
  const auto width = static_cast<std::size_t>(out.desc.channels());
  const std::size_t rows = count * static_cast<std::size_t>(out.desc.positions());
  classes_.resize(rows);
  if (out.probabilities >= 0) probabilities_.resize(rows * width);
  for (std::size_t i = 0; i < rows; ++i) {
    const std::span<const float> logits(values + i * width, width);
    const auto largest = std::max_element(logits.begin(), logits.end());
    classes_[i] = static_cast<std::int32_t>(largest - logits.begin());
    if (out.probabilities < 0) continue;
    double sum = 0;
    for (const float x : logits) sum += std::exp(static_cast<double>(x) - static_cast<double>(*largest));
    for (std::size_t k = 0; k < width; ++k)
      probabilities_[i * width + k] =
          static_cast<float>(std::exp(static_cast<double>(logits[k]) - static_cast<double>(*largest)) / sum);
  }
  if (out.probabilities >= 0)
    file_.write(static_cast<std::size_t>(out.probabilities), first, count, probabilities_.data());
  file_.write(static_cast<std::size_t>(out.classes), first, count, classes_.data());
}

std::string Predictions::text() const {
  std::string text;
  const std::size_t count = columns_.size() + texts_.size();
  for (std::size_t i = 0; i < count; ++i)
    text += (i == 0          ? ""
             : i + 1 < count ? ", "
                             : " and ") +
            (i < columns_.size() ? columns_[i].name : texts_[i - columns_.size()].first);
  return text;
}

}  // namespace dtrain::launch
