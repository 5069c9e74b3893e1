#include "runtime/plan/flat.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <xxhash.h>

#include "runtime/random/rng.hpp"

namespace dtrain {

const FlatParam& FlatLayout::of(ParamId id) const {
  for (const auto& p : params)
    if (p.id == id) return p;
  throw BugError(fmt::format("parameter {} is not in the flat layout", id));
}

std::span<const FlatParam> FlatLayout::trained() const noexcept {
  const auto end = std::find_if(params.begin(), params.end(), [](const FlatParam& p) { return p.update.frozen; });
  return {params.begin(), end};
}
std::span<const FlatParam> FlatLayout::frozen() const noexcept {
  return std::span(params).subspan(trained().size());
}

Bucket parameters_of(const FlatLayout& layout, std::size_t bucket) {
  const Bucket& b = layout.buckets.at(bucket);
  return {std::min(b.begin, layout.param_floats), std::min(b.end, layout.param_floats)};
}

Bucket shard_of(const FlatLayout& layout, std::size_t bucket, Shard shard) {
  const Bucket all = parameters_of(layout, bucket);
  const auto rank = static_cast<std::size_t>(shard.rank), ranks = static_cast<std::size_t>(shard.ranks);
  if (ranks > 1 && !layout.whole_shards.empty())
    return {std::clamp(layout.whole_shards.at(rank), all.begin, all.end),
            std::clamp(layout.whole_shards.at(rank + 1), all.begin, all.end)};
  const std::size_t floats = (all.end - all.begin) / ranks;
  if (floats * ranks != all.end - all.begin)
    throw BugError(fmt::format("bucket {} cannot be shared by {} ranks", bucket, ranks));
  return {all.begin + rank * floats, all.begin + (rank + 1) * floats};
}

std::size_t optimizer_state_floats(const FlatLayout& layout, Shard shard) {
  if (shard.ranks == 1) return layout.total_floats();
  const auto rank = static_cast<std::size_t>(shard.rank), ranks = static_cast<std::size_t>(shard.ranks);
  if (layout.whole_shards.empty()) return layout.param_floats / ranks;
  return layout.whole_shards.at(rank + 1) - layout.whole_shards.at(rank);
}

std::size_t most_optimizer_state_floats(const FlatLayout& layout, int shards) {
  std::size_t most = 0;
  for (int r = 0; r < shards; ++r) most = std::max(most, optimizer_state_floats(layout, {r, shards}));
  return most;
}

std::vector<std::size_t> cut_whole_shards(std::span<const FlatParam> params, std::size_t param_floats, int shards) {
  const auto end_of = [&](std::size_t i) { return i + 1 < params.size() ? params[i + 1].offset : param_floats; };
  // Runs of at most `longest`, each as long as can be; empty where they are too many.
  const auto cut = [&](std::size_t longest) {
    std::vector<std::size_t> cuts{0};
    for (std::size_t i = 0; i < params.size(); ++i) {
      if (end_of(i) - params[i].offset > longest) return std::vector<std::size_t>();
      if (end_of(i) - cuts.back() > longest) cuts.push_back(params[i].offset);
    }
    if (cuts.size() > static_cast<std::size_t>(shards)) return std::vector<std::size_t>();
    cuts.resize(static_cast<std::size_t>(shards) + 1, param_floats);
    return cuts;
  };
  std::size_t low = 0, high = param_floats;  // of what is too short, and what is long enough
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    (cut(middle).empty() ? low : high) = middle;
  }
  return cut(high);
}

std::vector<Bucket> cut_buckets(std::size_t total, const BucketOptions& o, std::size_t tail) {
  const auto floats = [](double mib) { return static_cast<std::size_t>(mib * 1024 * 1024 / sizeof(float)); };
  // Floats: cuts stay 4 KiB apart from each other and aligned for every kernel, a shard at least.
  const std::size_t grain = norm_block * static_cast<std::size_t>(o.whole ? 1 : o.shards);
  const auto at_least = static_cast<std::size_t>(std::max(o.at_least, 1));
  std::size_t largest = std::min(floats(o.bucket_mib), std::max(total / at_least, floats(o.smallest_mib)));
  largest = std::max(largest / grain * grain, grain);
  if (total <= largest) return {{0, total}};
  const std::size_t last = std::max(std::clamp(floats(o.last_bucket_mib) / grain * grain, grain, largest), tail);
  if (total <= last) return {{0, total}};
  const std::size_t head = total - last;
  const std::size_t count = (head + largest - 1) / largest;
  std::vector<Bucket> buckets;
  std::size_t begin = 0;
  for (std::size_t i = 1; i <= count; ++i) {
    const std::size_t end = std::max(begin, head * i / count / grain * grain);
    if (end > begin) buckets.push_back({begin, end});
    begin = end;
  }
  buckets.push_back({begin, total});
  return buckets;
}

