// What is looked at in every byte of a checkpoint, piece by piece: XXH3-64 of a tensor, SHA-256 of a file, and whether
// numbers are finite. Each checksum owns its state; used by one thread at a time. Inside io/ only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/tensor/dtype.hpp"

namespace dtrain::io {

class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  Xxh3(const Xxh3&) = delete;
  Xxh3& operator=(const Xxh3&) = delete;
  void reset() noexcept;
  void add(std::span<const std::byte>) noexcept;
  std::uint64_t value() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(std::span<const std::byte>);
  /// 64 hex digits; ends the digest.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::span<const std::byte>);

/// Whether a tensor's whole elements hold a NaN or an infinity.
bool holds_nonfinite(DType, std::span<const std::byte>) noexcept;

}  // namespace dtrain::io
