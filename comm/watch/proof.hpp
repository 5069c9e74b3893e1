// Proof that a process knows a secret, without sending it: an HMAC-SHA256 over words that both sides have just chosen,
// so that it is of no use on another connection. Values and pure functions; who shares the secret keeps it.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace dtrain::comm {

using Secret = std::array<std::byte, 16>;
using Nonce = std::array<std::byte, 16>;
using Proof = std::array<std::byte, 32>;

/// Of the system's generator. Throws CommError.
Secret make_secret();
/// False where the system has no random bytes to give.
bool make_nonce(Nonce&) noexcept;

/// `role`: who proves, so that nobody can be answered with his own proof. `said`: the nonces of both sides and whatever
/// else must be what the other side has sent.
Proof prove(const Secret&, std::string_view role, std::span<const std::byte> said);
/// In a time that does not depend on where they differ.
bool same(const Proof&, const Proof&) noexcept;

std::string to_hex(const Secret&);
/// Throws BugError where the text is not to_hex() of a secret.
Secret secret_of(std::string_view hex);

}  // namespace dtrain::comm
