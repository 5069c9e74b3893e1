// The form in which another library opens a model: whose names the parameters get, and the files beside them.
// Values, and a free function without state, on the thread that calls it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "io/checkpoint/checkpoint.hpp"
#include "launch/config/config.hpp"

namespace dtrain::launch {

/// Of parameters in safetensors; automatic: Hugging Face's where it has such a model, else dtrain's.
enum class ExportNames : std::uint8_t { automatic, dtrain, huggingface, torchvision, timm };

struct ExportForm {
  std::optional<io::ForeignForm> form;  // nothing: dtrain's names
  std::string remark;                   // for the user, or empty
};

/// Reads the tokenizer from the files of data.train. Throws ConfigError where names of another library are asked for
/// that has no such model.
ExportForm export_form(const RunConfig&, ExportNames);

}  // namespace dtrain::launch
