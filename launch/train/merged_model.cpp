#include "launch/train/merged_model.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "launch/config/config_file.hpp"
#include "launch/train/start_weights.hpp"
#include "models/model/build.hpp"
#include "runtime/plan/flat.hpp"
#include "runtime/plan/plan.hpp"
#include "runtime/ranks/group.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain::launch {

namespace {

std::span<float> values_of(const FlatLayout& layout, float* flat, const std::string& name) {
  const auto at =
      std::find_if(layout.params.begin(), layout.params.end(), [&](const FlatParam& p) { return p.name == name; });
  if (at == layout.params.end()) throw BugError("the model has no parameter " + name);
  return {flat + at->offset, at->size};
}

void merge_adapters(const FlatLayout& layout, const models::Lora& lora, float* flat, const io::GivenUp& given_up) {
  const std::string behind = fmt::format("{}.weight", models::lora_a);
  for (const FlatParam& p : layout.params) {
    if (!p.name.ends_with(behind)) continue;
    io::check_export_wanted(given_up);
    const std::string layer = p.name.substr(0, p.name.size() - behind.size());
    models::merge_adapter(values_of(layout, flat, layer + ".weight"), values_of(layout, flat, p.name),
                          values_of(layout, flat, fmt::format("{}{}.weight", layer, models::lora_b)), lora.rank,
                          lora.factor());
  }
}

}  // namespace

std::vector<io::StateTensor> MergedModel::read(const std::string& checkpoint, const io::RunState& state, bool averaged,
                                               const io::GivenUp& given_up) {
  constexpr std::int64_t batch = 2;  // what a batch norm needs; parameters do not depend on it
  RunConfig config = parse_config(state.configuration, "the checkpoint's configuration").config;
  PlanOptions options;
  options.train = false;
  const Plan plan =
      make_plan(models::build(config.model, batch, DType::f32, {}, models::BuildFor::prediction), options);
  const FlatLayout& layout = plan.layout;
  flat_.assign(layout.all_floats(), 0.0f);
  const std::string place =
      base_.empty() ? fmt::format(
                          "the base is read from {}, as the checkpoint's configuration says: put it there, or "
                          "name its place with dtrain checkpoint export --base",
                          config.model.initialize_from.path)
                    : fmt::format("the base is read from {}, as --base says", base_);
  if (!base_.empty()) config.model.initialize_from.path = base_;
  std::string hash;
  try {
    hash = read_base(config.model, layout, plan.graph, state.seed, flat_.data());
  } catch (const DataError& e) {
    throw DataError(fmt::format("{}; {}", e.what(), place));
  } catch (const CheckpointError& e) {
    throw CheckpointError(fmt::format("{}; {}", e.what(), place), e.kind());
  }
  check_base(checkpoint, state, config.model, hash, place);
  io::check_export_wanted(given_up);

  std::vector<io::StateTensor> tensors, saved, states;
  io::append_flat(tensors, "param/", layout.params, flat_.data());
  io::append_flat(saved, averaged ? "ema/" : "param/", layout.trained(), flat_.data());
  for (const FlatState& s : layout.states)
    if (s.kept) states.push_back({"state/" + s.name, DType::f32, s.shape, flat_.data() + s.offset});
  saved.insert(saved.end(), states.begin(), states.end());
  const std::string_view skipped[] = {"optimizer/", averaged ? "param/" : "ema/"};
  SoloGroup alone;
  io::load_checkpoint(alone, checkpoint, saved, io::posix_file_system(), skipped);
  merge_adapters(layout, config.model.lora, flat_.data(), given_up);
  std::erase_if(tensors, [](const io::StateTensor& t) { return models::is_adapter(t.name); });
  tensors.insert(tensors.end(), states.begin(), states.end());
  return tensors;
}

}  // namespace dtrain::launch
