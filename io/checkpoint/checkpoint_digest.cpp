#include "io/checkpoint/checkpoint_digest.hpp"

#include <new>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {

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

}  // namespace dtrain::io
