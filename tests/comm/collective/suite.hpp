// What every Communicator, Collective and Group must do, written once: run on local threads by tests_comm and on MPI
// ranks by comm_suite_program.
// Free functions called by every rank on its own thread; a failure is a std::runtime_error.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "comm/collective/agree.hpp"
#include "comm/collective/communicator.hpp"
#include "comm/collective/config.hpp"
#include "comm/collective/fixed_order.hpp"
#include "runtime/device/device.hpp"
#include "runtime/random/rng.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/tensor/bf16.hpp"

namespace dtrain::comm::suite {

/// Formats only where it fails: it is called for every element.
template <class... Args>
void require(bool holds, fmt::format_string<Args...> what, Args&&... args) {
  if (!holds) throw std::runtime_error("does not hold: " + fmt::format(what, std::forward<Args>(args)...));
}

/// What makes the objects under test: LocalRank or World.
struct Maker {
  int rank = 0, size = 1;
  std::function<std::unique_ptr<Group>()> group;
  std::function<std::unique_ptr<Communicator>(Algorithm)> communicator;
  std::function<std::unique_ptr<Collective>(Algorithm)> collective;
};

template <class Source>
Maker maker_of(Source& source) {
  return {source.rank(), source.size(), [&] { return source.make_group(); },
          [&](Algorithm a) { return source.make_communicator(a); },
          [&](Algorithm a) { return source.make_collective(a); }};
}

/// Small whole numbers, so that every order of adding gives the same sum.
template <class T>
T whole(int rank, std::size_t i) {
  return static_cast<T>((static_cast<std::size_t>(rank) * 7 + i * 3 + 1) % 23);
}

/// Floats of many magnitudes and both signs: another order of adding gives other bits.
inline float rough(int rank, std::size_t i) {
  const Random4 r = draw4(random_key(5, Purpose::test), i, static_cast<std::uint32_t>(rank), 0);
  const float sign = (r.v[1] & 1u) != 0 ? 1.0f : -1.0f;
  return sign * (0.5f + to_unit(r.v[0])) * static_cast<float>(1u << (r.v[2] % 16));
}

/// The documented tree, spelt out for one element.
inline float tree_sum(const std::function<float(int)>& part, int lo, int hi) {
  if (hi - lo == 1) return part(lo);
  int half = 1;
  while (2 * half < hi - lo) half *= 2;
  return tree_sum(part, lo, lo + half) + tree_sum(part, lo + half, hi);
}

inline const std::vector<std::size_t>& sizes() {
  static const std::vector<std::size_t> all{0, 1, 2, 3, 17, 1000, 65537, (std::size_t{1} << 18) + 3};
  return all;
}

template <class T>
void check_sums(Communicator& c, DType dtype) {
  const int ranks = c.size();
  const auto total = [&](std::size_t i) {
    T sum{};
    for (int r = 0; r < ranks; ++r) sum = static_cast<T>(sum + whole<T>(r, i));
    return sum;
  };
  const auto largest = [&](std::size_t i) {
    T best = whole<T>(0, i);
    for (int r = 1; r < ranks; ++r) best = std::max(best, whole<T>(r, i));
    return best;
  };
  for (std::size_t n : sizes()) {
    for (Reduce reduce : {Reduce::sum, Reduce::max}) {
      std::vector<T> data(n);
      for (std::size_t i = 0; i < n; ++i) data[i] = whole<T>(c.rank(), i);
      c.all_reduce(data.data(), n, dtype, reduce);
      for (std::size_t i = 0; i < n; ++i) {
        require(data[i] == (reduce == Reduce::sum ? total(i) : largest(i)), "all_reduce of {} {}: element {}", n,
                name_of(dtype), i);
      }
    }
    const std::size_t shard = n, own = shard * static_cast<std::size_t>(c.rank());
    for (bool in_place : {false, true}) {
      std::vector<T> in(shard * static_cast<std::size_t>(ranks)), apart(shard);
      for (std::size_t i = 0; i < in.size(); ++i) in[i] = whole<T>(c.rank(), i);
      T* const out = in_place ? in.data() + own : apart.data();
      c.reduce_scatter(in.data(), out, shard, dtype, Reduce::sum);
      for (std::size_t i = 0; i < shard; ++i) {
        require(out[i] == total(own + i), "reduce_scatter of {} (in place: {}): element {}", n, in_place, i);
      }
    }
  }
}

inline void check_moves(Communicator& c) {
  for (std::size_t n : sizes()) {
    const auto ranks = static_cast<std::size_t>(c.size()), own = n * static_cast<std::size_t>(c.rank());
    for (bool in_place : {false, true}) {
      std::vector<std::uint64_t> out(n * ranks), apart(n);
      std::uint64_t* const in = in_place ? out.data() + own : apart.data();
      for (std::size_t i = 0; i < n; ++i) in[i] = static_cast<std::uint64_t>(c.rank()) << 40 | i;
      c.all_gather(in, out.data(), n, DType::u64);
      for (std::size_t i = 0; i < out.size(); ++i) {
        require(out[i] == (static_cast<std::uint64_t>(i / n) << 40 | i % n),
                "all_gather of {} (in place: {}): element {}", n, in_place, i);
      }
    }
    for (int root = 0; root < c.size(); ++root) {
      std::vector<std::uint16_t> data(n);
      for (std::size_t i = 0; i < n; ++i) data[i] = static_cast<std::uint16_t>(c.rank() == root ? i * 31 + 5 : 0);
      c.broadcast(data.data(), n, DType::bf16, root);
      for (std::size_t i = 0; i < n; ++i) {
        require(data[i] == static_cast<std::uint16_t>(i * 31 + 5), "broadcast of {}: element {}", n, i);
      }
    }
  }
}

/// Bits of fixed-order sums against the documented tree, and whatever the chunks.
inline void check_fixed_order(Communicator& c) {
  for (std::size_t n : sizes()) {
    std::vector<float> data(n);
    for (std::size_t i = 0; i < n; ++i) data[i] = rough(c.rank(), i);
    c.all_reduce(data.data(), n, DType::f32, Reduce::sum);
    for (std::size_t i = 0; i < n; ++i) {
      const float expected = tree_sum([&](int r) { return rough(r, i); }, 0, c.size());
      require(std::memcmp(&data[i], &expected, sizeof expected) == 0, "bits of {} sums: element {}", n, i);
    }
  }
}

/// bf16 is widened exactly, added in f32 in the documented tree and rounded once, alike on all ranks.
inline void check_fixed_order_bf16(Communicator& c, std::size_t most = ~std::size_t{0}) {
  const auto part = [](int rank, std::size_t i) { return to_float(to_bf16(rough(rank, i))); };
  const auto expected = [&](std::size_t i) {
    return to_bf16(tree_sum([&](int r) { return part(r, i); }, 0, c.size()));
  };
  for (std::size_t n : sizes()) {
    if (n > most) continue;
    std::vector<Bf16> data(n);
    for (std::size_t i = 0; i < n; ++i) data[i] = to_bf16(rough(c.rank(), i));
    c.all_reduce(data.data(), n, DType::bf16, Reduce::sum);
    for (std::size_t i = 0; i < n; ++i)
      require(data[i].bits == expected(i).bits, "bits of {} bfloat16 sums: element {}", n, i);
    const std::size_t own = n * static_cast<std::size_t>(c.rank());
    for (bool in_place : {false, true}) {
      std::vector<Bf16> in(n * static_cast<std::size_t>(c.size())), apart(n);
      for (std::size_t i = 0; i < in.size(); ++i) in[i] = to_bf16(rough(c.rank(), i));
      Bf16* const out = in_place ? in.data() + own : apart.data();
      c.reduce_scatter(in.data(), out, n, DType::bf16, Reduce::sum);
      for (std::size_t i = 0; i < n; ++i)
        require(out[i].bits == expected(own + i).bits, "bits of a shard of {} bfloat16 sums (in place: {}): element {}",
                n, in_place, i);
    }
  }
}

inline void check_communicators(const Maker& make) {
  for (Algorithm algorithm : {Algorithm::automatic, Algorithm::fixed_order}) {
    const auto c = make.communicator(algorithm);
    check_sums<float>(*c, DType::f32);
    check_moves(*c);
    if (algorithm == Algorithm::fixed_order) {
      check_fixed_order(*c);
      if (make.size > 1) check_fixed_order_bf16(*c);
    } else {
      check_sums<double>(*c, DType::f64);
      check_sums<std::int64_t>(*c, DType::i64);
    }
  }
  if (make.size > 1) {
    // Chunks that do not divide the data, and so small that many rounds are in flight after one another.
    for (std::size_t chunk_bytes : {std::size_t{256}, std::size_t{4100}}) {
      const auto c = make_fixed_order(make.communicator(Algorithm::automatic), {chunk_bytes});
      check_fixed_order(*c);
      check_fixed_order_bf16(*c, 1000);
    }
  }
}

inline Tensor view(DType dtype, void* data, std::size_t n) {
  Tensor t;
  t.desc.dtype = dtype;
  t.desc.shape = Shape{static_cast<std::int64_t>(n)};
  t.data = data;
  return t;
}

/// The same sums through a Collective on a communication stream: many in flight, in order.
inline void check_collectives(const Maker& make, Device& device) {
  const auto stream = device.make_stream(StreamUse::communication);
  for (Algorithm algorithm : {Algorithm::automatic, Algorithm::fixed_order}) {
    const auto c = make.collective(algorithm);
    require(c->rank() == make.rank && c->size() == make.size, "rank and size of the collective");
    const std::size_t n = 4099, ranks = static_cast<std::size_t>(make.size);
    std::vector<std::vector<float>> data(8, std::vector<float>(n));
    std::vector<float> whole_buffer(n * ranks), shard(n);
    for (auto& d : data) {
      for (std::size_t i = 0; i < n; ++i) d[i] = whole<float>(make.rank, i);
      c->all_reduce(view(DType::f32, d.data(), n), Reduce::sum, *stream);
    }
    // Broadcast reads what the sum before it wrote.
    c->broadcast(view(DType::f32, data[0].data(), n), make.size - 1, *stream);
    c->all_gather(view(DType::f32, data[0].data(), n), view(DType::f32, whole_buffer.data(), n * ranks), *stream);
    c->reduce_scatter(view(DType::f32, whole_buffer.data(), n * ranks), view(DType::f32, shard.data(), n), Reduce::sum,
                      *stream);
    stream->synchronize();
    for (std::size_t i = 0; i < n; ++i) {
      float sum = 0;
      for (int r = 0; r < make.size; ++r) sum += whole<float>(r, i);
      for (const auto& d : data) require(d[i] == sum, "a collective's sum: element {}", i);
      require(shard[i] == sum * static_cast<float>(make.size), "a chain of collectives: element {}", i);
    }
  }
}

template <class Expected, class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Expected& e) {
    return e.what();
  }
  throw std::runtime_error("nothing was thrown");
}

