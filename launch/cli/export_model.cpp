#include "launch/cli/export_model.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "io/dataset/dataset.hpp"
#include "io/text/token_file.hpp"
#include "io/weights/names.hpp"
#include "launch/config/config_file.hpp"
#include "launch/infer/merged_model.hpp"
#include "models/families/families.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {
namespace {

/// Of the files that it was trained on; null where they are gone, or hold none.
std::unique_ptr<io::Tokenizer> tokenizer_of(const RunConfig& config) {
  try {
    const io::h5::File file(io::expand_files(config.data.train).at(0));
    if (const auto tokens = io::find_tokens(file)) return io::stored_tokenizer(file, *tokens);
  } catch (const DataError&) {
  }
  return nullptr;
}

class Form {
 public:
  explicit Form(ExportNames names) : names_(names) {}

  std::optional<io::ForeignForm> operator()(const io::RunState& state) {
    RunConfig config;
    try {
      config = parse_config(state.configuration, "the checkpoint's configuration").config;
    } catch (const ConfigError&) {  // an older program's
      if (names_ != ExportNames::automatic) throw;
      return std::nullopt;
    }
    io::ForeignForm form;
    form.family = models::family_name(config.model.family);
    const auto inputs = models::inputs_of(config.model);
    std::optional<Document> document = models::huggingface_config(config.model.family, inputs);
    if (names_ == ExportNames::torchvision) {
      if (document || io::foreign_names(form.family) == nullptr)
        throw ConfigError("--names torchvision: the model is neither resnet nor efficientnet-b0; use --names dtrain");
      return form;
    }
    if (!document) {
      if (names_ == ExportNames::huggingface)
        throw ConfigError("--names huggingface: the model is none of gpt, llama, bert and vit; use --names dtrain");
      return std::nullopt;
    }
    if (inputs[0].indices()) add_tokenizer(config, *document, form);
    document->set("dtype", Document::string("float32"));
    form.files.emplace_back("config.json", to_json_text(*document));
    return form;
  }

  /// A line for the user, or nothing.
  const std::string& remark() const noexcept { return remark_; }

 private:
  void add_tokenizer(const RunConfig& config, Document& document, io::ForeignForm& form) {
    const auto tokenizer = tokenizer_of(config);
    const bool generates = form.family != "bert";
    const auto end = tokenizer ? tokenizer->end_of_text() : std::nullopt;
    if (generates)
      for (const char* id : {"bos_token_id", "eos_token_id"})
        document.set(id, end ? Document::integer(static_cast<std::int64_t>(*end)) : Document());
    if (!tokenizer) {
      remark_ = "without a tokenizer: the files of data.train are not there, or hold none; put tokenizer.json beside\n";
      return;
    }
    Document settings = Document::map();
    settings.set("tokenizer_class", Document::string("PreTrainedTokenizerFast"));
    if (end) settings.set("eos_token", Document::string(std::string(tokenizer->piece(*end))));
    form.files.emplace_back("tokenizer.json", tokenizer->definition());
    form.files.emplace_back("tokenizer_config.json", to_json_text(settings));
  }

  const ExportNames names_;
  std::string remark_;
};

}  // namespace

io::CheckpointReport export_model(const std::string& given, const std::string& output, bool raw,
                                  io::ExportFormat format, ExportNames names) {
  Form form(names);
  const bool may = format == io::ExportFormat::safetensors && names != ExportNames::dtrain;
  if (names != ExportNames::automatic && format != io::ExportFormat::safetensors)
    throw ConfigError("--names: an HDF5 file has dtrain's names; use --to safetensors");
  MergedModel merged;
  auto report = io::export_checkpoint(given, output, raw, format, io::posix_file_system(),
                                      may ? io::ModelForm(std::ref(form)) : nullptr,
                                      [&](const std::string& checkpoint, const io::RunState& state, bool averaged) {
                                        return merged.read(checkpoint, state, averaged);
                                      });
  report.text += form.remark();
  return report;
}

}  // namespace dtrain::launch
