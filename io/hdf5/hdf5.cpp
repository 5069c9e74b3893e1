#include "io/hdf5/hdf5.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string_view>
#include <type_traits>

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/config/document.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io::h5 {

static_assert(std::is_same_v<Id, hid_t> && std::is_same_v<Handle::Close, herr_t (*)(hid_t)>);

namespace {

constexpr H5Z_filter_t zstd_filter = 32015;  // registered with the HDF Group

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;  // the library's own state is global, so is its lock
  return mutex;
}

/// HDF5 files carry their signature at 0, 512, 1024, 2048, ... (a user block may come before).
bool has_signature(int fd, std::uint64_t bytes) {
  static constexpr std::array<unsigned char, 8> signature{0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
  std::array<unsigned char, 8> found{};
  for (std::uint64_t at = 0; at + found.size() <= bytes; at = at == 0 ? 512 : at * 2) {
    if (::pread(fd, found.data(), found.size(), static_cast<off_t>(at)) == 8 && found == signature) return true;
  }
  return false;
}

void describe_type(hid_t type, DatasetInfo& info) {
  struct Known {
    hid_t little, big;
    StoredType type;
  };
  const Known known[] = {
      {H5T_STD_U8LE, H5T_STD_U8BE, StoredType::u8},      {H5T_STD_I8LE, H5T_STD_I8BE, StoredType::i8},
      {H5T_STD_U16LE, H5T_STD_U16BE, StoredType::u16},   {H5T_STD_I16LE, H5T_STD_I16BE, StoredType::i16},
      {H5T_STD_I32LE, H5T_STD_I32BE, StoredType::i32},   {H5T_STD_I64LE, H5T_STD_I64BE, StoredType::i64},
      {H5T_IEEE_F32LE, H5T_IEEE_F32BE, StoredType::f32}, {H5T_IEEE_F64LE, H5T_IEEE_F64BE, StoredType::f64},
  };
  for (const Known& k : known) {
    if (H5Tequal(type, k.little) > 0 || H5Tequal(type, k.big) > 0) {
      info.type = k.type;
      info.swapped = size_of(k.type) > 1 && H5Tget_order(type) == H5T_ORDER_BE;
      info.type_text = std::string(name_of(k.type)) + (info.swapped ? " (big-endian)" : "");
      return;
    }
  }
  const auto bits = H5Tget_size(type) * 8;
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      info.type_text = fmt::format("{}int{}", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
      break;
    case H5T_FLOAT:
      info.type_text = fmt::format("float{}", bits);
      break;
    case H5T_STRING:
      info.type_text = "string";
      break;
    case H5T_COMPOUND:
      info.type_text = "compound";
      break;
    case H5T_ENUM:
      info.type_text = "enum (or boolean)";
      break;
    case H5T_REFERENCE:
      info.type_text = "reference";
      break;
    case H5T_VLEN:
      info.type_text = "variable-length";
      break;
    case H5T_ARRAY:
      info.type_text = "array";
      break;
    default:
      info.type_text = "opaque";
      break;
  }
}

void describe_filters(hid_t plist, DatasetInfo& info) {
  const int count = H5Pget_nfilters(plist);
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0, config = 0;
    std::array<unsigned, 8> values{};
    std::size_t n = values.size();
    const H5Z_filter_t id =
        H5Pget_filter2(plist, static_cast<unsigned>(i), &flags, &n, values.data(), 0, nullptr, &config);
    Filter filter;
    if (id == H5Z_FILTER_DEFLATE) {
      filter = {Filter::Kind::deflate, 1, "gzip"};
    } else if (id == H5Z_FILTER_SHUFFLE) {
      filter = {Filter::Kind::shuffle, n > 0 ? values[0] : 0, "shuffle"};
    } else if (id == H5Z_FILTER_FLETCHER32) {
      filter = {Filter::Kind::fletcher32, 1, "fletcher32"};
    } else if (id == zstd_filter) {
      filter = {Filter::Kind::zstd, 1, "zstd"};
    } else {
      filter.text = id == H5Z_FILTER_SZIP ? "szip" : fmt::format("filter {}", static_cast<int>(id));
    }
    info.filters.push_back(std::move(filter));
  }
}

/// Everything that makes a data set unsafe or impossible to read, decided before any of its data is touched.
std::string why_refused(hid_t dataset, hid_t plist, hid_t space, const DatasetInfo& info, std::uint64_t file_bytes) {
  if (!info.type) {
    return fmt::format(
        "is {}, which is not supported; store it as uint8, int8, uint16, int16, int32, int64, float32 or "
        "float64",
        info.type_text);
  }
  if (info.dims.empty()) return "is a single value, not an array of samples";
  if (static_cast<int>(info.dims.size()) > max_rank) {
    return fmt::format("has rank {}; at most {} is supported", info.dims.size(), max_rank);
  }
  const std::uint64_t item = size_of(*info.type);
  std::uint64_t bytes = item;
  for (const auto d : info.dims) {
    if (d == 0) return "";  // nothing to read; the caller says that it is empty
    if (d > max_extent || bytes > max_bytes / d) return "claims to be larger than any data set dtrain accepts";
    bytes *= d;
  }
  if (info.storage == Storage::other)
    return "is a virtual data set (its data is in other files), which dtrain does not follow";
  if (H5Pget_external_count(plist) != 0)
    return "keeps its data in another file (external storage), which dtrain does not follow";
  const std::uint64_t stored = H5Dget_storage_size(dataset);
  if (info.storage == Storage::compact) return stored == bytes ? "" : "is damaged: its compact data has the wrong size";
  if (info.storage == Storage::contiguous) {
    if (!info.filters.empty()) return "is damaged: contiguous data cannot have filters";
    if (info.offset == 0 || stored == 0) return "was declared but never written";
    if (stored != bytes) return fmt::format("is damaged: {} bytes are stored, {} are needed", stored, bytes);
    if (info.offset > file_bytes || bytes > file_bytes - info.offset)
      return "is truncated: its data ends beyond the end of the file";
    return "";
  }
  if (info.chunk.size() != info.dims.size()) return "is damaged: chunks and data differ in rank";
  std::uint64_t chunk_bytes = item, chunks = 1;
  for (std::size_t i = 0; i < info.chunk.size(); ++i) {
    const std::uint64_t c = info.chunk[i];
    if (c == 0) return "is damaged: a chunk is empty";
    if (c > max_chunk_bytes / chunk_bytes) {
      return fmt::format("has chunks of more than {} MiB; repack it with smaller ones", max_chunk_bytes >> 20);
    }
    chunk_bytes *= c;
    const std::uint64_t along = (info.dims[i] + c - 1) / c;
    if (along > max_chunks / chunks)
      return fmt::format("has more than {} chunks; repack it with larger ones", max_chunks);
    chunks *= along;
  }
  // A band, all chunks that hold a row, is what one read decompresses.
  std::uint64_t band = chunk_bytes;
  for (std::size_t i = 1; i < info.chunk.size(); ++i) band *= (info.dims[i] + info.chunk[i] - 1) / info.chunk[i];
  if (band > 4 * max_chunk_bytes)
    return "has chunks that make reading one row too dear; repack it with chunks of fewer rows";
  for (const Filter& f : info.filters) {
    if (f.kind == Filter::Kind::other)
      return fmt::format("uses {}, which is not supported; repack it with gzip or none", f.text);
    if (f.kind == Filter::Kind::shuffle && f.element != item)
      return "is damaged: its shuffle filter has another element size";
  }
  if (info.filters.size() > 4) return "has too many filters";
  hsize_t written = 0;
  if (H5Dget_num_chunks(dataset, space, &written) < 0) return "is damaged: its chunk index cannot be read";
  if (written != chunks) return fmt::format("is incomplete: {} of {} chunks were written", written, chunks);
  if (stored > file_bytes) return "is damaged: its chunks are larger than the file";
  if (info.filters.empty()) {
    if (stored / chunks != chunk_bytes) return "is damaged: its chunks have the wrong size";
  } else if (bytes > max_chunk_bytes && bytes / max_expansion > stored) {
    return fmt::format("would grow from {} to {} bytes when decompressed, which looks like an attack", stored, bytes);
  }
  return "";
}

DatasetInfo describe(hid_t dataset, std::string path, std::uint64_t file_bytes) {
  DatasetInfo info;
  info.path = std::move(path);
  const Handle type(H5Dget_type(dataset), H5Tclose);
  const Handle space(H5Dget_space(dataset), H5Sclose);
  const Handle plist(H5Dget_create_plist(dataset), H5Pclose);
  if (!type || !space || !plist) {
    info.type_text = "unreadable";
    info.refused = "is damaged: its description cannot be read";
    return info;
  }
  describe_type(type.get(), info);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank > 0 && rank <= H5S_MAX_RANK) {
    std::array<hsize_t, H5S_MAX_RANK> dims{};
    H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr);
    info.dims.assign(dims.begin(), dims.begin() + rank);
  }
  switch (H5Pget_layout(plist.get())) {
    case H5D_CONTIGUOUS:
      info.storage = Storage::contiguous;
      break;
    case H5D_COMPACT:
      info.storage = Storage::compact;
      break;
    case H5D_CHUNKED: {
      info.storage = Storage::chunked;
      std::array<hsize_t, H5S_MAX_RANK> chunk{};
      const int n = H5Pget_chunk(plist.get(), H5S_MAX_RANK, chunk.data());
      if (n > 0) info.chunk.assign(chunk.begin(), chunk.begin() + n);
      break;
    }
    default:
      info.storage = Storage::other;
      break;
  }
  describe_filters(plist.get(), info);
  if (info.storage == Storage::contiguous && H5Pget_external_count(plist.get()) == 0) {
    const haddr_t offset = H5Dget_offset(dataset);
    info.offset = offset == HADDR_UNDEF ? 0 : offset;
  }
  info.refused = why_refused(dataset, plist.get(), space.get(), info, file_bytes);
  return info;
}

