#include "io/hdf5/hdf5_writer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <unistd.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io::h5 {
namespace {

hid_t file_type(StoredType type) noexcept {
  switch (type) {
    case StoredType::u8:
      return H5T_STD_U8LE;
    case StoredType::i8:
      return H5T_STD_I8LE;
    case StoredType::u16:
      return H5T_STD_U16LE;
    case StoredType::i16:
      return H5T_STD_I16LE;
    case StoredType::i32:
      return H5T_STD_I32LE;
    case StoredType::i64:
      return H5T_STD_I64LE;
    case StoredType::f32:
      return H5T_IEEE_F32LE;
    case StoredType::f64:
      return H5T_IEEE_F64LE;
  }
  return H5I_INVALID_HID;
}

/// UTF-8 text of `size` bytes (H5T_VARIABLE: of any number).
Handle text_type(std::size_t size) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), size);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  if (size != H5T_VARIABLE) H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  return type;
}

bool sync(const char* path, int flags) {
  const int fd = ::open(path, flags | O_CLOEXEC);
  if (fd < 0) return false;
  const bool done = ::fsync(fd) == 0;
  return ::close(fd) == 0 && done;
}

/// Until the descriptor is closed, or its process ends. Not flock(), which HDF5 may use itself.
bool lock_whole(int descriptor) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(descriptor, F_OFD_SETLK, &whole) == 0;
}

/// What a process that was killed left of the same file. One that still writes holds a lock.
void remove_abandoned(const std::filesystem::path& folder, const std::string& begin) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder.empty() ? "." : folder, none)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(begin) || name.size() == begin.size() ||
        name.find_first_not_of("0123456789", begin.size()) != name.npos)
      continue;
    const int fd = ::open(entry.path().c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    if (lock_whole(fd)) ::unlink(entry.path().c_str());
    ::close(fd);
  }
}

}  // namespace

void Writer::failed(const std::string& what) const {
  throw DataError(fmt::format("{}: {}", path_, what));
}

