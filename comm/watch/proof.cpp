#include "comm/watch/proof.hpp"

#include <cerrno>
#include <charconv>
#include <cstring>
#include <vector>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::comm {

Secret make_secret() {
  Secret secret;
  if (getrandom(secret.data(), secret.size(), 0) != static_cast<ssize_t>(secret.size()))
    throw CommError(fmt::format("cannot make a secret: {}", std::strerror(errno)));
  return secret;
}

bool make_nonce(Nonce& nonce) noexcept {
  return getrandom(nonce.data(), nonce.size(), 0) == static_cast<ssize_t>(nonce.size());
}

Proof prove(const Secret& secret, std::string_view role, std::span<const std::byte> said) {
  std::vector<std::byte> text(role.size() + said.size());
  std::memcpy(text.data(), role.data(), role.size());
  std::memcpy(text.data() + role.size(), said.data(), said.size());
  Proof proof{};
  unsigned bytes = proof.size();
  if (HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(text.data()), text.size(),
           reinterpret_cast<unsigned char*>(proof.data()), &bytes) == nullptr ||
      bytes != proof.size())
    throw BugError("HMAC-SHA256 failed");
  return proof;
}

bool same(const Proof& a, const Proof& b) noexcept {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string to_hex(const Secret& secret) {
  std::string text;
  for (const std::byte b : secret) text += fmt::format("{:02x}", std::to_integer<unsigned>(b));
  return text;
}

Secret secret_of(std::string_view hex) {
  Secret secret{};
  bool right = hex.size() == 2 * secret.size();
  for (std::size_t i = 0; right && i < secret.size(); ++i) {
    unsigned value = 0;
    const char* const at = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(at, at + 2, value, 16);
    right = error == std::errc{} && end == at + 2;
    secret[i] = static_cast<std::byte>(value);
  }
  if (!right) throw BugError("a secret of another form");
  return secret;
}

}  // namespace dtrain::comm