std::string_view link_kind(H5L_type_t type) {
  if (type == H5L_TYPE_SOFT) return "a soft link";
  if (type == H5L_TYPE_EXTERNAL) return "an external link";
  return "a user-defined link";
}

/// Opens one component, if it is a hard link; `why` says what it is otherwise.
Handle open_component(hid_t group, const std::string& name, std::string& why) {
  H5L_info_t link{};
  if (H5Lget_info(group, name.c_str(), &link, H5P_DEFAULT) < 0) {
    why = "does not exist";
    return {};
  }
  if (link.type != H5L_TYPE_HARD) {
    why = fmt::format("is {}, which dtrain does not follow", link_kind(link.type));
    return {};
  }
  Handle object(H5Oopen(group, name.c_str(), H5P_DEFAULT), H5Oclose);
  if (!object) why = "cannot be opened: the file is damaged";
  return object;
}

}  // namespace

Lock::Lock() : lock_(library_mutex()) {
  // At exit the library would close once more, and fall over, what a full disk kept it from closing. Files are closed
  // here.
  static const bool without_exit = H5dont_atexit() >= 0;
  (void)without_exit;
  H5PLset_loading_state(0);                     // a file must not choose code to load
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // our errors carry what is worth saying
}

Handle::~Handle() {
  if (id_ < 0 || close_ == nullptr) return;
  const Lock lock;
  close_(id_);
}

