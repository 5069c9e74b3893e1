// Sums over the rows of a matrix, a channel at a time: the pattern of norms, of squeeze and excitation and of global
// pooling. Structs of arguments; see grid.hpp. A sum is made of floats within a thread and a warp, of doubles beyond.
#pragma once

#include "runtime/cuda/tiling.hpp"
#include "runtime/cuda/vector.hpp"

namespace dtrain::cuda {

/// Where a thread is in its block of a Tiling.
struct TilePlace {
  int lane, height;       // of the block
  std::int64_t channel;   // the first of the thread's
  std::int64_t row, end;  // of the thread: every `step` rows
  std::int64_t step;
  bool inside;  // there are such channels
};
template <int width, class Thread>
DTRAIN_HOST_DEVICE inline TilePlace tile_place(Thread& t, const Tiling& tiling, std::int64_t rows,
                                               std::int64_t channels) {
  const Split block = split(t.block(), tiling.tiles);
  const int lane = static_cast<int>(t.index()) % tiling.lanes, down = static_cast<int>(t.index()) / tiling.lanes;
  const std::int64_t channel = (block.rest * tiling.lanes + lane) * width, begin = block.quotient * tiling.chunk;
  const std::int64_t end = begin + tiling.chunk < rows ? begin + tiling.chunk : rows;
  return {lane, down, channel, begin + down, end, tiling.height, channel < channels};
}

/// Adds what the threads of a block have of the same channels: `outputs` values a thread. Calls put(output, lane, sum)
/// once for each of them.
template <int outputs>
struct ColumnShared {
  static constexpr int warps = Tiling::threads / static_cast<int>(warp_size);
  float part[warps][warp_size][outputs];
};
template <int outputs, class Thread, class Put>
DTRAIN_HOST_DEVICE inline void add_columns(Thread& t, ColumnShared<outputs>& shared, int lanes,
                                           const float (&values)[outputs], const Put& put) {
  const int in_warp = static_cast<int>(t.index() % warp_size), warp = static_cast<int>(t.index() / warp_size);
  for (int o = 0; o < outputs; ++o) {
    const float sum = warp_sum(t, values[o], static_cast<unsigned>(lanes));
    if (in_warp < lanes) shared.part[warp][in_warp][o] = sum;
  }
  t.sync();
  for (int i = static_cast<int>(t.index()); i < lanes * outputs; i += Tiling::threads) {
    double sum = 0;
    for (int w = 0; w < ColumnShared<outputs>::warps; ++w)
      sum += static_cast<double>(shared.part[w][i / outputs][i % outputs]);
    put(i % outputs, i / outputs, sum);
  }
}

// ---- two sums a channel, in two kernels ----------------------------------------------------------------------------

/// Rows a thread adds up in float.
inline constexpr std::int64_t rows_in_float = 64;
inline Tiling sums_tiling(const Matrix& m, int width) {
  return tiling_of(m.rows, m.channels, width, rows_in_float, 512);
}

/// Bytes of workspace for two sums a channel: one channel a thread makes the most chunks.
inline std::size_t sums_bytes(const Matrix& shape) {
  std::int64_t chunks = 0;
  for (const int width : {1, width_of<float>, width_of<Bf16>}) {
    const std::int64_t of_width = sums_tiling(shape, width).chunks;
    chunks = of_width > chunks ? of_width : chunks;
  }
  return static_cast<std::size_t>(2 * chunks * shape.channels) * sizeof(double);
}

/// partial[chunk][2][channels]: f.add(column, row, channel, first, second) for each row, where column =
/// f.column(channel) is what a thread keeps of its channels.
template <class F>
struct PartialSums {
  static constexpr int threads = Tiling::threads, width = F::width;
  using Shared = ColumnShared<2 * width>;
  Matrix shape;
  Tiling tiling;
  F f;
  double* partial;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const TilePlace at = tile_place<width>(t, tiling, shape.rows, shape.channels);
    float sums[2 * width] = {};
    if (at.inside) {
      const auto column = f.column(at.channel);
      for (std::int64_t row = at.row; row < at.end; row += at.step) {
        Floats<width> first, second;
        f.terms(column, row, at.channel, first, second);
        for (int j = 0; j < width; ++j) {
          sums[j] += first.v[j];
          sums[width + j] += second.v[j];
        }
      }
    }
    const Split block = split(t.block(), tiling.tiles);
    add_columns<2 * width>(t, shared, tiling.lanes, sums, [&](int output, int lane, double sum) {
      const std::int64_t channel = (block.rest * tiling.lanes + lane) * width + output % width;
      if (channel < shape.channels) partial[(block.quotient * 2 + output / width) * shape.channels + channel] = sum;
    });
  }
};

