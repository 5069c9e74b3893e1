#include "io/checkpoint/checkpoint_digest.hpp"

#include <cstring>
#include <new>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// True where an element of unsigned type U has all exponent bits set. Without a branch inside, so that it vectorises.
template <class U, U exponent>
bool any_nonfinite(std::span<const std::byte> data) noexcept {
  U bad = 0;
  for (std::size_t i = 0; i + sizeof(U) <= data.size(); i += sizeof(U)) {
    U bits;
    std::memcpy(&bits, data.data() + i, sizeof bits);
    bad = static_cast<U>(bad | static_cast<U>((bits & exponent) == exponent));
  }
  return bad != 0;
}

}  // namespace

struct Xxh3::State {
  struct Free {
    void operator()(XXH3_state_t* s) const noexcept { XXH3_freeState(s); }
  };
  std::unique_ptr<XXH3_state_t, Free> handle{XXH3_createState()};
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {
  if (!state_->handle) throw std::bad_alloc();
  reset();
}
Xxh3::~Xxh3() = default;
void Xxh3::reset() noexcept {
  XXH3_64bits_reset(state_->handle.get());
}
void Xxh3::add(std::span<const std::byte> data) noexcept {
  XXH3_64bits_update(state_->handle.get(), data.data(), data.size());
}
std::uint64_t Xxh3::value() const noexcept {
  return XXH3_64bits_digest(state_->handle.get());
}

struct Sha256::State {
  struct Free {
    void operator()(EVP_MD_CTX* c) const noexcept { EVP_MD_CTX_free(c); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> handle{EVP_MD_CTX_new()};
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (!state_->handle || EVP_DigestInit_ex(state_->handle.get(), EVP_sha256(), nullptr) != 1) {
    throw BugError("libcrypto offers no SHA-256");
  }
}
Sha256::~Sha256() = default;
void Sha256::add(std::span<const std::byte> data) {
  if (EVP_DigestUpdate(state_->handle.get(), data.data(), data.size()) != 1) throw BugError("SHA-256 failed");
}
std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned bytes = 0;
  if (EVP_DigestFinal_ex(state_->handle.get(), digest, &bytes) != 1) throw BugError("SHA-256 failed");
  return fmt::format("{:02x}", fmt::join(digest, digest + bytes, ""));
}

std::string sha256_hex(std::span<const std::byte> data) {
  Sha256 digest;
  digest.add(data);
  return digest.hex();
}

bool holds_nonfinite(DType dtype, std::span<const std::byte> data) noexcept {
  switch (dtype) {
    case DType::f32:
      return any_nonfinite<std::uint32_t, 0x7f800000u>(data);
    case DType::f64:
      return any_nonfinite<std::uint64_t, 0x7ff0000000000000u>(data);
    case DType::bf16:
      return any_nonfinite<std::uint16_t, 0x7f80>(data);
    case DType::f16:
      return any_nonfinite<std::uint16_t, 0x7c00>(data);
    case DType::u8:
    case DType::u16:
    case DType::i32:
    case DType::i64:
    case DType::u64:
      break;
  }
  return false;
}

}  // namespace dtrain::io