std::string last_error() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
        if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &text);
  return text;
}

std::uint64_t DatasetInfo::row_bytes() const noexcept {
  std::uint64_t bytes = type ? size_of(*type) : 0;
  for (std::size_t i = 1; i < dims.size(); ++i) bytes *= dims[i];
  return bytes;
}

std::string DatasetInfo::text() const {
  return fmt::format("{} {} [{}]", path, type_text, fmt::join(dims, ", "));
}

std::string DatasetInfo::storage_text() const {
  std::string text;
  switch (storage) {
    case Storage::contiguous:
      text = "contiguous";
      break;
    case Storage::compact:
      text = "compact";
      break;
    case Storage::chunked:
      text = fmt::format("chunked [{}]", fmt::join(chunk, ", "));
      break;
    case Storage::other:
      text = "virtual";
      break;
  }
  for (const Filter& f : filters) text += ", " + f.text;
  return text;
}

std::string File::Listing::text() const {
  constexpr std::size_t shown = 12;
  std::string text;
  for (std::size_t i = 0; i < std::min(shown, datasets.size()); ++i) {
    text += (i ? ", " : "") + datasets[i].text();
  }
  if (datasets.size() > shown) text += fmt::format(" and {} more", datasets.size() - shown);
  if (text.empty()) text = "no data sets";
  for (std::size_t i = 0; i < std::min<std::size_t>(4, notes.size()); ++i) text += "; " + notes[i];
  return text;
}

File::File(const std::string& path) : path_(path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    throw DataError(errno == ENOENT || errno == ENOTDIR
                        ? fmt::format("{}: no such file; data paths start at the working directory", path)
                        : fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  }
  if (S_ISDIR(status.st_mode))
    throw DataError(fmt::format("{}: is a directory; name an HDF5 file, or a glob like {}/*.h5", path, path));
  if (!S_ISREG(status.st_mode)) throw DataError(fmt::format("{}: is not a regular file", path));
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw DataError(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  bytes_ = static_cast<std::uint64_t>(status.st_size);
  const bool known = has_signature(fd, bytes_);
  ::close(fd);
  if (bytes_ == 0) throw DataError(fmt::format("{}: is empty", path));
  if (!known) throw DataError(fmt::format("{}: is not an HDF5 file; `dtrain data import` makes one", path));

  const Lock lock;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // Reading needs no lock, and locks fail on many network file systems.
  H5Pset_file_locking(access.get(), false, true);
  H5Pset_fclose_degree(access.get(), H5F_CLOSE_STRONG);
  file_ = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file_) {
    const std::string why = last_error();
    if (why.find("truncated") != std::string::npos) {
      throw DataError(
          fmt::format("{}: is truncated: {} bytes are there; copy or make it again ({})", path, bytes_, why));
    }
    throw DataError(fmt::format("{}: is damaged or truncated; copy or make it again ({})", path, why));
  }
}

