// Which elements dropout keeps, many at a time: the same draws as draw4, in loops that become vector code.
// Free functions that own nothing and run on the calling thread.
#pragma once

#include <cmath>
#include <cstdint>

#include "runtime/random/rng.hpp"

namespace dtrain::cpu {

/// Blocks of draws that a call makes, and the elements that they decide.
inline constexpr int mask_blocks = 16, mask_elements = 4 * mask_blocks;

/// Draws of 24 bits below this are dropped.
inline std::uint32_t drop_threshold(double rate) {
  return static_cast<std::uint32_t>(std::ceil(rate * 0x1p24));
}

/// keep[4 j + i] = 1 where draw i of block first_block + j is at least `threshold` (of 2^24). The rounds of draw4, in
/// loops over lanes so that they become vector code; a test holds them equal.
inline void keep_mask(RandomKey key, std::uint64_t item, std::uint32_t sub, std::uint32_t first_block,
                      std::uint32_t threshold, std::uint8_t* keep) {
  // One draw a 64-bit lane: the product of two 32-bit halves is then one vector instruction.
  constexpr std::uint64_t low = 0xFFFFFFFFu;
  alignas(64) std::uint64_t c0[mask_blocks], c1[mask_blocks], c2[mask_blocks], c3[mask_blocks];
  for (int j = 0; j < mask_blocks; ++j) {
    c0[j] = first_block + static_cast<std::uint32_t>(j);
    c1[j] = sub;
    c2[j] = item & low;
    c3[j] = item >> 32;
  }
  std::uint64_t k0 = key.k0, k1 = key.k1;
  for (int round = 0; round < 10; ++round) {
#pragma omp simd
    for (int j = 0; j < mask_blocks; ++j) {
      const std::uint64_t p0 = 0xD2511F53u * (c0[j] & low);
      const std::uint64_t p1 = 0xCD9E8D57u * (c2[j] & low);
      c0[j] = (p1 >> 32) ^ c1[j] ^ k0;
      c1[j] = p1 & low;
      c2[j] = (p0 >> 32) ^ c3[j] ^ k1;
      c3[j] = p0 & low;
    }
    k0 = (k0 + 0x9E3779B9u) & low;
    k1 = (k1 + 0xBB67AE85u) & low;
  }
  alignas(64) std::uint32_t draws[mask_elements];
  for (int j = 0; j < mask_blocks; ++j) {
    draws[4 * j] = static_cast<std::uint32_t>(c0[j]);
    draws[4 * j + 1] = static_cast<std::uint32_t>(c1[j]);
    draws[4 * j + 2] = static_cast<std::uint32_t>(c2[j]);
    draws[4 * j + 3] = static_cast<std::uint32_t>(c3[j]);
  }
#pragma omp simd
  for (int i = 0; i < mask_elements; ++i) keep[i] = (draws[i] >> 8) >= threshold;
}

}  // namespace dtrain::cpu
