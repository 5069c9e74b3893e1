// A thread of a kernel as a host compiler sees it; see grid.hpp. Tests alone run kernels so: the CUDA device never
// does. A Thread belongs to the call of its kernel, and to run_blocks(), which whoever links own kernels into a host
// program defines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace dtrain::cuda {

class Thread {
 public:
  virtual ~Thread() = default;
  unsigned index() const { return index_; }
  std::int64_t block() const { return block_; }
  std::int64_t blocks() const { return blocks_; }
  virtual void sync() = 0;
  template <class T>
  T shuffle_xor(T value, unsigned mask) {
    static_assert(sizeof(T) <= 8);
    T other;
    std::memcpy(&other, exchange(&value, sizeof value, index_ ^ mask), sizeof other);
    return other;
  }

 protected:
  unsigned index_ = 0;
  std::int64_t block_ = 0, blocks_ = 0;

 private:
  /// Gives this thread's value to the others of its warp, and returns where that of thread `from` is.
  virtual const void* exchange(const void* value, std::size_t bytes, unsigned from) = 0;
};

/// Runs body(arguments, thread, shared) for every thread of every block.
void run_blocks(const char* op, std::int64_t blocks, unsigned threads, std::size_t shared_bytes,
                void (*body)(const void* arguments, Thread&, void* shared), const void* arguments);

}  // namespace dtrain::cuda