ParameterStore::ParameterStore(Device& device, const FlatLayout& layout, Memory* memory)
    : layout_(layout),
      params_(memory ? *memory : device, layout.all_floats() * sizeof(float)),
      gradients_(memory ? *memory : device, layout.total_floats() * sizeof(float)) {
  auto stream = device.make_stream(StreamUse::compute);
  device.zero(params_.data(), params_.bytes(), *stream);
  device.zero(gradients_.data(), gradients_.bytes(), *stream);
  stream->synchronize();
}

namespace {
template <class Place>
Tensor flat_view(float* base, const Place& p) {
  return {{DType::f32, p.shape}, base + p.offset};
}
}  // namespace

Tensor ParameterStore::param(ParamId id) const {
  return flat_view(params(), layout_.of(id));
}
Tensor ParameterStore::gradient(ParamId id) const {
  const FlatParam& p = layout_.of(id);
  if (p.update.frozen) throw BugError(fmt::format("{} is frozen: it has no gradient", p.name));
  return flat_view(gradients(), p);
}

Tensor ParameterStore::state(StateId id) const {
  return flat_view(params(), layout_.states.at(static_cast<std::size_t>(id)));
}
Tensor ParameterStore::state_sums(StateId id) const {
  return flat_view(gradients(), layout_.states.at(static_cast<std::size_t>(id)));
}

Tensor ParameterStore::bucket(std::size_t index) const {
  const Bucket& b = layout_.buckets.at(index);
  return {{DType::f32, Shape{static_cast<std::int64_t>(b.end - b.begin)}}, gradients() + b.begin};
}

static_assert(sums_per_loss == loss_sum_count);
Tensor ParameterStore::loss_sums(std::size_t loss) const {
  if (loss >= layout_.losses) throw BugError(fmt::format("sums of loss {} of {}", loss, layout_.losses));
  return {{DType::f32, Shape{static_cast<std::int64_t>(loss_sum_count)}},
          gradients() + layout_.state_end() + loss * sums_per_loss};
}

void initialize(float* flat, const FlatLayout& layout, const Graph& graph, std::uint64_t seed) {
  const RandomKey key = random_key(seed, Purpose::init);
  for (const auto& p : layout.params) {
    const Init& init = graph.params().at(static_cast<std::size_t>(p.id)).init;
    float* out = flat + p.offset;
    switch (init.kind) {
      case Init::Kind::zeros:
        std::fill_n(out, p.size, 0.0f);
        break;
      case Init::Kind::ones:
        std::fill_n(out, p.size, 1.0f);
        break;
      case Init::Kind::uniform:
        for (std::size_t i = 0; i < p.size; ++i) {
          const Random4 r = draw4(key, static_cast<std::uint64_t>(p.id), 0, static_cast<std::uint32_t>(i / 4));
          out[i] = (2.0f * to_unit(r.v[i % 4]) - 1.0f) * static_cast<float>(init.scale);
        }
        break;
      case Init::Kind::normal:  // Box and Muller 1958, two draws an element
        for (std::size_t i = 0; i < p.size; ++i) {
          const Random4 r = draw4(key, static_cast<std::uint64_t>(p.id), 0, static_cast<std::uint32_t>(i / 2));
          const double u = 1.0 - to_unit(r.v[i % 2 * 2]), v = to_unit(r.v[i % 2 * 2 + 1]);
          out[i] = static_cast<float>(init.scale * std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * M_PI * v));
        }
        break;
    }
  }
  for (const FlatState& s : layout.states) std::fill_n(flat + s.offset, s.size, s.initial);
}

std::string parameter_hash(const float* flat, const FlatLayout& layout) {
  return parameter_hash(flat, std::span(layout.params));
}

std::string parameter_hash(const float* flat, std::span<const FlatParam> params) {
  std::vector<const FlatParam*> by_name;
  for (const auto& p : params) by_name.push_back(&p);
  std::sort(by_name.begin(), by_name.end(), [](const FlatParam* a, const FlatParam* b) { return a->name < b->name; });
  struct FreeState {
    void operator()(XXH3_state_t* s) const noexcept { XXH3_freeState(s); }
  };
  const std::unique_ptr<XXH3_state_t, FreeState> state(XXH3_createState());
  XXH3_64bits_reset(state.get());
  for (const FlatParam* p : by_name) {
    const std::string head = p->name + p->shape.str();
    XXH3_64bits_update(state.get(), head.data(), head.size());
    XXH3_64bits_update(state.get(), flat + p->offset, p->size * sizeof(float));
  }
  return fmt::format("{:016x}", static_cast<std::uint64_t>(XXH3_64bits_digest(state.get())));
}

}  // namespace dtrain
