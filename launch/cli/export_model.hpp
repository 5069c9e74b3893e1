// `dtrain checkpoint export`: which files a model is written to, by what the configuration in its checkpoint says.
// A free function without state, on the thread that calls it.
#pragma once

#include <cstdint>
#include <string>

#include "io/checkpoint/checkpoint.hpp"

namespace dtrain::launch {

/// Of parameters in safetensors; automatic: Hugging Face's where it has such a model, else dtrain's.
enum class ExportNames : std::uint8_t { automatic, dtrain, huggingface, torchvision };

/// As io::export_checkpoint(); adapters of a LoRA run are merged. Throws ConfigError where names of another library are
/// asked for that has no such model.
io::CheckpointReport export_model(const std::string& given, const std::string& output, bool raw, io::ExportFormat,
                                  ExportNames);

}  // namespace dtrain::launch
