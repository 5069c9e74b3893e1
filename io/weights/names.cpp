#include "io/weights/names.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "runtime/tensor/error.hpp"

namespace dtrain::io {
namespace {

/// What stands for the `*`, which is a number; empty where there is none in the pattern. Nothing: no match.
std::optional<std::string_view> match(std::string_view pattern, std::string_view name) {
  const auto star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == name ? std::optional(std::string_view()) : std::nullopt;
  const auto before = pattern.substr(0, star), behind = pattern.substr(star + 1);
  if (name.size() <= before.size() + behind.size() || !name.starts_with(before) || !name.ends_with(behind))
    return std::nullopt;
  const auto number = name.substr(star, name.size() - before.size() - behind.size());
  const bool digits = std::all_of(number.begin(), number.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return digits ? std::optional(number) : std::nullopt;
}

std::string with_number(std::string_view pattern, std::string_view number) {
  const auto star = pattern.find('*');
  if (star == std::string_view::npos) return std::string(pattern);
  return fmt::format("{}{}{}", pattern.substr(0, star), number, pattern.substr(star + 1));
}

/// One element behind the other: [rows, columns] as [columns, rows].
template <class Copy>
void transpose(std::uint64_t rows, std::uint64_t columns, const Copy& copy) {
  for (std::uint64_t r = 0; r < rows; ++r)
    for (std::uint64_t c = 0; c < columns; ++c) copy(c * rows + r, r * columns + c);
}

NameMap gpt() {
  constexpr auto transposed = Layout::transposed;
  return {"transformer.",
          {{"wte", {"transformer.wte"}},
           {"wpe", {"transformer.wpe"}},
           {"h_*_ln_1", {"transformer.h.*.ln_1"}},
           {"h_*_attn_c_attn", {"transformer.h.*.attn.c_attn"}, transposed},
           {"h_*_attn_c_proj", {"transformer.h.*.attn.c_proj"}, transposed},
           {"h_*_ln_2", {"transformer.h.*.ln_2"}},
           {"h_*_mlp_c_fc", {"transformer.h.*.mlp.c_fc"}, transposed},
           {"h_*_mlp_c_proj", {"transformer.h.*.mlp.c_proj"}, transposed},
           {"ln_f", {"transformer.ln_f"}}},
          {"transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias", "lm_head.weight"}};
}

NameMap llama() {
  return {"model.",
          {{"embed_tokens", {"model.embed_tokens"}},
           {"layers_*_input_norm", {"model.layers.*.input_layernorm"}},
           {"layers_*_qkv_proj",
            {"model.layers.*.self_attn.q_proj", "model.layers.*.self_attn.k_proj", "model.layers.*.self_attn.v_proj"},
            Layout::query_key_value},
           {"layers_*_o_proj", {"model.layers.*.self_attn.o_proj"}},
           {"layers_*_post_attn_norm", {"model.layers.*.post_attention_layernorm"}},
           {"layers_*_gate_up_proj", {"model.layers.*.mlp.gate_proj", "model.layers.*.mlp.up_proj"}, Layout::stacked},
           {"layers_*_down_proj", {"model.layers.*.mlp.down_proj"}},
           {"norm", {"model.norm"}},
           {"lm_head", {"lm_head"}}},
          {"model.layers.*.self_attn.rotary_emb.inv_freq"}};
}

NameMap bert() {
  return {"bert.",
          {{"word_embeddings", {"bert.embeddings.word_embeddings"}},
           {"token_type_embeddings", {"bert.embeddings.token_type_embeddings"}},
           {"position_embeddings",
            {"bert.embeddings.position_embeddings", "bert.embeddings.token_type_embeddings"},
            Layout::with_first_row},
           {"embeddings_norm", {"bert.embeddings.LayerNorm"}},
           {"layer_*_qkv",
            {"bert.encoder.layer.*.attention.self.query", "bert.encoder.layer.*.attention.self.key",
             "bert.encoder.layer.*.attention.self.value"},
            Layout::stacked},
           {"layer_*_attention_output", {"bert.encoder.layer.*.attention.output.dense"}},
           {"layer_*_attention_norm", {"bert.encoder.layer.*.attention.output.LayerNorm"}},
           {"layer_*_intermediate", {"bert.encoder.layer.*.intermediate.dense"}},
           {"layer_*_output", {"bert.encoder.layer.*.output.dense"}},
           {"layer_*_output_norm", {"bert.encoder.layer.*.output.LayerNorm"}},
           {"pooler", {"bert.pooler.dense"}},
           {"classifier", {"classifier"}},
           {"transform", {"cls.predictions.transform.dense"}},
           {"transform_norm", {"cls.predictions.transform.LayerNorm"}},
           {"decoder.bias", {"cls.predictions.bias"}}},
          {"bert.embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}};
}

NameMap vit() {
  return {"vit.",
          {{"patches", {"vit.embeddings.patch_embeddings.projection"}},
           {"class_token.weight", {"vit.embeddings.cls_token"}, Layout::one_sample},
           {"position_embeddings.weight", {"vit.embeddings.position_embeddings"}, Layout::one_sample},
           {"layer_*_norm_before", {"vit.encoder.layer.*.layernorm_before"}},
           {"layer_*_qkv",
            {"vit.encoder.layer.*.attention.attention.query", "vit.encoder.layer.*.attention.attention.key",
             "vit.encoder.layer.*.attention.attention.value"},
            Layout::stacked},
           {"layer_*_attention_output", {"vit.encoder.layer.*.attention.output.dense"}},
           {"layer_*_norm_after", {"vit.encoder.layer.*.layernorm_after"}},
           {"layer_*_intermediate", {"vit.encoder.layer.*.intermediate.dense"}},
           {"layer_*_output", {"vit.encoder.layer.*.output.dense"}},
           {"norm", {"vit.layernorm"}},
           {"classifier", {"classifier"}}},
          {}};
}

NameMap resnet() {
  std::vector<NameMap::Rule> rules{{"conv1", {"conv1"}}, {"bn1", {"bn1"}}, {"fc", {"fc"}}};
  for (int stage = 1; stage <= 4; ++stage) {
    const auto add = [&](const std::string& ours, const std::string& theirs) {
      rules.push_back({fmt::format("layer{}_*_{}", stage, ours), {fmt::format("layer{}.*.{}", stage, theirs)}});
    };
    for (const char* part : {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}) add(part, part);
    add("downsample_conv", "downsample.0");
    add("downsample_bn", "downsample.1");
  }
  return {"", std::move(rules), {}};
}

NameMap efficientnet_b0() {
  std::vector<NameMap::Rule> rules{{"stem_conv", {"features.0.0"}},
                                   {"stem_bn", {"features.0.1"}},
                                   {"head_conv", {"features.8.0"}},
                                   {"head_bn", {"features.8.1"}},
                                   {"classifier", {"classifier.1"}}};
  for (int stage = 1; stage <= 7; ++stage) {
    int part = 0;
    const auto add = [&](const std::string& ours, const std::string& theirs) {
      rules.push_back(
          {fmt::format("stage{}_*_{}", stage, ours), {fmt::format("features.{}.*.block.{}.{}", stage, part, theirs)}});
    };
    const auto add_conv = [&](const std::string& name) {
      add(name + "_conv", "0");
      add(name + "_bn", "1");
      ++part;
    };
    if (stage > 1) add_conv("expand");  // the first stage does not expand
    add_conv("depthwise");
    add("se_fc1", "fc1");
    add("se_fc2", "fc2");
    ++part;
    add_conv("project");
  }
  return {"", std::move(rules), {}};
}

/// timm 1.0, EfficientNet: the first stage does not expand, so that its convolutions and norms are numbered otherwise.
NameMap efficientnet_b0_of_timm() {
  std::vector<NameMap::Rule> rules{{"stem_conv", {"conv_stem"}},
                                   {"stem_bn", {"bn1"}},
                                   {"head_conv", {"conv_head"}},
                                   {"head_bn", {"bn2"}},
                                   {"classifier", {"classifier"}}};
  for (int stage = 1; stage <= 7; ++stage) {
    const auto add = [&](const std::string& ours, const std::string& theirs) {
      rules.push_back({fmt::format("stage{}_*_{}", stage, ours), {fmt::format("blocks.{}.*.{}", stage - 1, theirs)}});
    };
    int norm = 0;
    const auto add_conv = [&](const std::string& ours, const std::string& theirs) {
      add(ours + "_conv", theirs);
      add(ours + "_bn", fmt::format("bn{}", ++norm));
    };
    if (stage > 1) add_conv("expand", "conv_pw");
    add_conv("depthwise", "conv_dw");
    add("se_fc1", "se.conv_reduce");
    add("se_fc2", "se.conv_expand");
    add_conv("project", stage > 1 ? "conv_pwl" : "conv_pw");
  }
  return {"", std::move(rules), {}};
}

}  // namespace

std::optional<ForeignTensor> NameMap::foreign(const std::string& ours, std::span<const std::string> model) const {
  const auto dot = std::min(ours.rfind('.'), ours.size());
  const std::string stem = ours.substr(0, dot), which = ours.substr(dot);
  for (const Rule& rule : rules_) {
    const auto whole = match(rule.ours, ours);
    const auto number = whole ? whole : match(rule.ours, stem);
    if (!number) continue;
    ForeignTensor found{{}, rule.layout};
    for (const auto& theirs : rule.theirs)
      found.names.push_back(with_number(theirs, *number) + (whole ? std::string() : which));
    // A row that the model has as a tensor of its own is not folded.
    if (rule.layout == Layout::with_first_row) {
      const auto alone = std::find_if(rules_.begin(), rules_.end(), [&](const Rule& other) {
        return other.theirs.size() == 1 && other.theirs[0] == rule.theirs[1];
      });
      if (alone != rules_.end() &&
          std::find(model.begin(), model.end(), std::string(alone->ours) + which) != model.end())
        found = {{found.names[0]}, Layout::same};
    }
    return found;
  }
  return std::nullopt;
}

std::string NameMap::canonical(const std::string& theirs) const {
  std::string name = theirs;
  for (const auto& [old, now] : {std::pair{".gamma", ".weight"}, std::pair{".beta", ".bias"}})
    if (name.ends_with(old)) name.replace(name.size() - std::strlen(old), std::string::npos, now);
  const auto known = [&](const std::string& candidate) {
    const auto is = [&](std::string_view pattern) {
      const auto dot = std::min(candidate.rfind('.'), candidate.size());
      return match(pattern, candidate) || match(pattern, std::string_view(candidate).substr(0, dot));
    };
    return std::any_of(passed_over_.begin(), passed_over_.end(), is) ||
           std::any_of(rules_.begin(), rules_.end(),
                       [&](const Rule& rule) { return std::any_of(rule.theirs.begin(), rule.theirs.end(), is); });
  };
  const std::string whole = std::string(prefix_) + name;
  return !known(name) && known(whole) ? whole : name;
}

bool NameMap::passed_over(const std::string& theirs) const {
  return std::any_of(passed_over_.begin(), passed_over_.end(),
                     [&](std::string_view pattern) { return match(pattern, theirs).has_value(); });
}

const NameMap* foreign_names(std::string_view family, Library library) {
  static const std::pair<std::string_view, NameMap> all[] = {
      {"gpt", gpt()}, {"llama", llama()},   {"bert", bert()},
      {"vit", vit()}, {"resnet", resnet()}, {"efficientnet-b0", efficientnet_b0()}};
  static const NameMap timm = efficientnet_b0_of_timm();
  if (library == Library::timm && family == "efficientnet-b0") return &timm;
  if (library == Library::timm && family != "resnet") return nullptr;
  for (const auto& [name, map] : all)
    if (name == family) return &map;
  return nullptr;
}

Dims shape_here(Layout layout, std::span<const Dims> there, std::size_t rank_here) {
  Dims shape = there[0];
  switch (layout) {
    case Layout::same:
      break;
    case Layout::transposed:
      if (shape.size() == 2) std::swap(shape[0], shape[1]);
      break;
    case Layout::one_sample:
      while (shape.size() > rank_here && shape[0] == 1) shape.erase(shape.begin());
      break;
    case Layout::stacked:
    case Layout::query_key_value:
      for (const Dims& part : there.subspan(1)) {
        if (shape.empty() || part.size() != shape.size() ||
            !std::equal(part.begin() + 1, part.end(), shape.begin() + 1))
          throw DataError(fmt::format("is made of shapes {} and {}; expected the same but for the first extent",
                                      text_of(shape), text_of(part)));
        shape[0] += part[0];
      }
      break;
    case Layout::with_first_row:
      if (there.size() > 1 && (shape.size() != 2 || there[1].size() != 2 || there[1][0] < 1 || there[1][1] != shape[1]))
        throw DataError(fmt::format("is made of shapes {} and {}; expected two matrices of as many columns",
                                    text_of(shape), text_of(there[1])));
      break;
  }
  return shape;
}

void values_here(Layout layout, std::span<const Dims> shapes, std::span<const std::vector<float>> there, float* to) {
  if (layout == Layout::transposed && shapes[0].size() == 2) {
    transpose(shapes[0][0], shapes[0][1], [&](std::uint64_t i, std::uint64_t from) { to[i] = there[0][from]; });
    return;
  }
  if (layout == Layout::with_first_row) {
    std::copy(there[0].begin(), there[0].end(), to);
    if (there.size() < 2) return;
    const std::uint64_t columns = shapes[0][1];
    for (std::size_t i = 0; i < there[0].size(); ++i)
      if (const float more = there[1][i % columns]; more != 0) to[i] += more;  // -0 stays
    return;
  }
  for (const auto& part : there) to = std::copy(part.begin(), part.end(), to);
}

std::vector<Dims> shapes_there(Layout layout, const Dims& here, std::size_t parts) {
  Dims shape = here;
  switch (layout) {
    case Layout::same:
      break;
    case Layout::transposed:
      if (shape.size() == 2) std::swap(shape[0], shape[1]);
      break;
    case Layout::one_sample:
      while (shape.size() < 3) shape.insert(shape.begin(), 1);
      break;
    case Layout::stacked:
      shape[0] /= parts;
      return std::vector<Dims>(parts, shape);
    case Layout::query_key_value: {
      if (here.size() < 2) return shapes_there(Layout::stacked, here, parts);
      std::vector<Dims> all(parts, shape);
      all[0][0] = here[1];
      for (std::size_t i = 1; i < parts; ++i) all[i][0] = (here[0] - here[1]) / (parts - 1);
      return all;
    }
    case Layout::with_first_row:
      return {shape, {2, shape[1]}};
  }
  return {shape};
}

std::vector<std::byte> bytes_there(Layout layout, const Dims& here, std::span<const std::byte> data, std::size_t size,
                                   std::size_t parts) {
  std::vector<std::byte> out(data.begin(), data.end());
  if (layout == Layout::transposed && here.size() == 2)
    transpose(here[0], here[1], [&](std::uint64_t i, std::uint64_t from) {
      std::memcpy(out.data() + i * size, data.data() + from * size, size);
    });
  if (layout == Layout::with_first_row && parts > 1) out.resize(data.size() + size * 2 * here[1]);
  return out;
}

}  // namespace dtrain::io
