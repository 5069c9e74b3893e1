#include "io/hdf5/column.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <exception>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/hdf5/describe.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

static_assert(std::endian::native == std::endian::little,
              "stored bytes are swapped on the assumption of little-endian");

constexpr std::size_t read_at_once = std::size_t{8} << 20;
constexpr std::uint64_t cache_bytes = std::uint64_t{1} << 30;  // of decompressed bands

template <class T>
void swap_each(std::byte* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; i += sizeof(T)) {
    std::array<std::byte, sizeof(T)> item{};
    std::memcpy(item.data(), bytes + i, sizeof(T));
    std::reverse(item.begin(), item.end());
    std::memcpy(bytes + i, item.data(), sizeof(T));
  }
}

bool needs_library(const h5::DatasetInfo& info) {
  if (info.storage == h5::Storage::compact) return true;
  // The library checks Fletcher32 sums; that is what they are for.
  return std::any_of(info.filters.begin(), info.filters.end(),
                     [](const h5::Filter& f) { return f.kind == h5::Filter::Kind::fletcher32; });
}

}  // namespace

Column::Column(std::string path, const h5::DatasetInfo& info, std::shared_ptr<OpenFiles> files)
    : path_(std::move(path)),
      files_(files != nullptr ? std::move(files) : std::make_shared<OpenFiles>(1)),
      place_(files_->add()),
      info_(info),
      rows_(info.rows()),
      row_bytes_(info.row_bytes()) {
  if (!info.refused.empty()) throw DataError(fmt::format("{}: {} {}", path_, info.path, info.refused));
  if (info.storage == h5::Storage::contiguous) return;
  mode_ = needs_library(info) ? Mode::library : Mode::chunks;
  band_rows_ = info.storage == h5::Storage::chunked ? std::min(info.chunk[0], rows_) : rows_;
  const std::uint64_t bands = (rows_ + band_rows_ - 1) / band_rows_;
  // Huge bands: slower rather than out of memory.
  const std::uint64_t affordable =
      std::max<std::uint64_t>(4, cache_bytes / std::max<std::uint64_t>(1, band_rows_ * row_bytes_));
  cache_.resize(std::min({std::uint64_t{cached_bands}, bands, affordable}));
}

Column::~Column() {
  files_->close(place_);
}

std::shared_ptr<const OpenDataset> Column::open() const {
  return files_->get(place_, [this] { return open_now(); });
}

std::shared_ptr<const OpenDataset> Column::open_now() const {
  auto opened = std::make_shared<OpenDataset>();
  struct stat status {};
  if (mode_ == Mode::direct) {
    opened->fd = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (opened->fd < 0 || ::fstat(opened->fd, &status) != 0)
      throw DataError(fmt::format("{}: cannot be read: {}", path_, std::strerror(errno)));
  } else {
    opened->file = std::make_unique<const h5::File>(path_);
    opened->dataset = opened->file->open(info_);
    if (::stat(path_.c_str(), &status) != 0)
      throw DataError(fmt::format("{}: cannot be read: {}", path_, std::strerror(errno)));
  }
  // What is known of the file, where its rows lie, say, holds for this very file.
  const Identity found{status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec,
                       status.st_mtim.tv_nsec};
  if (!identity_) identity_ = found;
  if (*identity_ != found) throw DataError(fmt::format("{}: was replaced or changed while it was in use", path_));
  return opened;
}

std::uint64_t Column::rows_of(std::uint64_t band) const noexcept {
  return std::min(band_rows_, rows_ - band * band_rows_);
}

void Column::damaged(std::uint64_t row, const std::string& why) const {
  throw DataError(fmt::format("{}: {}, row {}: {}", path_, info_.path, row, why));
}

void Column::swap(std::byte* bytes, std::size_t count) const {
  switch (size_of(*info_.type)) {
    case 2:
      swap_each<std::uint16_t>(bytes, count);
      break;
    case 4:
      swap_each<std::uint32_t>(bytes, count);
      break;
    case 8:
      swap_each<std::uint64_t>(bytes, count);
      break;
    default:
      break;
  }
}

