#include "launch/data/export_form.hpp"

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "io/dataset/dataset.hpp"
#include "io/text/token_file.hpp"
#include "io/weights/names.hpp"
#include "launch/config/config_file.hpp"
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

void add_tokenizer(const RunConfig& config, Document& document, ExportForm& out) {
  const auto tokenizer = tokenizer_of(config);
  const bool generates = out.form->family != "bert";
  const auto end = tokenizer ? tokenizer->end_of_text() : std::nullopt;
  if (generates)
    for (const char* id : {"bos_token_id", "eos_token_id"})
      document.set(id, end ? Document::integer(static_cast<std::int64_t>(*end)) : Document());
  if (!tokenizer) {
    out.remark = "without a tokenizer: the files of data.train are not there, or hold none; put tokenizer.json beside";
    return;
  }
  Document settings = Document::map();
  settings.set("tokenizer_class", Document::string("PreTrainedTokenizerFast"));
  if (end) settings.set("eos_token", Document::string(std::string(tokenizer->piece(*end))));
  out.form->files.emplace_back("tokenizer.json", tokenizer->definition());
  out.form->files.emplace_back("tokenizer_config.json", to_json_text(settings));
}

}  // namespace

ExportForm export_form(const RunConfig& config, ExportNames names) {
  ExportForm out;
  io::ForeignForm& form = out.form.emplace();
  form.family = models::family_name(config.model.family);
  const auto inputs = models::inputs_of(config.model);
  std::optional<Document> document = models::huggingface_config(config.model.family, inputs);
  if (names == ExportNames::torchvision || names == ExportNames::timm) {
    form.timm = names == ExportNames::timm;
    if (document || io::foreign_names(form.family) == nullptr)
      throw ConfigError(fmt::format("--names {}: the model is neither resnet nor efficientnet-b0; use --names dtrain",
                                    form.timm ? "timm" : "torchvision"));
    return out;
  }
  if (!document) {
    if (names == ExportNames::huggingface)
      throw ConfigError("--names huggingface: the model is none of gpt, llama, bert and vit; use --names dtrain");
    return {};
  }
  if (inputs[0].indices()) add_tokenizer(config, *document, out);
  document->set("dtype", Document::string("float32"));
  form.files.emplace_back("config.json", to_json_text(*document));
  return out;
}

}  // namespace dtrain::launch
