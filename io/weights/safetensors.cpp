#include "io/weights/safetensors.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "io/hdf5/stored.hpp"
#include "runtime/tensor/error.hpp"
#include "runtime/tensor/f16.hpp"

namespace dtrain::io {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t most_header_bytes = 100'000'000;  // the reference reader's own limit
constexpr std::size_t header_alignment = 8;
constexpr const char* metadata_key = "__metadata__";

struct ElementType {
  std::string_view name;
  std::uint64_t bytes;
  std::optional<DType> ours{};
};
constexpr ElementType element_types[] = {{"BOOL", 1},
                                         {"U8", 1, DType::u8},
                                         {"I8", 1},
                                         {"F8_E5M2", 1},
                                         {"F8_E4M3", 1},
                                         {"F8_E8M0", 1},
                                         {"I16", 2},
                                         {"U16", 2, DType::u16},
                                         {"F16", 2, DType::f16},
                                         {"BF16", 2, DType::bf16},
                                         {"I32", 4, DType::i32},
                                         {"U32", 4},
                                         {"F32", 4, DType::f32},
                                         {"I64", 8, DType::i64},
                                         {"U64", 8, DType::u64},
                                         {"F64", 8, DType::f64}};

/// The header as events, so that a name that stands twice is seen, and nothing hostile is built in memory.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  std::vector<SafeTensor> tensors;
  SafeTensorsMetadata metadata;
  std::string problem;

  bool start_object(std::size_t) override {
    if (list_ != List::none || ++depth_ > 2) return wrong("an object where a value was expected");
    if (depth_ == 2 && !in_metadata_) tensors.push_back({name_, {}, {}, 0, 0});
    seen_.clear();
    return true;
  }
  bool key(std::string& text) override {
    if (depth_ == 1) {
      name_ = text;
      in_metadata_ = text == metadata_key;
      return names_.insert(text).second || wrong(fmt::format("the name {} twice", Json(text).dump()));
    }
    field_ = text;
    return seen_.insert(text).second || wrong(fmt::format("{} twice", text));
  }
  bool end_object() override {
    if (depth_-- == 1 || in_metadata_) return true;
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (!seen_.contains(field)) return wrong(fmt::format("no {}", field));
    return seen_.size() == 3 || wrong("more than dtype, shape and data_offsets");
  }
  bool start_array(std::size_t) override {
    const bool expected = depth_ == 2 && !in_metadata_ && list_ == List::none;
    if (expected && field_ == "shape") {
      list_ = List::shape;
    } else if (expected && field_ == "data_offsets") {
      list_ = List::offsets;
      offsets_ = 0;
    } else {
      return wrong("a list where a value was expected");
    }
    return true;
  }
  bool end_array() override {
    const bool whole = list_ != List::offsets || offsets_ == 2;
    list_ = List::none;
    return whole || wrong("data_offsets without two numbers");
  }
  bool number_unsigned(std::uint64_t value) override {
    if (list_ == List::shape) {
      tensors.back().shape.push_back(value);
      return true;
    }
    if (list_ == List::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? tensors.back().begin : tensors.back().end) = value;
      return true;
    }
    return wrong("a number where none was expected");
  }
  bool string(std::string& text) override {
    if (depth_ == 2 && in_metadata_) {
      metadata[field_] = text;
      return true;
    }
    if (depth_ != 2 || field_ != "dtype" || list_ != List::none) return wrong("a text where none was expected");
    tensors.back().type = text;
    return safetensors_element_bytes(text).has_value() || wrong(fmt::format("the unknown type {}", Json(text).dump()));
  }
  bool number_integer(std::int64_t) override { return wrong("a number below 0"); }
  bool number_float(double, const std::string&) override { return wrong("a number that is no integer"); }
  bool boolean(bool) override { return wrong("true or false where a number or a text was expected"); }
  bool null() override { return wrong("null where a number or a text was expected"); }
  bool binary(Json::binary_t&) override { return wrong("bytes"); }
  bool parse_error(std::size_t place, const std::string&, const nlohmann::detail::exception&) override {
    problem = fmt::format("its header is no JSON: the fault is at byte {}", place + sizeof(std::uint64_t));
    return false;
  }

 private:
  bool wrong(const std::string& what) {
    problem = fmt::format("its header has {}{}", what,
                          depth_ < 2 ? std::string() : fmt::format(", at {}", Json(name_.substr(0, 200)).dump()));
    return false;
  }

  enum class List : unsigned char { none, shape, offsets };
  List list_ = List::none;
  int depth_ = 0, offsets_ = 0;
  bool in_metadata_ = false;
  std::string name_, field_;
  std::set<std::string, std::less<>> names_, seen_;
};

