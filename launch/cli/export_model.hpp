// `dtrain checkpoint export`: which files a model is written to, by what the configuration in its checkpoint says.
// A free function without state, on the thread that calls it.
#pragma once

#include <string>

#include "io/checkpoint/checkpoint.hpp"
#include "launch/data/export_form.hpp"

namespace dtrain::launch {

/// As io::export_checkpoint(); adapters of a LoRA run are merged with their base, which lies at `base` where that is
/// not empty, else where the run has read it. Throws ConfigError where names of another library are asked for that has
/// no such model.
io::CheckpointReport export_model(const std::string& given, const std::string& output, bool raw, io::ExportFormat,
                                  ExportNames, const std::string& base = {});

}  // namespace dtrain::launch