Writer::Writer(const std::string& path) : path_(path), temporary_(fmt::format("{}.tmp-{}", path, ::getpid())) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) failed(fmt::format("the folder {} cannot be made: {}", folder.string(), error.message()));
  remove_abandoned(folder, std::filesystem::path(path).filename().string() + ".tmp-");
  // HDF5 reports failures of the system poorly: try the name ourselves.
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) failed(fmt::format("cannot be written: {}", std::strerror(errno)));
  lock_whole(descriptor_);
  const Lock lock;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), false, true);
  H5Pset_alignment(access.get(), 4096, 4096);  // data starts at a page
  file_ = Handle(H5Fcreate(temporary_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  if (!file_) {
    const std::string why = last_error();
    ::unlink(temporary_.c_str());
    ::close(descriptor_);
    failed(fmt::format("cannot be written: {}", why));
  }
}

Writer::~Writer() {
  datasets_.clear();
  file_ = {};
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  ::close(descriptor_);
}

std::size_t Writer::add(const std::string& name, StoredType type, std::span<const std::uint64_t> dims,
                        const StorageOptions& storage) {
  const Lock lock;
  Dataset dataset{{}, type, {dims.begin(), dims.end()}};
  std::vector<hsize_t> chunk(dims.begin(), dims.end());  // the whole set, to begin with
  const Handle space(H5Screate_simple(static_cast<int>(dims.size()), chunk.data(), nullptr), H5Sclose);
  const Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  if (storage.chunk_rows > 0 || storage.gzip > 0) {
    chunk[0] = chunk_rows(type, dims, storage);
    H5Pset_chunk(plist.get(), static_cast<int>(chunk.size()), chunk.data());
    if (storage.gzip > 0 && size_of(type) > 1) H5Pset_shuffle(plist.get());
    if (storage.gzip > 0) H5Pset_deflate(plist.get(), static_cast<unsigned>(storage.gzip));
  } else {
    H5Pset_alloc_time(plist.get(), H5D_ALLOC_TIME_EARLY);
  }
  H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(plist.get(), false);  // the same data gives the same bytes
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  dataset.handle =
      Handle(H5Dcreate2(file_.get(), name.c_str(), file_type(type), space.get(), links.get(), plist.get(), H5P_DEFAULT),
             H5Dclose);
  if (!dataset.handle) failed(fmt::format("{} cannot be made: {}", name, last_error()));
  datasets_.push_back(std::move(dataset));
  return datasets_.size() - 1;
}

std::uint64_t Writer::chunk_rows(StoredType type, std::span<const std::uint64_t> dims, const StorageOptions& storage) {
  std::uint64_t row_bytes = size_of(type);
  for (std::size_t i = 1; i < dims.size(); ++i) row_bytes *= dims[i];
  constexpr std::uint64_t usual = std::uint64_t{256} << 10;
  const std::uint64_t rows =
      storage.chunk_rows > 0 ? storage.chunk_rows : usual / std::max<std::uint64_t>(1, row_bytes);
  return std::clamp<std::uint64_t>(rows, 1, std::max<std::uint64_t>(1, dims[0]));
}

void Writer::add_names(const std::string& name, std::span<const std::string> names) {
  const Lock lock;
  std::size_t length = 1;
  for (const auto& n : names) length = std::max(length, n.size());
  std::vector<char> text(length * names.size(), '\0');
  for (std::size_t i = 0; i < names.size(); ++i) names[i].copy(text.data() + i * length, length);
  const Handle type = text_type(length);
  const hsize_t count = names.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(plist.get(), false);
  constexpr std::size_t few = std::size_t{64} << 10;  // bytes; above, what pads short names is worth compressing
  if (text.size() > few) {
    const hsize_t chunk = std::max<hsize_t>(1, few / length);
    H5Pset_chunk(plist.get(), 1, &chunk);
    H5Pset_deflate(plist.get(), 1);
  }
  const Handle set(
      H5Dcreate2(file_.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT), H5Dclose);
  if (!set || H5Dwrite(set.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, text.data()) < 0)
    failed(fmt::format("{} cannot be written: {}", name, last_error()));
}

void Writer::copy_attributes(const File& from, const DatasetInfo& of, std::size_t dataset) {
  const Lock lock;
  constexpr std::size_t most = 1 << 16;  // bytes of one that is worth keeping
  const Handle source = from.open(of);
  // Visited by name: what HDF5 tells of an object in one structure has changed with its versions.
  std::vector<std::string> names;
  const auto collect = [](hid_t, const char* name, const H5A_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  if (H5Aiterate2(source.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, collect, &names) < 0) return;
  for (const std::string& name : names) {
    if (name == "shard") continue;
    const Handle in(H5Aopen(source.get(), name.c_str(), H5P_DEFAULT), H5Aclose);
    if (!in) continue;
    const Handle type(H5Aget_type(in.get()), H5Tclose), space(H5Aget_space(in.get()), H5Sclose);
    const auto points = H5Sget_simple_extent_npoints(space.get());
    // Text of variable length and references lie elsewhere in the file.
    if (points <= 0 || H5Tdetect_class(type.get(), H5T_VLEN) != 0 || H5Tis_variable_str(type.get()) != 0 ||
        H5Tdetect_class(type.get(), H5T_REFERENCE) != 0 ||
        static_cast<std::size_t>(points) > most / H5Tget_size(type.get()))
      continue;
    std::vector<std::byte> bytes(static_cast<std::size_t>(points) * H5Tget_size(type.get()));
    if (H5Aread(in.get(), type.get(), bytes.data()) < 0) continue;
    put_attribute(datasets_[dataset].handle, name, type.get(), type.get(), space, bytes.data());
  }
}

void Writer::write(std::size_t index, std::uint64_t first, std::uint64_t rows, const void* bytes) {
  if (rows == 0) return;
  const Lock lock;
  const Dataset& dataset = datasets_[index];
  std::vector<hsize_t> start(dataset.dims.size(), 0), count(dataset.dims.begin(), dataset.dims.end());
  if (count.empty()) {
    if (H5Dwrite(dataset.handle.get(), native_type(dataset.type), H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) < 0)
      failed(fmt::format("cannot be written (is the disk full?): {}", last_error()));
    return;
  }
  start[0] = first;
  count[0] = rows;
  const Handle to(H5Dget_space(dataset.handle.get()), H5Sclose);
  const Handle from(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose);
  if (H5Sselect_hyperslab(to.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dwrite(dataset.handle.get(), native_type(dataset.type), from.get(), to.get(), H5P_DEFAULT, bytes) < 0) {
    failed(fmt::format("cannot be written (is the disk full?): {}", last_error()));
  }
}

void Writer::put_attribute(const Handle& at, const std::string& name, Id stored, Id given, const Handle& space,
                           const void* value) {
  const Handle attribute(H5Acreate2(at.get(), name.c_str(), stored, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attribute || H5Awrite(attribute.get(), given, value) < 0) failed("an attribute cannot be written");
}

void Writer::attribute(std::size_t dataset, const std::string& name, std::span<const double> values) {
  const Lock lock;
  const hsize_t n = values.size();
  const Handle space(n == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, nullptr), H5Sclose);
  put_attribute(datasets_[dataset].handle, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, space, values.data());
}

void Writer::attribute(std::size_t dataset, const std::string& name, const std::string& text) {
  const Lock lock;
  const Handle type = text_type(std::max<std::size_t>(1, text.size())), space(H5Screate(H5S_SCALAR), H5Sclose);
  put_attribute(datasets_[dataset].handle, name, type.get(), type.get(), space, text.data());
}

void Writer::file_attribute(const std::string& name, const std::string& text) {
  const Lock lock;
  // Of variable length: it may be larger than the headers that hold attributes, and h5py makes a str of it.
  const Handle type = text_type(H5T_VARIABLE), space(H5Screate(H5S_SCALAR), H5Sclose);
  const char* const pointer = text.c_str();
  put_attribute(file_, name, type.get(), type.get(), space, &pointer);
}

void Writer::file_attribute(const std::string& name, std::int64_t value) {
  const Lock lock;
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  put_attribute(file_, name, H5T_STD_I64LE, H5T_NATIVE_INT64, space, &value);
}

std::pair<std::string, std::vector<std::uint64_t>> Writer::hand_over() {
  std::vector<std::uint64_t> offsets;
  const Lock lock;
  std::uint64_t end = 0;
  for (const Dataset& d : datasets_) {
    const haddr_t at = H5Dget_offset(d.handle.get());
    if (at == HADDR_UNDEF) failed("a data set has no place in the file");
    offsets.push_back(at);
    end = std::max<std::uint64_t>(end, at + H5Dget_storage_size(d.handle.get()));
  }
  datasets_.clear();
  const bool flushed = H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) >= 0;
  file_ = {};
  if (!flushed) failed(fmt::format("cannot be written (is the disk full?): {}", last_error()));
  // A full disk is better met now. Where the file system cannot reserve, the writes will tell.
  const int fd = ::open(temporary_.c_str(), O_WRONLY | O_CLOEXEC);
  const int reserved = fd < 0 ? errno : ::posix_fallocate(fd, 0, static_cast<off_t>(end));
  if (fd >= 0) ::close(fd);
  if (reserved == ENOSPC || reserved == EDQUOT || reserved == EFBIG)
    failed(fmt::format("cannot reserve {} bytes: {}", end, std::strerror(reserved)));
  return {temporary_, std::move(offsets)};
}

void Writer::commit() {
  if (file_) {
    const Lock lock;
    datasets_.clear();
    if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0)
      failed(fmt::format("cannot be written (is the disk full?): {}", last_error()));
    file_ = {};
  }
  if (!sync(temporary_.c_str(), O_RDONLY))
    failed(fmt::format("cannot be written to the disk: {}", std::strerror(errno)));
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0)
    failed(fmt::format("cannot be renamed: {}", std::strerror(errno)));
  temporary_.clear();
  const auto folder = std::filesystem::path(path_).parent_path();
  sync(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY);  // best effort: the file itself is safe
}

}  // namespace dtrain::io::h5
