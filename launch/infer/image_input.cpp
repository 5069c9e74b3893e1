#include "launch/infer/image_input.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <unistd.h>

#include "io/files/output.hpp"
#include "io/import/import_images.hpp"
#include "models/model/config.hpp"

namespace dtrain::launch {

namespace {

/// The model's only input.
models::ModelInput image_input(const RunConfig& config) {
  std::vector<models::ModelInput> inputs = models::inputs_of(config.model);
  const bool image = inputs.size() == 1 && !inputs[0].indices() && inputs[0].shape.size() == 3 &&
                     (inputs[0].shape[0] == 1 || inputs[0].shape[0] == 3);
  if (!image)
    throw ConfigError(
        "predict: the model's input is not one image of 1 or 3 channels, so that it cannot read image files: name HDF5 "
        "files with --input");
  return inputs[0];
}

/// As the data of training say; else as its files do, where they are still there.
io::ImagePreprocessing preprocessing_of(const RunConfig& config, const Reference& reference,
                                        const models::ModelInput& input, const std::optional<std::int64_t>& resize) {
  const auto said_in = [&](const Reference& all) {
    const io::Description* said = io::find_description(all, PortUse::input, input.name);
    return said == nullptr ? std::nullopt : io::preprocessing_in(said->preprocessing);
  };
  std::optional<io::ImagePreprocessing> how = said_in(reference);
  if (!how) {
    try {
      const io::Dataset train = open_inputs(config, config.data.train, {});
      how = said_in(train.descriptions());
      // Bytes that another program wrote, or an older dtrain: images of the size of the model's input.
      if (!how && train.port(0).type == io::StoredType::u8)
        how = {{input.shape[1], input.shape[2]}, static_cast<int>(input.shape[0])};
    } catch (const DataError&) {
    }
  }
  if (!how)
    throw DataError(
        "predict: neither the checkpoint nor data.train says how the images of training were made of files, so that "
        "these cannot be made alike; make an HDF5 file of them as data.train was made, and name it with --input");
  if (resize) {
    how->size.resize = true;
    how->size.shorter = *resize;
  }
  return *how;
}

/// The name under which the model's input is looked for.
std::string plain_key(RunConfig& config, const models::ModelInput& input) {
  config.data.sample_key.clear();
  for (auto& [name, port] : config.data.inputs) {
    port.key.clear();
    port.layout = io::StoredLayout::unknown;
  }
  config.data.eval.inputs.clear();
  return input.name == "input" ? "images" : input.name;
}

}  // namespace

bool ImageInput::found_in(std::span<const std::string> inputs) {
  const std::vector<std::string> paths = io::expand_files(inputs);
  const auto other = std::find_if_not(paths.begin(), paths.end(), io::holds_images);
  if (other == paths.end()) return true;
  const auto image = std::find_if(paths.begin(), paths.end(), io::holds_images);
  if (image == paths.end()) return false;
  throw ConfigError(fmt::format(
      "predict: {} holds images, but {} does not seem to: name HDF5 files or images, not both", *image, *other));
}

ImageInput::ImageInput(Group& group, RunConfig& config, const Reference& reference, std::span<const std::string> inputs,
                       const std::string& output, const ImageInputOptions& options) {
  std::string file;
  group.agree([&] {
    const models::ModelInput input = image_input(config);
    if (group.rank() == 0) {
      const std::vector<std::string> paths = io::expand_files(inputs);
      io::check_output(output, paths);
      io::ImageImportOptions import;
      import.labels = false;
      import.how = preprocessing_of(config, reference, input, options.resize);
      import.key = plain_key(config, input);
      import.on_error = options.on_error;
      file = fmt::format("{}.images-{}", output, ::getpid());
      own_ = true;
      file_ = file;
      notes_ = io::import_images(paths, file, import).notes;
    }
    plain_key(config, input);
  });
  file_ = group.broadcast(file);
}

ImageInput::~ImageInput() {
  std::error_code ignored;
  if (own_) std::filesystem::remove(file_, ignored);
}

}  // namespace dtrain::launch