/// Nothing where the product does not fit.
std::optional<std::uint64_t> bytes_of(const SafeTensor& tensor) {
  std::uint64_t bytes = *safetensors_element_bytes(tensor.type);
  for (const auto extent : tensor.shape) {
    if (extent != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / extent) return std::nullopt;
    bytes *= extent;
  }
  return bytes;
}

std::string folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

/// The file is one of the user's, no checkpoint.
void as_data_error(const auto& work) {
  try {
    work();
  } catch (const CheckpointError& e) {
    throw DataError(e.what());
  }
}

template <class T>
T at(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

}  // namespace

std::optional<std::uint64_t> safetensors_element_bytes(std::string_view type) {
  for (const ElementType& known : element_types)
    if (known.name == type) return known.bytes;
  return std::nullopt;
}

std::string_view safetensors_type(DType dtype) noexcept {
  for (const ElementType& known : element_types)
    if (known.ours == dtype) return known.name;
  return "";
}

SafeTensorsFile::SafeTensorsFile(const std::string& path) : path_(path), file_(path, std::ios::binary) {
  const auto failed = [&](const std::string& why) -> DataError {
    return DataError(fmt::format("{}: cannot be read as safetensors: {}", path, why));
  };
  std::error_code error;
  const std::uint64_t bytes = std::filesystem::file_size(path, error);
  if (error) throw failed(error.message());
  std::array<std::byte, sizeof(std::uint64_t)> length{};
  if (!file_.read(reinterpret_cast<char*>(length.data()), length.size()))
    throw failed(fmt::format("it has {} bytes, less than the length of a header", bytes));
  std::uint64_t header_bytes = 0;
  for (std::size_t i = length.size(); i-- > 0;) header_bytes = header_bytes << 8 | std::to_integer<unsigned>(length[i]);
  if (header_bytes > most_header_bytes)
    throw failed(fmt::format("a header of {} bytes is longer than the format allows ({}); is it another kind of file?",
                             header_bytes, most_header_bytes));
  data_ = length.size() + header_bytes;
  if (data_ > bytes) throw failed(fmt::format("its header says {} bytes, the file has {}: it was cut", data_, bytes));
  std::string header(header_bytes, '\0');
  if (!file_.read(header.data(), static_cast<std::streamsize>(header_bytes))) throw failed("a read failed");
  if (!header.starts_with('{')) throw failed("its header does not begin with {; is it another kind of file?");
  HeaderReader reader;
  if (!Json::sax_parse(header, &reader)) throw failed(reader.problem);
  tensors_ = std::move(reader.tensors);
  metadata_ = std::move(reader.metadata);
  // Empty tensors may lie where another begins.
  std::sort(tensors_.begin(), tensors_.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  std::uint64_t place = 0;
  for (const auto& tensor : tensors_) {
    const auto quoted = Json(tensor.name.substr(0, 200)).dump(-1, ' ', false, Json::error_handler_t::replace);
    if (tensor.begin != place || tensor.end < tensor.begin)
      throw failed(fmt::format("tensor {} lies at bytes {} to {} of the data; it would begin at {}", quoted,
                               tensor.begin, tensor.end, place));
    if (const auto expected = bytes_of(tensor); expected != tensor.end - tensor.begin)
      throw failed(fmt::format("tensor {} of type {} and shape {} cannot have {} bytes", quoted, tensor.type,
                               text_of(tensor.shape), tensor.end - tensor.begin));
    place = tensor.end;
  }
  if (place != bytes - data_)
    throw failed(fmt::format("its tensors have {} bytes, the file has {} for them: {}", place, bytes - data_,
                             place > bytes - data_ ? "it was cut" : "the others belong to no tensor"));
}

const SafeTensor* SafeTensorsFile::find(std::string_view name) const noexcept {
  const auto found = std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
  return found == tensors_.end() ? nullptr : &*found;
}

std::vector<std::byte> SafeTensorsFile::read(const SafeTensor& tensor) {
  std::vector<std::byte> out(tensor.end - tensor.begin);
  file_.clear();
  if (!file_.seekg(static_cast<std::streamoff>(data_ + tensor.begin)) ||
      !file_.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size())))
    throw DataError(fmt::format("{}: a read of tensor \"{}\" failed: did the file change?", path_, tensor.name));
  return out;
}

