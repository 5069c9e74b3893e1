// The data sets of many files, of which a bounded number is open: the one used least recently is closed, and opened
// again when it is needed. An OpenFiles owns what is open; any thread may ask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "io/hdf5/hdf5.hpp"

namespace dtrain::io {

/// One data set, open for reading: the file's descriptor where its rows lie in a row, else HDF5's handle.
struct OpenDataset {
  OpenDataset() = default;
  ~OpenDataset();
  OpenDataset(const OpenDataset&) = delete;
  OpenDataset& operator=(const OpenDataset&) = delete;
  int fd = -1;
  std::unique_ptr<const h5::File> file;
  h5::Handle dataset;  // of `file`; closed before it
};

class OpenFiles {
 public:
  /// `limit` of 0: a quarter of the descriptors that the process may have (ulimit -n), at least 8.
  explicit OpenFiles(std::size_t limit = 0);
  std::size_t limit() const noexcept { return limit_; }
  /// A place for one more data set; it is not opened yet.
  std::size_t add();
  /// Closes it, once nobody holds it; for a place that is given up.
  void close(std::size_t place) noexcept;
  /// What `open()` returned last for this place; called where it has been closed since. Stays open while it is held, so
  /// threads may exceed the limit by one each.
  template <class Open>
  std::shared_ptr<const OpenDataset> get(std::size_t place, Open&& open) {
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[place];
    entry.used = ++clock_;
    if (entry.set == nullptr) {
      make_room();
      entry.set = open();
      ++open_;
    }
    return entry.set;
  }

 private:
  struct Entry {
    std::shared_ptr<const OpenDataset> set;
    std::uint64_t used = 0;
  };
  void make_room();
  std::size_t limit_;
  std::mutex mutex_;
  std::vector<Entry> entries_;
  std::size_t open_ = 0;
  std::uint64_t clock_ = 0;
};

}  // namespace dtrain::io
