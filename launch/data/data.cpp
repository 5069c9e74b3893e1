#include "launch/data/data.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "io/samples/text_samples.hpp"

namespace dtrain::launch {

namespace {

io::TextPart part_of(const RunConfig& config, const models::Port& port) {
  if (!config.data.text) return io::TextPart::none;
  if (port.use != PortUse::input) return io::TextPart::labels;
  return port.data == io::documents_input ? io::TextPart::documents : io::TextPart::tokens;
}

/// The data sets of these ports; of weights that several ports read, one.
std::vector<io::PortSource> sources_of(const RunConfig& config, const std::vector<models::Port>& ports, DataUse use) {
  std::vector<io::PortSource> sources;
  for (const models::Port& port : ports) {
    if (port.data.empty()) continue;
    const bool known = std::any_of(sources.begin(), sources.end(), [&port](const io::PortSource& s) {
      return s.use == port.use && s.name == port.data;
    });
    if (known) continue;
    const io::PortConfig where = io::port_config(config.data, port.use, port.data, use == DataUse::evaluation);
    sources.push_back(
        {port.data, port.use, port.indices, where.key, where.offsets, port.ignore, part_of(config, port)});
  }
  return sources;
}

int source_of(const io::Dataset& data, const models::Port& port) {
  for (std::size_t i = 0; i < data.ports().size(); ++i)
    if (data.port(i).use == port.use && data.port(i).name == port.data) return static_cast<int>(i);
  return -1;
}

int place_of(const std::vector<models::Port>& ports, PortUse use, const std::string& name) {
  for (std::size_t i = 0; i < ports.size(); ++i)
    if (ports[i].use == use && ports[i].name == name) return static_cast<int>(i);
  return -1;
}

io::PortOptions options_of(const RunConfig& config, const std::vector<models::Port>& ports, const models::Port& port,
                           const GraphInput& input, const io::Dataset& data, DataUse use) {
  io::PortOptions options;
  options.use = port.use;
  options.source = source_of(data, port);
  options.limit = input.limit;
  options.ignore = port.ignore;
  options.target = port.target;
  options.class_weights = port.class_weights;
  if (options.source < 0) return options;
  const io::PortConfig said = io::port_config(config.data, port.use, port.data, use == DataUse::evaluation);
  options.layout = said.layout;
  options.normalize = said.normalize;
  if (use == DataUse::training) options.augment = said.augment;
  if (!said.follow.empty()) options.follow = place_of(ports, PortUse::input, said.follow);
  return options;
}

/// What moves with an image without being told: in the short form a target that lies over the only input, and a loss's
/// weights that lie over its target.
void follow_by_itself(const RunConfig& config, const Graph& graph, const models::Ports& ports,
                      std::vector<io::PortOptions>& options) {
  if (options.size() < ports.all.size()) return;  // a prediction reads inputs alone
  const auto of = [](int port) { return static_cast<std::size_t>(port); };
  const auto over = [&graph](std::size_t port, int image) {
    const GraphInput &input = graph.inputs()[port], &under = graph.inputs()[static_cast<std::size_t>(image)];
    return io::lies_over(graph.desc(input.value), input.use, graph.desc(under.value));
  };
  const bool short_form = config.data.inputs.empty() && config.data.targets.empty() && io::moves(config.data.augment);
  if (short_form && models::inputs_of(config.model).size() == 1) {
    for (std::size_t i = 0; i < options.size(); ++i)
      if (options[i].use == PortUse::target && over(i, 0)) options[i].follow = 0;
  }
  for (const models::PortLoss& loss : ports.losses) {
    io::PortOptions& weight = options.at(of(loss.weight));
    const int image = options.at(of(loss.target)).follow;
    if (weight.follow < 0 && image >= 0 && over(of(loss.weight), image)) weight.follow = image;
  }
}

DType index_type(io::StoredType type) {
  return type == io::StoredType::u8 ? DType::u8 : type == io::StoredType::u16 ? DType::u16 : DType::i32;
}

}  // namespace

io::Dataset open_data(const RunConfig& config, const std::vector<std::string>& patterns, DataUse use, double cache_mib,
                      const Reference& reference, io::DatasetOptions::Part part) {
  const models::Ports ports = models::ports_of(config.model);
  return io::Dataset(
      patterns, {sources_of(config, ports.all, use), cache_mib, part, static_cast<std::size_t>(config.data.open_files),
                 use == DataUse::evaluation, reference, config.data.text});
}

Reference reference_of(const io::FoundCheckpoint& found) {
  const auto at = found.state.versions.find(data_names_key);
  if (at == found.state.versions.end()) return {};
  try {
    return io::descriptions_from(at->second, "checkpoint " + found.path);
  } catch (const DataError& e) {
    throw CheckpointError(e.what(), CheckpointError::Kind::corrupt);
  }
}

void check_same_names(const io::FoundCheckpoint& found, const Reference& now) {
  for (const io::Description& before : reference_of(found)) {
    const io::Description* const said = io::find_description(now, before.use, before.port);
    if (said == nullptr) continue;
    if (const std::string text = io::other_tokenizer(*said, before); !text.empty())
      throw CheckpointError(text, CheckpointError::Kind::incompatible);
    if (before.names.empty() || said->names.empty()) continue;
    try {
      if (io::RowMap(before, *said, io::StoredType::i32).empty() && before.names.size() == said->names.size()) continue;
    } catch (const DataError& e) {
      throw CheckpointError(e.what(), CheckpointError::Kind::incompatible);
    }
    throw CheckpointError(fmt::format("{} has its {} in another order than {}, or lacks some: make it again as it was",
                                      said->source, before.classes ? "classes" : "columns", before.source),
                          CheckpointError::Kind::incompatible);
  }
}

io::Dataset open_inputs(const RunConfig& config, const std::vector<std::string>& patterns, const Reference& reference) {
  std::vector<models::Port> inputs = models::ports_of(config.model).all;
  std::erase_if(inputs, [](const models::Port& port) { return port.use != PortUse::input; });
  return io::Dataset(patterns, {.ports = sources_of(config, inputs, DataUse::evaluation),
                                .cache_mib = 0,
                                .evaluation = true,
                                .reference = reference,
                                .text = config.data.text});
}

models::StoredPorts stored_ports(const io::Dataset& data, const io::Dataset* other) {
  models::StoredPorts stored;
  for (const io::Dataset* set : {&data, other}) {
    if (set == nullptr) continue;
    for (const io::DataPort& port : set->ports()) {
      if (port.index) {
        const auto [known, fresh] =
            stored.index_types.emplace(models::StoredPorts::Name{port.use, port.name}, index_type(port.type));
        if (known->second != index_type(port.type)) known->second = DType::i32;
      }
      if (port.use == PortUse::weight ? port.row.elements() > 1 || port.ragged()
                                      : port.use == PortUse::target && port.ragged())
        stored.by_position.emplace(port.use, port.name);
    }
  }
  return stored;
}

io::LoaderOptions loader_options(const RunConfig& config, const Graph& graph, const models::StoredPorts& stored,
                                 const io::Dataset& data, DataUse use, int rank, int ranks, Device* device) {
  const models::Ports ports = models::ports_of(config.model, mixed_ports(config, stored));
  io::LoaderOptions loading;
  loading.layout = batch_layout(graph);
  for (std::size_t i = 0; i < graph.inputs().size(); ++i)
    loading.ports.push_back(options_of(config, ports.all, ports.all.at(i), graph.inputs()[i], data, use));
  follow_by_itself(config, graph, ports, loading.ports);
  if (use == DataUse::training)
    for (const models::PortLoss& loss : ports.losses)
      if (loss.counted) loading.counts.push_back({loss.target, loss.weight, loss.loss.ignore, loss.loss.name});
  loading.mix = config.data.mix;
  if (loading.mix.on())
    for (io::PortOptions& port : loading.ports) port.pairs = port.use != PortUse::input;
  loading.global_batch = config.batch.global;
  loading.warmup = config.batch.warmup;
  loading.rank = rank;
  loading.ranks = ranks;
  loading.seed = config.seed;
  loading.shuffle = config.data.shuffle;
  loading.threads = config.data.prefetch_threads;
  loading.ring = config.data.prefetch_batches;
  loading.device = device;
  return loading;
}

void check_data(const RunConfig& config, const Graph& graph, const models::StoredPorts& stored, const io::Dataset& data,
                DataUse use) {
  const io::LoaderOptions loading = loader_options(config, graph, stored, data, use);
  io::check_ports(data, loading.layout, loading.ports);
}

namespace {

/// Where the evaluation is on samples of training.
std::string overlap_text(const io::Dataset& train, const io::Dataset& eval) {
  if (train.fingerprint() == eval.fingerprint())
    return fmt::format(
        "data.eval and data.train are the same samples ({}: {}): the evaluation does not test on new data",
        eval.files().front(), eval.port(0).key);
  if (train.port(0).key != eval.port(0).key) return {};  // the halves of one file
  std::vector<std::string> both;
  for (const std::string& file : eval.files())
    for (const std::string& other : train.files()) {
      std::error_code none;
      if (file == other || std::filesystem::equivalent(file, other, none)) both.push_back(file);
    }
  if (both.empty()) return {};
  return fmt::format("data.eval and data.train both read {}{}: the evaluation tests on samples of training",
                     both.front(), both.size() > 1 ? fmt::format(" and {} more files", both.size() - 1) : "");
}

std::string scale_advice(const io::DataPort& port, const io::Normalize& normalize) {
  const bool bytes = io::size_of(port.type) == 1, unscaled = normalize.scale == 1;
  const auto& mean = normalize.mean;
  if (normalize.scale > 1)
    return fmt::format("data.normalize.scale multiplies; to divide by {} write {:.15g}", normalize.scale,
                       1 / normalize.scale);
  if (bytes && unscaled && !mean.empty() &&
      std::all_of(mean.begin(), mean.end(), [](double m) { return std::abs(m) <= 1; }))
    return "mean and standard_deviation of data.normalize look like those of values from 0 to 1, but there is no "
           "scale: 0.00392156862745098";
  if (bytes && unscaled && mean.empty() && normalize.standard_deviation.empty())
    return "they are bytes without a scale; set data.normalize to {scale: 0.00392156862745098}, which is 1/255, or to "
           "the line that `dtrain data inspect` prints";
  return "`dtrain data inspect` prints a line for data.normalize";
}

/// Where the values of an input are far from 0 and 1; networks expect them there.
std::string far_text(const io::DataPort& port, const io::PortOptions& options, const io::Spread& spread) {
  constexpr double most = 10, least = 0.001;
  const bool far = std::abs(spread.mean) > most || spread.standard_deviation > most ||
                   (spread.standard_deviation > 0 && spread.standard_deviation < least);
  if (!far) return {};
  return fmt::format("the values of {} have mean {:.3g} and standard deviation {:.3g}, far from 0 and 1: {}",
                     port.name == "input" ? "the input" : "input " + port.name, spread.mean, spread.standard_deviation,
                     scale_advice(port, options.normalize));
}

/// A model with far more classes than there are labels.
std::string classes_text(const io::Dataset& data, const io::DataPort& port, std::int64_t classes) {
  if (!port.labels || port.class_count < 1 || port.class_count > classes / 2) return {};
  return fmt::format("{}: the labels in {} go from 0 to {}, and the model has {} classes: did you mean {}?",
                     data.files().front(), port.key, port.class_count - 1, classes, port.class_count);
}

/// Labels that are no integers as they are stored.
std::string labels_text(const io::Dataset& data, const io::DataPort& port, const TensorDesc& desc) {
  const bool one_hot = desc.shape.rank() == 1 && !port.ragged() && port.row.elements() > 1;
  if (!one_hot && !io::is_float(port.type)) return {};
  return fmt::format("{}: {} holds {}", data.files().front(), port.key,
                     one_hot ? "one-hot rows: the place of the 1 is taken as the label"
                             : fmt::format("{}: its whole numbers are taken as labels", io::name_of(port.type)));
}

}  // namespace

std::vector<std::string> data_warnings(const RunConfig& config, const Graph& graph, const models::StoredPorts& stored,
                                       const io::Dataset& train, const io::Dataset* eval) {
  std::vector<std::string> texts;
  if (eval != nullptr)
    if (std::string text = overlap_text(train, *eval); !text.empty()) texts.push_back(std::move(text));
  const io::LoaderOptions loading = loader_options(config, graph, stored, train, DataUse::training);
  for (std::size_t i = 0; i < loading.ports.size(); ++i) {
    const io::PortOptions& port = loading.ports[i];
    if (port.source < 0) continue;
    const TensorDesc& desc = loading.layout.ports[i].desc;
    const io::DataPort& held = train.port(static_cast<std::size_t>(port.source));
    if (port.use == PortUse::target && desc.is_index())
      for (std::string text : {labels_text(train, held, desc), classes_text(train, held, port.limit)})
        if (!text.empty()) texts.push_back(std::move(text));
    if (port.use != PortUse::input || desc.is_index() || port.normalize.automatic) continue;
    const auto spread = io::spread_of(train, loading.layout, loading.ports, i);
    if (!spread) continue;
    std::string text = far_text(held, port, *spread);
    if (!text.empty()) texts.push_back(std::move(text));
  }
  return texts;
}

std::vector<std::string> text_notes(const io::Dataset& train, const io::Dataset* eval) {
  std::vector<std::string> notes;
  if (train.text() != nullptr) notes.push_back("data.train: " + train.text()->text());
  if (eval != nullptr && eval->text() != nullptr) notes.push_back("data.eval: " + eval->text()->text());
  return notes;
}

}  // namespace dtrain::launch
