#include "launch/cli/export_model.hpp"

#include "launch/config/config_file.hpp"
#include "launch/train/merged_model.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

io::CheckpointReport export_model(const std::string& given, const std::string& output, bool raw,
                                  io::ExportFormat format, ExportNames names, const std::string& base) {
  const bool may = format == io::ExportFormat::safetensors && names != ExportNames::dtrain;
  if (names != ExportNames::automatic && format != io::ExportFormat::safetensors)
    throw ConfigError("--names: an HDF5 file has dtrain's names; use --to safetensors");
  std::string remark;
  const auto form = [&](const io::RunState& state) -> std::optional<io::ForeignForm> {
    RunConfig config;
    try {
      config = parse_config(state.configuration, "the checkpoint's configuration").config;
    } catch (const ConfigError&) {  // an older program's
      if (names != ExportNames::automatic) throw;
      return std::nullopt;
    }
    ExportForm out = export_form(config, names);
    if (!out.remark.empty()) remark = out.remark + "\n";
    return std::move(out.form);
  };
  MergedModel merged(base);
  auto report =
      io::export_checkpoint(given, output, raw, format, io::posix_file_system(), may ? io::ModelForm(form) : nullptr,
                            [&](const std::string& checkpoint, const io::RunState& run, bool averaged) {
                              return merged.read(checkpoint, run, averaged);
                            });
  report.text += remark;
  return report;
}

}  // namespace dtrain::launch
