#include "io/hdf5/describe.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hdf5.h>

namespace dtrain::io::h5 {
namespace {

// Registered with the HDF Group.
constexpr H5Z_filter_t zstd_filter = 32015, lzf_filter = 32000;
constexpr std::pair<H5Z_filter_t, std::string_view> other_filters[] = {{H5Z_FILTER_SZIP, "szip"},
                                                                       {H5Z_FILTER_NBIT, "n-bit"},
                                                                       {H5Z_FILTER_SCALEOFFSET, "scale-offset"},
                                                                       {307, "bzip2"},
                                                                       {32001, "blosc"},
                                                                       {32004, "lz4"},
                                                                       {32008, "bitshuffle"},
                                                                       {32013, "zfp"},
                                                                       {32026, "blosc2"}};

/// IEEE half precision, for which older libraries have no name.
hid_t half_type(H5T_order_t order) {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 10, 5, 0, 10);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 15);
  H5Tset_order(type, order);
  return type;
}

struct TypeIds {
  StoredType type;
  hid_t little, big, native;
};

/// In the order of StoredType.
const std::array<TypeIds, 11>& type_ids() {
  static const hid_t half = half_type(H5T_ORDER_LE), big_half = half_type(H5T_ORDER_BE);
  static const std::array<TypeIds, 11> ids{{
      {StoredType::u8, H5T_STD_U8LE, H5T_STD_U8BE, H5T_NATIVE_UINT8},
      {StoredType::i8, H5T_STD_I8LE, H5T_STD_I8BE, H5T_NATIVE_INT8},
      {StoredType::u16, H5T_STD_U16LE, H5T_STD_U16BE, H5T_NATIVE_UINT16},
      {StoredType::i16, H5T_STD_I16LE, H5T_STD_I16BE, H5T_NATIVE_INT16},
      {StoredType::u32, H5T_STD_U32LE, H5T_STD_U32BE, H5T_NATIVE_UINT32},
      {StoredType::i32, H5T_STD_I32LE, H5T_STD_I32BE, H5T_NATIVE_INT32},
      {StoredType::u64, H5T_STD_U64LE, H5T_STD_U64BE, H5T_NATIVE_UINT64},
      {StoredType::i64, H5T_STD_I64LE, H5T_STD_I64BE, H5T_NATIVE_INT64},
      {StoredType::f16, half, big_half, half},
      {StoredType::f32, H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_NATIVE_FLOAT},
      {StoredType::f64, H5T_IEEE_F64LE, H5T_IEEE_F64BE, H5T_NATIVE_DOUBLE},
  }};
  return ids;
}

void describe_type(hid_t type, DatasetInfo& info) {
  if (H5Tget_class(type) == H5T_ENUM) {  // as the integers that it names; h5py's booleans are such
    const Handle base(H5Tget_super(type), H5Tclose);
    describe_type(base.get(), info);
    info.type_text = fmt::format("{} of {}", H5Tget_nmembers(type) == 2 ? "boolean" : "enum", info.type_text);
    return;
  }
  for (const TypeIds& k : type_ids()) {
    const bool little = H5Tequal(type, k.little) > 0;
    if (!little && H5Tequal(type, k.big) <= 0) continue;
    info.type = k.type;
    info.swapped = !little;
    info.type_text = std::string(name_of(k.type)) + (info.swapped ? " (big-endian)" : "");
    return;
  }
  const auto bits = H5Tget_size(type) * 8;
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      info.type_text = fmt::format("{}int{}", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
      break;
    case H5T_FLOAT:
      info.type_text = fmt::format("float{}{}", bits, bits <= 16 ? " of another kind than IEEE's" : "");
      break;
    case H5T_STRING:
      info.type_text = "string";
      break;
    case H5T_COMPOUND:
      info.type_text = "compound";
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
    } else if (id == lzf_filter) {
      filter = {Filter::Kind::lzf, 1, "lzf"};
    } else {
      const auto* const known = std::find_if(std::begin(other_filters), std::end(other_filters),
                                             [id](const auto& other) { return other.first == id; });
      filter.text = known == std::end(other_filters) ? fmt::format("filter {}", id) : std::string(known->second);
      filter.plugin = id >= H5Z_FILTER_RESERVED;
    }
    info.filters.push_back(std::move(filter));
  }
}

/// Everything that makes a data set unsafe or impossible to read, decided before any of its data is touched.
std::string why_refused(hid_t dataset, hid_t plist, hid_t space, const DatasetInfo& info, const std::string& file,
                        std::uint64_t file_bytes) {
  if (!info.type) {
    std::vector<std::string_view> known;
    for (const TypeIds& k : type_ids()) known.push_back(name_of(k.type));
    return fmt::format("is {}, which is not supported; store it as one of {}", info.type_text, fmt::join(known, ", "));
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
      return fmt::format("is compressed by {}, which dtrain does not read; {}", f.text, rewrite_advice(file, f.plugin));
    // The library checks the sums, and does not know these.
    const bool own = f.kind == Filter::Kind::lzf || f.kind == Filter::Kind::zstd;
    if (own && std::any_of(info.filters.begin(), info.filters.end(),
                           [](const Filter& other) { return other.kind == Filter::Kind::fletcher32; }))
      return fmt::format("has {} and fletcher32, which dtrain does not read together; {}", f.text,
                         rewrite_advice(file, f.kind == Filter::Kind::zstd));
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

}  // namespace

DatasetInfo describe(Id dataset, std::string path, const std::string& file, std::uint64_t file_bytes) {
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
  info.refused = why_refused(dataset, plist.get(), space.get(), info, file, file_bytes);
  return info;
}

Id native_type(StoredType type) noexcept {
  return type_ids()[static_cast<std::size_t>(type)].native;
}
Id file_type(StoredType type) noexcept {
  return type_ids()[static_cast<std::size_t>(type)].little;
}

std::string rewrite_advice(const std::string& file, bool plugins) {
  return fmt::format(
      "write it again: python3 -c \"import {}h5py; a = h5py.File('{}'); b = h5py.File('new.h5', 'w'); a.visititems("
      "lambda k, v: b.create_dataset(k, data=v).attrs.update(v.attrs) if hasattr(v, 'shape') else None)\"",
      plugins ? "hdf5plugin, " : "", file);
}

}  // namespace dtrain::io::h5
