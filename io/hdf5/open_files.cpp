#include "io/hdf5/open_files.hpp"

#include <algorithm>

#include <sys/resource.h>
#include <unistd.h>

namespace dtrain::io {

OpenDataset::~OpenDataset() {
  if (fd >= 0) ::close(fd);
  dataset = {};
}

OpenFiles::OpenFiles(std::size_t limit) : limit_(limit) {
  if (limit_ > 0) return;
  constexpr std::size_t least = 8, most = 4096;
  rlimit descriptors{};
  const bool known = ::getrlimit(RLIMIT_NOFILE, &descriptors) == 0;
  limit_ = std::clamp<std::size_t>(known ? descriptors.rlim_cur / 4 : 0, least, most);
}

std::size_t OpenFiles::add() {
  const std::lock_guard lock(mutex_);
  entries_.emplace_back();
  return entries_.size() - 1;
}

void OpenFiles::close(std::size_t place) noexcept {
  const std::lock_guard lock(mutex_);
  if (entries_[place].set == nullptr) return;
  entries_[place].set.reset();
  --open_;
}

void OpenFiles::make_room() {
  while (open_ >= limit_) {
    Entry* oldest = nullptr;
    for (Entry& entry : entries_)
      if (entry.set != nullptr && (oldest == nullptr || entry.used < oldest->used)) oldest = &entry;
    if (oldest == nullptr) return;
    oldest->set.reset();
    --open_;
  }
}

}  // namespace dtrain::io