void Column::read_direct(std::uint64_t first, std::uint64_t rows, std::byte* out) const {
  const auto opened = open();
  const std::size_t bytes = static_cast<std::size_t>(rows) * row_bytes_;
  std::size_t done = 0;
  while (done < bytes) {
    const auto at = static_cast<off_t>(info_.offset + first * row_bytes_ + done);
    const ssize_t got = ::pread(opened->fd, out + done, bytes - done, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) damaged(first + done / row_bytes_, fmt::format("cannot be read: {}", std::strerror(errno)));
    if (got == 0) damaged(first + done / row_bytes_, "the file was cut short while it was in use");
    done += static_cast<std::size_t>(got);
  }
  if (info_.swapped) swap(out, bytes);
}

std::unique_ptr<ChunkDecoder> Column::take_decoder() const {
  const std::lock_guard lock(mutex_);
  if (decoders_.empty()) return std::make_unique<ChunkDecoder>();
  auto decoder = std::move(decoders_.back());
  decoders_.pop_back();
  return decoder;
}

void Column::give_decoder(std::unique_ptr<ChunkDecoder> decoder) const {
  const std::lock_guard lock(mutex_);
  decoders_.push_back(std::move(decoder));
}

void Column::read_band_chunks(std::uint64_t band, std::byte* out) const {
  const auto opened = open();
  auto decoder = take_decoder();
  const std::size_t rank = info_.dims.size();
  const std::size_t item = size_of(*info_.type);
  const std::size_t rows = static_cast<std::size_t>(rows_of(band));
  std::size_t chunk_bytes = item;
  for (const auto c : info_.chunk) chunk_bytes *= c;
  bool whole_rows = info_.chunk[0] == rows;
  for (std::size_t i = 1; i < rank; ++i) whole_rows = whole_rows && info_.chunk[i] == info_.dims[i];

  std::array<hsize_t, h5::max_rank> at{};
  at[0] = band * info_.chunk[0];
  for (;;) {
    std::uint32_t skipped = 0;
    hsize_t stored = 0;
    bool read = false;
    {
      const h5::Lock lock;
      if (H5Dget_chunk_storage_size(opened->dataset.get(), at.data(), &stored) < 0 || stored == 0) {
        damaged(at[0], "its chunk is missing");
      }
      if (stored > chunk_bytes + chunk_bytes / 8 + 4096) damaged(at[0], "its chunk is larger than its data");
      read = H5Dread_chunk(opened->dataset.get(), H5P_DEFAULT, at.data(), &skipped, decoder->raw(stored)) >= 0;
    }
    if (!read) damaged(at[0], "its chunk cannot be read: the file is truncated or damaged");
    std::byte* to = whole_rows ? out : decoder->chunk(chunk_bytes);
    if (!decoder->decode(stored, info_.filters, skipped, chunk_bytes, to)) {
      damaged(at[0], "its chunk does not decompress: the file is damaged");
    }
    if (!whole_rows) {
      // Runs along the innermost dimension, odometer over the others; chunks at the edges stick out.
      std::array<std::size_t, h5::max_rank> extent{}, from_stride{}, to_stride{}, i{};
      std::size_t from_bytes = item, to_bytes = item;
      for (std::size_t d = rank; d-- > 0;) {
        const std::size_t size = d == 0 ? rows : info_.dims[d];
        extent[d] = d == 0 ? rows : std::min<std::size_t>(info_.chunk[d], size - at[d]);
        from_stride[d] = from_bytes;
        to_stride[d] = to_bytes;
        from_bytes *= info_.chunk[d];
        to_bytes *= size;
      }
      const std::size_t run = extent[rank - 1] * item;
      for (;;) {
        std::size_t from = 0, target = 0;
        for (std::size_t d = 0; d + 1 < rank; ++d) {
          from += i[d] * from_stride[d];
          target += (i[d] + (d == 0 ? 0 : at[d])) * to_stride[d];
        }
        if (rank > 1) target += at[rank - 1] * item;
        std::memcpy(out + target, to + from, run);
        std::size_t d = rank - 1;
        while (d > 0 && ++i[d - 1] == extent[d - 1]) i[--d] = 0;
        if (d == 0) break;
      }
    }
    std::size_t d = rank;
    while (d > 1 && (at[d - 1] += info_.chunk[d - 1]) >= info_.dims[d - 1]) at[--d] = 0;
    if (d <= 1) break;
  }
  give_decoder(std::move(decoder));
  if (info_.swapped) swap(out, rows * row_bytes_);
}

