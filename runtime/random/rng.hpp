// Counter-based random numbers (Philox4x32-10, Salmon et al., SC'11): a draw is a pure function of what it is for and
// where it is. Free functions that own nothing and run on any thread, on the host and in device code alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DTRAIN_HOST_DEVICE __host__ __device__
#else
#define DTRAIN_HOST_DEVICE
#endif

namespace dtrain {

/// What a draw is for: part of the key, so that streams never meet.
enum class Purpose : std::uint32_t {
  init = 1,
  shuffle = 2,
  dropout = 3,
  augment = 4,
  data = 5,
  test = 6,
  generation = 7
};

struct Random4 {
  std::uint32_t v[4];
};

/// The bare generator: 128-bit counter, 64-bit key.
DTRAIN_HOST_DEVICE inline Random4 philox(Random4 c, std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c.v[0];
    const std::uint64_t p1 = 0xCD9E8D57ull * c.v[2];
    c = Random4{{static_cast<std::uint32_t>(p1 >> 32) ^ c.v[1] ^ k0, static_cast<std::uint32_t>(p1),
                 static_cast<std::uint32_t>(p0 >> 32) ^ c.v[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// The key of a run's draws for one purpose.
struct RandomKey {
  std::uint32_t k0, k1;
};
DTRAIN_HOST_DEVICE inline RandomKey random_key(std::uint64_t seed, Purpose purpose) {
  return {static_cast<std::uint32_t>(seed) ^ (static_cast<std::uint32_t>(purpose) * 0x9E3779B9u),
          static_cast<std::uint32_t>(seed >> 32) ^ static_cast<std::uint32_t>(purpose)};
}

/// Four draws of block `block` of item `item` (a stream position, a parameter index) under sub-key `sub` (a layer id).
DTRAIN_HOST_DEVICE inline Random4 draw4(RandomKey key, std::uint64_t item, std::uint32_t sub, std::uint32_t block) {
  return philox(Random4{{block, sub, static_cast<std::uint32_t>(item), static_cast<std::uint32_t>(item >> 32)}}, key.k0,
                key.k1);
}

/// Uniform in [0, 1) with 24 bits.
DTRAIN_HOST_DEVICE inline float to_unit(std::uint32_t r) {
  return static_cast<float>(r >> 8) * 0x1p-24f;
}

}  // namespace dtrain
