// Starts Muon's own kernels, and their bodies. In a step that is skipped they change no parameter and no moment.
#include "runtime/cuda/update/muon.hpp"
#include "runtime/cuda/update/update_bodies.hpp"

namespace dtrain::cuda {

namespace {

constexpr std::int64_t block_floats = FlatTables::block;

/// A block of threads for each block of floats.
struct DirectionBody {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  Muon rule;
  const float* gradients;
  float* moments;
  std::int64_t n;
  const StepState* step;
  float* direction;
  double* norms;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    if (step->nonfinite != 0) return;
    const MuonDirection by(rule, *step);
    double sum = 0;
    // Neighbours by neighbouring threads: the matrix may begin anywhere.
    const std::int64_t begin = t.block() * block_floats, end = begin + block_floats < n ? begin + block_floats : n;
    for (std::int64_t i = begin + t.index(); i < end; i += threads) {
      const float u = by(gradients[i], moments[i]);
      direction[i] = u;
      sum += static_cast<double>(u) * static_cast<double>(u);
    }
    sum = group_sum<threads>(t, shared, sum);
    if (t.index() == 0) norms[t.block()] = sum;
  }
};

/// One block.
struct NormBody {
  static constexpr int threads = block_threads;
  using Shared = GroupShared<threads>;
  Muon rule;
  std::int64_t blocks;
  double* norms;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    double sum = 0;
    for (std::int64_t b = t.index(); b < blocks; b += threads) sum += norms[b];
    sum = group_sum<threads>(t, shared, sum);
    if (t.index() == 0) norms[blocks] = static_cast<double>(muon_norm_factor(rule, std::sqrt(sum)));
  }
};

template <class T>
struct NormalizeBody {
  const float* direction;
  const double* factor;
  T* to;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    to[i] = from_float<T>(direction[i] * static_cast<float>(*factor));
  }
};

template <class T>
struct FactorBody {
  std::int64_t side;
  const T* gram;
  T* square;
  DTRAIN_HOST_DEVICE void run(std::int64_t i) const {
    const Split at = split(i, side);
    square[i] =
        from_float<T>(dtrain::newton_schulz_factor(at.quotient == at.rest, to_float(gram[i]), to_float(square[i])));
  }
};

template <class T>
struct StepBody {
  static constexpr int threads = block_threads;
  using Shared = Raw<MuonStep, 1>;
  Muon rule;
  FlatTables tables;
  float* params;
  FlatMatrix matrix;
  const StepState* step;
  const T* orthogonal;
  bool vectors;

  template <class Thread>
  DTRAIN_HOST_DEVICE void operator()(Thread& t, Shared& shared) const {
    if (step->nonfinite != 0) return;
    if (t.index() == 0) {
      StepState own = *step;
      own.learning_rate *= matrix.rate_factor;
      *shared.values() = MuonStep(rule, own, matrix.decay, matrix.rows, matrix.columns);
    }
    t.sync();
    const MuonStep along = *shared.values();
    const FlatEntry& p = tables.params[matrix.param];
    const std::int64_t end = matrix.begin + matrix.size(), quads = (end + quad - 1) / quad;
    for (std::int64_t i = matrix.begin / quad + t.block() * threads + t.index(); i < quads; i += t.blocks() * threads) {
      const Quad q = quad_of(i * quad, matrix.begin, end, vectors);
      Floats<quad> w = load_quad(params, q);
      for (int j = 0; j < quad; ++j)
        if (q.has(j)) along(to_float(orthogonal[q.at + j - matrix.begin]), w.v[j]);
      store_quad(params, q, w);
      store_packed(p, q, w);
    }
  }
};

}  // namespace

void muon_direction(const Launch& where, const Muon& rule, const FlatRange& r, const FlatMatrix& m,
                    const StepState* step, float* direction, double* norms) {
  launch(where, divide_up(m.size(), block_floats),
         DirectionBody{rule, r.gradients + m.begin, r.state[0] + (m.begin - r.state_begin), m.size(), step, direction,
                       norms});
}

void muon_norm(const Launch& where, const Muon& rule, std::int64_t n, double* norms) {
  launch(where, 1, NormBody{rule, divide_up(n, block_floats), norms});
}

void muon_normalize(const Launch& where, Element element, std::int64_t n, const float* direction, const double* norms,
                    void* to) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_count(where, n, NormalizeBody<T>{direction, norms + divide_up(n, block_floats), static_cast<T*>(to)});
  });
}

void newton_schulz_factor(const Launch& where, Element element, std::int64_t side, const void* gram, void* square) {
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    for_count(where, side * side, FactorBody<T>{side, static_cast<const T*>(gram), static_cast<T*>(square)});
  });
}

void muon_step(const Launch& where, Element element, const Muon& rule, const FlatTables& tables, const FlatRange& r,
               const FlatMatrix& m, const StepState* step, const void* orthogonal) {
  constexpr std::int64_t most = 2048;  // the constants are worked out once a block
  const std::int64_t blocks = divide_up(divide_up(m.size(), quad) + 1, block_threads);
  with_element(element, [&](auto tag) {
    using T = decltype(tag);
    launch(where, blocks < most ? blocks : most,
           StepBody<T>{rule, tables, r.params, m, step, static_cast<const T*>(orthogonal), aligned(r.params)});
  });
}

}  // namespace dtrain::cuda