void Column::read_band_library(std::uint64_t band, std::byte* out) const {
  const auto opened = open();
  const h5::Lock lock;
  std::array<hsize_t, h5::max_rank> start{}, count{};
  start[0] = band * band_rows_;
  count[0] = rows_of(band);
  for (std::size_t d = 1; d < info_.dims.size(); ++d) count[d] = info_.dims[d];
  const int rank = static_cast<int>(info_.dims.size());
  const h5::Handle from(H5Dget_space(opened->dataset.get()), H5Sclose);
  const h5::Handle to(H5Screate_simple(rank, count.data(), nullptr), H5Sclose);
  if (H5Sselect_hyperslab(from.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) < 0 ||
      H5Dread(opened->dataset.get(), h5::native_type(*info_.type), to.get(), from.get(), H5P_DEFAULT, out) < 0) {
    damaged(start[0], fmt::format("cannot be read: the file is damaged ({})", h5::last_error()));
  }
}

void Column::read_band(std::uint64_t band, std::byte* out) const {
  if (mode_ == Mode::chunks) {
    read_band_chunks(band, out);
  } else {
    read_band_library(band, out);
  }
}

void Column::read_all(std::byte* out, int threads) const {
  const bool direct = mode_ == Mode::direct;
  const std::uint64_t rows =
      direct ? std::max<std::uint64_t>(1, read_at_once / std::max<std::size_t>(1, row_bytes_)) : band_rows_;
  const std::uint64_t parts = (rows_ + rows - 1) / rows;
  std::atomic<std::uint64_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (std::uint64_t part = next++; part < parts; part = next++) {
        std::byte* to = out + part * rows * row_bytes_;
        if (direct) {
          read_direct(part * rows, std::min(rows, rows_ - part * rows), to);
        } else {
          read_band(part, to);
        }
      }
    } catch (...) {
      next = parts;
      const std::lock_guard lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  std::vector<std::thread> pool;
  const auto helpers = std::min<std::uint64_t>(static_cast<std::uint64_t>(std::max(1, threads)), parts);
  for (std::uint64_t i = 1; i < helpers; ++i) pool.emplace_back(work);
  work();
  for (auto& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
}

void Column::read_rows(std::uint64_t first, std::uint64_t count, std::byte* out, int threads) const {
  if (first == 0 && count == rows_) return read_all(out, threads);
  read_range(first, count, out);
}

void Column::read_row(std::uint64_t row, std::byte* out) const {
  read_range(row, 1, out);
}

void Column::read_range(std::uint64_t first, std::uint64_t count, std::byte* out) const {
  if (mode_ == Mode::direct) return read_direct(first, count, out);
  while (count > 0) {
    const std::uint64_t run = std::min(count, band_rows_ - first % band_rows_);
    read_of_band(first, run, out);
    first += run;
    count -= run;
    out += run * row_bytes_;
  }
}

/// Rows of one band.
void Column::read_of_band(std::uint64_t row, std::uint64_t count, std::byte* out) const {
  const std::uint64_t wanted = row / band_rows_;
  Band* band = nullptr;
  {
    std::unique_lock lock(mutex_);
    for (;;) {
      Band* free = nullptr;
      for (Band& b : cache_) {
        if (b.index == wanted) {
          band = &b;
        } else if (b.pins == 0 && !b.loading && (free == nullptr || b.used < free->used)) {
          free = &b;
        }
      }
      if (band != nullptr && !band->loading) break;
      if (band == nullptr && free != nullptr) {
        free->index = wanted;
        free->loading = true;
        lock.unlock();
        try {
          free->bytes.resize(static_cast<std::size_t>(band_rows_) * row_bytes_);
          read_band(wanted, free->bytes.data());
        } catch (...) {
          lock.lock();
          free->loading = false;
          free->index = ~std::uint64_t{0};
          changed_.notify_all();
          throw;
        }
        lock.lock();
        free->loading = false;
        changed_.notify_all();
        band = free;
        break;
      }
      band = nullptr;
      changed_.wait(lock);
    }
    ++band->pins;
    band->used = ++clock_;
  }
  std::memcpy(out, band->bytes.data() + (row - wanted * band_rows_) * row_bytes_, count * row_bytes_);
  const std::lock_guard lock(mutex_);
  if (--band->pins == 0) changed_.notify_all();
}

}  // namespace dtrain::io