/// f.finish(channel, first, second) with the sums over all chunks: one thread a channel and slice of the chunks.
template <class F>
struct FinishSums {
  static constexpr int slices = 32, threads = slices * static_cast<int>(warp_size);
  struct Shared {
    double sums[2][slices][warp_size];
  };
  std::int64_t channels, chunks;
  const double* partial;
  F f;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const unsigned lane = t.index() % warp_size, slice = t.index() / warp_size;
    const std::int64_t channel = t.block() * warp_size + lane;
    double first = 0, second = 0;
    if (channel < channels) {
      for (std::int64_t c = slice; c < chunks; c += slices) {
        first += partial[2 * c * channels + channel];
        second += partial[(2 * c + 1) * channels + channel];
      }
    }
    shared.sums[0][slice][lane] = first;
    shared.sums[1][slice][lane] = second;
    for (unsigned half = slices / 2; half > 0; half /= 2) {
      t.sync();
      if (slice < half) {
        shared.sums[0][slice][lane] += shared.sums[0][slice + half][lane];
        shared.sums[1][slice][lane] += shared.sums[1][slice + half][lane];
      }
    }
    if (slice == 0 && channel < channels) f.finish(channel, shared.sums[0][0][lane], shared.sums[1][0][lane]);
  }
};

/// Of Terms<T, width>{arguments...}, then of `finish`.
template <template <class, int> class Terms, class Finish, class... Arguments>
void sum_columns(const Launch& where, Element element, const Matrix& shape, bool suits, void* workspace,
                 const Finish& finish, const Arguments&... arguments) {
  auto* partial = static_cast<double*>(workspace);
  with_width(element, shape.channels, suits, [&](auto tag, auto width) {
    using F = Terms<decltype(tag), decltype(width)::value>;
    const Tiling tiling = sums_tiling(shape, F::width);
    launch(where, tiling.blocks(), PartialSums<F>{shape, tiling, F{typed(arguments)...}, partial});
    launch(where, divide_up(shape.channels, warp_size),
           FinishSums<Finish>{shape.channels, tiling.chunks, partial, finish});
  });
}

// ---- element by element, channels kept in registers ----------------------------------------------------------------

/// f.apply(column, element, channel) for each group of channels of each row.
template <class F>
struct ApplyColumns {
  static constexpr int threads = Tiling::threads, width = F::width;
  using Shared = Nothing;
  Matrix shape;
  Tiling tiling;
  F f;
  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared&) const {
    const TilePlace at = tile_place<width>(t, tiling, shape.rows, shape.channels);
    if (!at.inside) return;
    const auto column = f.column(at.channel);
    for (std::int64_t row = at.row; row < at.end; row += at.step) f.apply(column, row * shape.channels + at.channel);
  }
};
/// Of Body<T, width>{arguments...}.
template <template <class, int> class Body, class... Arguments>
void apply_columns(const Launch& where, Element element, const Matrix& shape, bool suits,
                   const Arguments&... arguments) {
  with_width(element, shape.channels, suits, [&](auto tag, auto width) {
    using F = Body<decltype(tag), decltype(width)::value>;
    const Tiling tiling = tiling_of(shape.rows, shape.channels, F::width, rows_in_float, 4096);
    launch(where, tiling.blocks(), ApplyColumns<F>{shape, tiling, F{typed(arguments)...}});
  });
}

// ---- over the pixels of one sample ---------------------------------------------------------------------------------

/// A block for a sample's tile of channels. f.term(sample, element, channel) of every pixel, f.finish(sample, channel,
/// sum).
template <class F>
struct SampleSums {
  static constexpr int threads = Tiling::threads, width = F::width;
  using Shared = ColumnShared<width>;
  Images images;
  Tiling tiling;  // of one sample: one chunk
  F f;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    const Split block = split(t.block(), tiling.tiles);
    const int lane = static_cast<int>(t.index()) % tiling.lanes;
    const std::int64_t sample = block.quotient, channel = (block.rest * tiling.lanes + lane) * width;
    float sums[width] = {};
    if (channel < images.channels) {
      double far[width] = {};
      std::int64_t terms = 0;
      for (std::int64_t p = static_cast<std::int64_t>(t.index()) / tiling.lanes; p < images.pixels;
           p += tiling.height) {
        const Floats<width> v = f.term(sample, (sample * images.pixels + p) * images.channels + channel, channel);
        for (int j = 0; j < width; ++j) sums[j] += v.v[j];
        if (++terms % rows_in_float != 0) continue;
        for (int j = 0; j < width; ++j) {
          far[j] += static_cast<double>(sums[j]);
          sums[j] = 0;
        }
      }
      for (int j = 0; j < width; ++j) sums[j] = static_cast<float>(far[j] + static_cast<double>(sums[j]));
    }
    add_columns<width>(t, shared, tiling.lanes, sums, [&](int output, int of_lane, double sum) {
      const std::int64_t c = (block.rest * tiling.lanes + of_lane) * width + output;
      if (c < images.channels) f.finish(sample, c, sum);
    });
  }
};

/// Of Terms<T, width>{images, arguments...}.
template <template <class, int> class Terms, class... Arguments>
void sum_samples(const Launch& where, Element element, const Images& images, bool suits,
                 const Arguments&... arguments) {
  with_width(element, images.channels, suits, [&](auto tag, auto width) {
    using F = Terms<decltype(tag), decltype(width)::value>;
    Tiling tiling = tiling_of(images.pixels, images.channels, F::width, images.pixels, 1);
    tiling.chunks = 1;
    launch(where, images.samples * tiling.tiles, SampleSums<F>{images, tiling, F{images, typed(arguments)...}});
  });
}

}  // namespace dtrain::cuda
