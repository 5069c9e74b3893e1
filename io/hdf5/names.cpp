#include "io/hdf5/names.hpp"

#include <cstring>
#include <string_view>

#include <fmt/format.h>
#include <hdf5.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io::h5 {
namespace {

/// Without what pads it.
std::string text_in(const char* at, std::size_t bytes, bool spaces) {
  std::string_view text(at, ::strnlen(at, bytes));
  while (spaces && text.ends_with(' ')) text.remove_suffix(1);
  return std::string(text);
}

/// `read(type, memory)` fills memory with so many texts of the type. False where they cannot be read.
template <class Read>
bool read_texts(hid_t stored, hid_t space, hsize_t count, std::size_t most, std::vector<std::string>& to, Read read) {
  const Handle type(H5Tcopy(stored), H5Tclose);
  if (H5Tis_variable_str(stored) > 0) {
    std::vector<char*> texts(count, nullptr);
    if (!read(type.get(), static_cast<void*>(texts.data()))) return false;
    for (const char* text : texts) to.emplace_back(text == nullptr ? "" : text);
    H5Dvlen_reclaim(type.get(), space, H5P_DEFAULT, static_cast<void*>(texts.data()));
    return true;
  }
  const std::size_t size = H5Tget_size(stored);
  if (size == 0 || count > most / size) return false;
  std::vector<char> bytes(count * size);
  if (!read(type.get(), static_cast<void*>(bytes.data()))) return false;
  const bool spaces = H5Tget_strpad(stored) == H5T_STR_SPACEPAD;
  for (hsize_t i = 0; i < count; ++i) to.push_back(text_in(bytes.data() + i * size, size, spaces));
  return true;
}

}  // namespace

std::vector<std::string> read_names(const File& file, const std::string& path, std::uint64_t most,
                                    std::size_t most_bytes) {
  const Lock lock;
  const Handle set = file.find(path);
  if (!set) return {};
  const Handle type(H5Dget_type(set.get()), H5Tclose), space(H5Dget_space(set.get()), H5Sclose),
      plist(H5Dget_create_plist(set.get()), H5Pclose);
  if (!type || !space || !plist || H5Tget_class(type.get()) != H5T_STRING ||
      H5Sget_simple_extent_ndims(space.get()) != 1)
    return {};
  const auto count = static_cast<hsize_t>(H5Sget_simple_extent_npoints(space.get()));
  const auto refused = [&](const std::string& why) {
    throw DataError(fmt::format("{}: the names in {} cannot be read: {}", file.path(), path, why));
  };
  if (H5Pget_external_count(plist.get()) != 0 || H5Pget_layout(plist.get()) == H5D_VIRTUAL)
    refused("they are in another file, which dtrain does not follow");
  if (count > most) refused(fmt::format("there are more than {}", most));
  std::vector<std::string> names;
  if (!read_texts(type.get(), space.get(), count, most_bytes, names, [&](hid_t memory, void* to) {
        return H5Dread(set.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) >= 0;
      }))
    refused(last_error());
  return names;
}

std::optional<double> read_number_attribute(const File& file, const std::string& dataset, const std::string& name) {
  const Lock lock;
  const Handle set = file.find(dataset);
  if (!set || H5Aexists(set.get(), name.c_str()) <= 0) return std::nullopt;
  const Handle attribute(H5Aopen(set.get(), name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!attribute) return std::nullopt;
  const Handle type(H5Aget_type(attribute.get()), H5Tclose), space(H5Aget_space(attribute.get()), H5Sclose);
  const H5T_class_t kind = H5Tget_class(type.get());
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) || H5Sget_simple_extent_npoints(space.get()) != 1) return std::nullopt;
  double value = 0;
  if (H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) < 0) return std::nullopt;
  return value;
}

std::string read_text_attribute(const File& file, const std::string& dataset, const std::string& name) {
  const Lock lock;
  const Handle set = file.find(dataset);
  if (!set || H5Aexists(set.get(), name.c_str()) <= 0) return {};
  const Handle attribute(H5Aopen(set.get(), name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!attribute) return {};
  const Handle type(H5Aget_type(attribute.get()), H5Tclose), space(H5Aget_space(attribute.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1) return {};
  std::vector<std::string> text;
  read_texts(type.get(), space.get(), 1, max_bytes_of_names, text,
             [&](hid_t memory, void* to) { return H5Aread(attribute.get(), memory, to) >= 0; });
  return text.empty() ? std::string() : text[0];
}

}  // namespace dtrain::io::h5
