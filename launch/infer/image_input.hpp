// Images that `dtrain predict` reads as they are: folders, archives and files, made into samples as those of training
// were.
// An ImageInput owns the HDF5 file of these samples, on rank 0, and removes it; used by all ranks on their main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "io/import/cleaning.hpp"
#include "launch/config/config.hpp"
#include "launch/data/data.hpp"
#include "runtime/ranks/group.hpp"

namespace dtrain::launch {

struct ImageInputOptions {
  /// How images become as large as the model's input, in place of what training's data say: as
  /// io::ImageSize::shorter.
  std::optional<std::int64_t> resize;
  io::OnError on_error = io::OnError::refuse;  // of files that cannot be read
};

class ImageInput {
 public:
  /// Whether some inputs are images and no HDF5 files. Throws ConfigError where they are both.
  static bool found_in(std::span<const std::string> inputs);

  /// Collective. Makes the file beside `output`, which all ranks see, and reads from it from now on what `config` says.
  /// Throws ConfigError where the model reads other things than images, DataError where it is not known how its
  /// images were made, or where some cannot be read.
  ImageInput(Group&, RunConfig& config, const Reference&, std::span<const std::string> inputs,
             const std::string& output, const ImageInputOptions&);
  ~ImageInput();
  ImageInput(const ImageInput&) = delete;
  ImageInput& operator=(const ImageInput&) = delete;

  const std::string& file() const noexcept { return file_; }
  /// On rank 0: what was left out, a line each.
  const std::string& notes() const noexcept { return notes_; }

 private:
  std::string file_, notes_;
  bool own_ = false;
};

}  // namespace dtrain::launch