std::vector<float> SafeTensorsFile::read_floats(const SafeTensor& tensor) {
  const auto bytes = read(tensor);
  const auto size = *safetensors_element_bytes(tensor.type);
  std::vector<float> out(bytes.size() / size);
  const auto each = [&](auto value) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = value(bytes.data() + i * size);
  };
  if (tensor.type == "F32") {
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  } else if (tensor.type == "F64") {
    each([](const std::byte* p) { return static_cast<float>(at<double>(p)); });
  } else if (tensor.type == "F16") {
    each([](const std::byte* p) { return to_float(at<F16>(p)); });
  } else if (tensor.type == "BF16") {
    each([](const std::byte* p) { return to_float(at<Bf16>(p)); });
  } else {
    throw DataError(
        fmt::format("{}: tensor \"{}\" is of type {}; floating-point numbers were expected (F64, F32, F16 or BF16)",
                    path_, tensor.name, tensor.type));
  }
  return out;
}

SafeTensorsWriter::SafeTensorsWriter(std::string path, std::vector<SafeTensor> tensors,
                                     const SafeTensorsMetadata& metadata, FileSystem& files)
    : files_(files), path_(std::move(path)), temporary_(fmt::format("{}.tmp-{}", path_, ::getpid())) {
  Json header = Json::object();
  if (!metadata.empty()) header[metadata_key] = metadata;
  for (auto& tensor : tensors) {
    tensor.begin = missing_;
    tensor.end = missing_ += bytes_of(tensor).value();
    if (header.contains(tensor.name)) throw BugError("two tensors named " + tensor.name);
    header[tensor.name] = {
        {"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = header.dump();
  text.append((header_alignment - text.size() % header_alignment) % header_alignment, ' ');
  std::array<std::byte, sizeof(std::uint64_t)> length{};
  for (std::size_t i = 0; i < length.size(); ++i) length[i] = static_cast<std::byte>(text.size() >> (8 * i) & 0xff);
  as_data_error([&] {
    make_directories(files_, folder_of(path_));
    file_ = File(files_, temporary_, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    file_.write(length);
    file_.write(std::as_bytes(std::span(text)));
  });
}

SafeTensorsWriter::~SafeTensorsWriter() {
  if (file_) files_.remove_file(temporary_);
}

void SafeTensorsWriter::write(std::span<const std::byte> data) {
  if (data.size() > missing_) throw BugError("more bytes than the tensors have");
  as_data_error([&] { file_.write(data); });
  missing_ -= data.size();
}

void SafeTensorsWriter::commit() {
  if (missing_ != 0) throw BugError(fmt::format("{} bytes of the tensors did not come", missing_));
  as_data_error([&] {
    file_.sync();
    rename(files_, temporary_, path_);
    file_.close();
    sync_directory(files_, folder_of(path_));
  });
}

}  // namespace dtrain::io
