// The safetensors file format: named tensors behind a JSON header, for PyTorch, JAX and Hugging Face's libraries.
// A reader and a writer own one file each; each is of one thread. The format: huggingface/safetensors, README,
// "Format".
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/files/file.hpp"
#include "runtime/tensor/tensor.hpp"

namespace dtrain::io {

/// A tensor of a file, in row-major order. `type` is the format's own word: "F32", "BF16", "I64", "BOOL", ...
struct SafeTensor {
  std::string name;
  std::string type;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0, end = 0;  // bytes of the data behind the header
};

/// Metadata of a file: texts under names of the writer's choice.
using SafeTensorsMetadata = std::map<std::string, std::string>;

/// Bytes of one element; nothing for a word that the format does not know.
std::optional<std::uint64_t> safetensors_element_bytes(std::string_view type);
/// The format's word for a type of ours.
std::string_view safetensors_type(DType) noexcept;

class SafeTensorsFile {
 public:
  /// Reads the header. Throws DataError, which names the file and what is wrong, unless the tensors cover the data
  /// once, without a gap: then a file of right length is not one that was cut or has other bytes hidden in it.
  explicit SafeTensorsFile(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  /// By offset.
  std::span<const SafeTensor> tensors() const noexcept { return tensors_; }
  const SafeTensorsMetadata& metadata() const noexcept { return metadata_; }
  /// nullptr where the file has none of this name.
  const SafeTensor* find(std::string_view name) const noexcept;
  /// The tensor's bytes, as they are stored.
  std::vector<std::byte> read(const SafeTensor&);
  /// As float32: of F64, F32, F16 and BF16. Throws DataError for other types.
  std::vector<float> read_floats(const SafeTensor&);

 private:
  std::string path_;
  std::ifstream file_;
  std::uint64_t data_ = 0;  // where the tensors' bytes begin
  std::vector<SafeTensor> tensors_;
  SafeTensorsMetadata metadata_;
};

/// Writes to a temporary file beside `path`, which commit() renames; without it nothing is left.
class SafeTensorsWriter {
 public:
  /// The header: offsets are filled in, in the given order. Throws DataError where the file cannot be written.
  SafeTensorsWriter(std::string path, std::vector<SafeTensor> tensors, const SafeTensorsMetadata& metadata,
                    FileSystem& = posix_file_system());
  ~SafeTensorsWriter();
  SafeTensorsWriter(const SafeTensorsWriter&) = delete;
  SafeTensorsWriter& operator=(const SafeTensorsWriter&) = delete;

  /// The tensors' bytes, one tensor behind the other, in pieces of any length.
  void write(std::span<const std::byte>);
  /// Throws BugError unless all bytes came.
  void commit();

 private:
  FileSystem& files_;
  std::string path_, temporary_;
  File file_;
  std::uint64_t missing_ = 0;  // bytes that are still to come
};

}  // namespace dtrain::io