File::Listing File::list() const {
  const Lock lock;
  Listing listing;
  std::size_t seen = 0;
  const std::function<void(hid_t, const std::string&, int)> walk = [&](hid_t group, const std::string& prefix,
                                                                       int depth) {
    H5G_info_t group_info{};
    if (H5Gget_info(group, &group_info) < 0) {
      listing.notes.push_back(fmt::format("{} cannot be read: the file is damaged", prefix.empty() ? "/" : prefix));
      return;
    }
    for (hsize_t i = 0; i < group_info.nlinks; ++i) {
      if (++seen > max_objects) {
        if (seen == max_objects + 1)
          listing.notes.push_back(fmt::format("only the first {} objects were looked at", max_objects));
        return;
      }
      const auto length = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, nullptr, 0, H5P_DEFAULT);
      if (length <= 0 || length > 1024) continue;
      std::string name(static_cast<std::size_t>(length), '\0');
      H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(), name.size() + 1, H5P_DEFAULT);
      const std::string full = prefix + "/" + name;
      std::string why;
      const Handle object = open_component(group, name, why);
      if (!object) {
        listing.notes.push_back(fmt::format("{} {}", full, why));
        continue;
      }
      const H5I_type_t kind = H5Iget_type(object.get());
      if (kind == H5I_DATASET) listing.datasets.push_back(describe(object.get(), full, bytes_));
      if (kind == H5I_GROUP && depth < max_depth) walk(object.get(), full, depth + 1);
    }
  };
  const Handle root(H5Gopen2(file_.get(), "/", H5P_DEFAULT), H5Gclose);
  if (!root) throw DataError(fmt::format("{}: is damaged: its root group cannot be read", path_));
  walk(root.get(), "", 0);
  return listing;
}

namespace {

/// Follows a path by hard links only.
Handle open_path(hid_t file, const std::string& path, std::string& why) {
  Handle at(H5Gopen2(file, "/", H5P_DEFAULT), H5Gclose);
  std::size_t begin = 0;
  int depth = 0;
  while (at && begin < path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty() || name == ".") continue;
    if (++depth > max_depth || H5Iget_type(at.get()) != H5I_GROUP) {
      why = "does not exist";
      return {};
    }
    at = open_component(at.get(), name, why);
  }
  if (at && H5Iget_type(at.get()) != H5I_DATASET) {
    why = "is a group, not a data set";
    return {};
  }
  return at;
}

}  // namespace

DatasetInfo File::info(const std::string& dataset) const {
  const Lock lock;
  std::string why;
  const Handle found = open_path(file_.get(), dataset, why);
  if (!found) {
    const Listing held = list();
    std::vector<std::string> names;
    for (const DatasetInfo& d : held.datasets) names.push_back(d.path);
    const std::string near = nearest_name(dataset.starts_with('/') ? dataset : "/" + dataset, names);
    throw DataError(fmt::format("{}: {} {}; the file holds {}{}", path_, dataset, why, held.text(),
                                near.empty() ? "" : fmt::format("; did you mean {}?", near)));
  }
  return describe(found.get(), dataset.starts_with('/') ? dataset : "/" + dataset, bytes_);
}

Handle File::open(const DatasetInfo& info) const {
  if (!info.refused.empty()) throw DataError(fmt::format("{}: {} {}", path_, info.path, info.refused));
  const Lock lock;
  std::string why;
  Handle found = open_path(file_.get(), info.path, why);
  if (!found) throw DataError(fmt::format("{}: {} {}", path_, info.path, why));
  return found;
}

Handle File::find(const std::string& path) const {
  const Lock lock;
  std::string why;
  return open_path(file_.get(), path, why);
}

hid_t native_type(StoredType type) noexcept {
  switch (type) {
    case StoredType::u8:
      return H5T_NATIVE_UINT8;
    case StoredType::i8:
      return H5T_NATIVE_INT8;
    case StoredType::u16:
      return H5T_NATIVE_UINT16;
    case StoredType::i16:
      return H5T_NATIVE_INT16;
    case StoredType::i32:
      return H5T_NATIVE_INT32;
    case StoredType::i64:
      return H5T_NATIVE_INT64;
    case StoredType::f32:
      return H5T_NATIVE_FLOAT;
    case StoredType::f64:
      return H5T_NATIVE_DOUBLE;
  }
  return H5I_INVALID_HID;
}

}  // namespace dtrain::io::h5