inline void check_group(const Maker& make) {
  const auto group = make.group();
  const int rank = make.rank, size = make.size, last = size - 1;
  require(group->rank() == rank && group->size() == size, "rank and size of the group");

  const auto numbers = group->all_gather(static_cast<std::uint64_t>(rank) + 5);
  const auto texts = group->all_gather(std::string(static_cast<std::size_t>(rank * 3), 'x'));
  for (int r = 0; r < size; ++r) {
    require(numbers.at(static_cast<std::size_t>(r)) == static_cast<std::uint64_t>(r) + 5, "all_gather of numbers");
    require(texts.at(static_cast<std::size_t>(r)).size() == static_cast<std::size_t>(r * 3), "all_gather of texts");
  }
  for (int root = 0; root < size; ++root) {
    std::vector<std::byte> bytes(rank == root ? 1000 : 3, static_cast<std::byte>(rank + 1));
    group->broadcast(bytes, root);
    require(bytes == std::vector<std::byte>(1000, static_cast<std::byte>(root + 1)), "broadcast of bytes");
  }
  require(!group->any(false) && group->any(true) && group->any(rank == last), "any");
  group->barrier();

  group->agree([] {});
  // On all alike: as it was thrown.
  require(error_of<DataError>([&] { group->agree([] { throw DataError("no such file"); }); }) == "no such file",
          "agree where all fail alike");
  if (size > 1) {
    const auto one_fails = [&] {
      group->agree([&] {
        if (rank == last) throw CheckpointError("a torn shard", CheckpointError::Kind::corrupt);
      });
    };
    require(error_of<CheckpointError>(one_fails) == fmt::format("rank {}: a torn shard", last),
            "agree where one fails");
    require(error_of<OutOfMemory>([&] {
              group->agree([&] {
                if (rank > 0) throw std::bad_alloc();
              });
            }).rfind("rank 1: ", 0) == 0,
            "agree names the first rank that fails");

    const std::string host = fmt::format("h{}", rank);
    std::vector<Fact> facts{{"dtrain version", "0.1.0"}, {"configuration hash", "ab"}};
    agree_on(*group, host, facts);
    if (rank == last) facts[0].value = "0.2.0";
    const std::string text = error_of<CommError>([&] { agree_on(*group, host, facts); });
    const std::string expected = fmt::format("rank 0 (host h0) has 0.1.0, rank {} (host h{}) has 0.2.0", last, last);
    require(text.find("ranks disagree on dtrain version: " + expected) == 0, "agree_on says: {}", text);
  }
  // Still usable after errors.
  require(group->all_gather(std::uint64_t{1}).size() == static_cast<std::size_t>(size), "the group after errors");
}

}  // namespace dtrain::comm::suite
