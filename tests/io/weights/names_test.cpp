// Names of transformers, torchvision and timm: what is made of their files, and that what is written under them is read
// back bit for bit.
#include "io/weights/names.hpp"

#include <cstring>
#include <numeric>

#include "io/weights/safetensors.hpp"
#include "io/weights/weights.hpp"
#include "runtime/random/rng.hpp"
#include "tests/io/checkpoint/checkpoint_support.hpp"
#include "tests/io/hdf5/hdf5_files.hpp"

namespace dtrain::test {
namespace {

using io::Dims;
using io::testing::message_of;
using Names = std::vector<std::string>;

constexpr auto all = [](const std::string&) { return true; };

/// Parameters of a model, zeros at first.
struct Model {
  explicit Model(std::vector<std::pair<std::string, Shape>> shapes) : parameters(std::move(shapes)) {
    for (const auto& [name, shape] : parameters) values.emplace_back(static_cast<std::size_t>(shape.elements()));
  }
  void draw() {
    for (std::size_t p = 0; p < values.size(); ++p)
      for (std::size_t e = 0; e < values[p].size(); ++e)
        values[p][e] = to_unit(draw4(random_key(1, Purpose::test), p, 0, static_cast<std::uint32_t>(e)).v[0]) - 0.5F;
  }
  std::vector<io::StateTensor> tensors() {
    std::vector<io::StateTensor> out;
    for (std::size_t p = 0; p < values.size(); ++p)
      out.push_back({"param/" + parameters[p].first, DType::f32, parameters[p].second, values[p].data()});
    return out;
  }
  std::vector<float>& operator[](const std::string& name) {
    for (std::size_t p = 0; p < values.size(); ++p)
      if (parameters[p].first == name) return values[p];
    throw BugError(name);
  }
  std::vector<std::pair<std::string, Shape>> parameters;
  std::vector<std::vector<float>> values;
};

using Tensors = std::vector<std::pair<std::string, Dims>>;

/// The values of the file are 0, 1, 2, ...
std::string counted(const std::string& path, const Tensors& tensors) {
  std::vector<io::SafeTensor> header;
  std::size_t elements = 0;
  for (const auto& [name, shape] : tensors) {
    header.push_back({name, "F32", shape, 0, 0});
    elements += std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
  }
  std::vector<float> values(elements);
  std::iota(values.begin(), values.end(), 0.0F);
  io::SafeTensorsWriter writer(path, std::move(header), {});
  writer.write(std::as_bytes(std::span(values)));
  writer.commit();
  return path;
}

/// Under their names, as `checkpoint export` writes them.
void write_foreign(const std::string& path, const std::string& family, Model& model) {
  Names names;
  for (const auto& [name, shape] : model.parameters) names.push_back(name);
  std::vector<io::SafeTensor> header;
  std::vector<std::byte> data;
  for (std::size_t p = 0; p < names.size(); ++p) {
    const auto foreign = io::foreign_names(family)->foreign(names[p], names);
    ASSERT_TRUE(foreign) << names[p];
    const Dims here = io::dims_of(model.parameters[p].second);
    const auto shapes = io::shapes_there(foreign->layout, here, foreign->names.size());
    for (std::size_t k = 0; k < shapes.size(); ++k) header.push_back({foreign->names[k], "F32", shapes[k], 0, 0});
    const auto bytes = io::bytes_there(foreign->layout, here, std::as_bytes(std::span(model.values[p])), sizeof(float),
                                       foreign->names.size());
    data.insert(data.end(), bytes.begin(), bytes.end());
  }
  io::SafeTensorsWriter writer(path, std::move(header), {});
  writer.write(data);
  writer.commit();
}

Model gpt() {
  return Model({{"wte.weight", {7, 4}},
                {"wpe.weight", {5, 4}},
                {"h_11_ln_1.weight", {4}},
                {"h_11_ln_1.bias", {4}},
                {"h_11_attn_c_attn.weight", {12, 4}},
                {"h_11_attn_c_attn.bias", {12}}});
}
Model llama() {
  return Model({{"embed_tokens.weight", {7, 8}},
                {"layers_0_qkv_proj.weight", {16, 8}},
                {"layers_0_gate_up_proj.weight", {6, 8}},
                {"norm.weight", {8}},
                {"lm_head.weight", {7, 8}}});
}
Model bert(bool segments) {
  std::vector<std::pair<std::string, Shape>> parameters{
      {"word_embeddings.weight", {7, 4}}, {"position_embeddings.weight", {5, 4}},
      {"embeddings_norm.weight", {4}},    {"embeddings_norm.bias", {4}},
      {"layer_0_qkv.weight", {12, 4}},    {"layer_0_qkv.bias", {12}},
      {"layer_0_output.weight", {4, 6}},  {"decoder.bias", {7}}};
  if (segments) parameters.insert(parameters.begin() + 1, {"token_type_embeddings.weight", {2, 4}});
  return Model(std::move(parameters));
}
Model vit() {
  return Model({{"patches.weight", {4, 3, 2, 2}},
                {"patches.bias", {4}},
                {"class_token.weight", {4}},
                {"position_embeddings.weight", {5, 4}},
                {"layer_0_qkv.weight", {12, 4}},
                {"classifier.weight", {3, 4}}});
}

Model resnet() {
  return Model({{"conv1.weight", {4, 3, 3, 3}},
                {"layer2_0_downsample_conv.weight", {8, 4, 1, 1}},
                {"layer2_0_downsample_bn.running_mean", {8}},
                {"fc.weight", {3, 8}}});
}

TEST(ForeignNames, OfTorchvision) {
  const auto names = [](const char* family, const std::string& ours) {
    const auto foreign = io::foreign_names(family)->foreign(ours, {});
    return foreign && foreign->names.size() == 1 ? foreign->names[0] : "nothing";
  };
  EXPECT_EQ(names("resnet", "layer4_2_bn3.running_var"), "layer4.2.bn3.running_var");
  EXPECT_EQ(names("resnet", "layer2_0_downsample_conv.weight"), "layer2.0.downsample.0.weight");
  EXPECT_EQ(names("efficientnet-b0", "stage1_0_depthwise_conv.weight"), "features.1.0.block.0.0.weight");
  EXPECT_EQ(names("efficientnet-b0", "stage1_0_se_fc2.bias"), "features.1.0.block.1.fc2.bias");
  EXPECT_EQ(names("efficientnet-b0", "stage7_0_project_bn.weight"), "features.7.0.block.3.1.weight");
  EXPECT_EQ(names("efficientnet-b0", "classifier.bias"), "classifier.1.bias");
  EXPECT_EQ(names("resnet", "layer5_0_bn1.weight"), "nothing");
}

TEST(ForeignNames, OfTimm) {
  const auto* map = io::foreign_names("efficientnet-b0", io::Library::timm);
  for (const auto& [ours, theirs] : {std::pair{"stem_conv.weight", "conv_stem.weight"},
                                     {"stem_bn.running_mean", "bn1.running_mean"},
                                     {"stage1_0_depthwise_conv.weight", "blocks.0.0.conv_dw.weight"},
                                     {"stage1_0_project_bn.bias", "blocks.0.0.bn2.bias"},
                                     {"stage4_2_expand_conv.weight", "blocks.3.2.conv_pw.weight"},
                                     {"stage4_2_se_fc2.bias", "blocks.3.2.se.conv_expand.bias"},
                                     {"stage7_0_project_conv.weight", "blocks.6.0.conv_pwl.weight"},
                                     {"stage7_0_project_bn.weight", "blocks.6.0.bn3.weight"},
                                     {"head_bn.weight", "bn2.weight"},
                                     {"classifier.bias", "classifier.bias"}})
    EXPECT_EQ(map->foreign(ours, {})->names, Names{theirs});
  EXPECT_EQ(io::foreign_names("resnet", io::Library::timm), io::foreign_names("resnet"));
  EXPECT_EQ(io::foreign_names("gpt", io::Library::timm), nullptr);
}

TEST(ForeignNames, WhoseTheyAreIsFoundOut) {
  Scratch scratch;
  const Tensors timm{{"conv_stem.weight", {4, 3, 3, 3}}, {"blocks.6.0.bn3.weight", {8}}, {"classifier.weight", {3, 8}}};
  const Tensors torchvision{
      {"features.0.0.weight", {4, 3, 3, 3}}, {"features.7.0.block.3.1.weight", {8}}, {"classifier.1.weight", {3, 8}}};
  for (const Tensors& tensors : {timm, torchvision})
    for (const std::string wrapper : {"", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."}) {
      Tensors wrapped = tensors;
      for (auto& [name, shape] : wrapped) name.insert(0, wrapper);
      Model model(
          {{"stem_conv.weight", {4, 3, 3, 3}}, {"stage7_0_project_bn.weight", {8}}, {"classifier.weight", {3, 8}}});
      const auto path = counted(scratch / "a.safetensors", wrapped);
      const auto result = io::load_weights(path, "efficientnet-b0", model.tensors(), all);
      EXPECT_EQ(result.taken.size(), 3u) << wrapper;
      EXPECT_TRUE(result.unused.empty()) << wrapper;
      EXPECT_EQ(model["classifier.weight"][0], 4.0F * 3 * 3 * 3 + 8) << wrapper;
    }
}

TEST(ForeignNames, FilesOfTorchSaveAreToldWhatToDo) {
  Scratch scratch;
  Model model = resnet();
  for (const char* begin : {"PK\x03\x04 and the rest", "\x80\x02\x8a\x0a and the rest"}) {
    write_file(scratch / "r18.pt", begin);
    EXPECT_HAS(message_of<DataError>([&] { io::load_weights(scratch / "r18.pt", "resnet", model.tensors(), all); }),
               "is a file of torch.save, which only Python can read; write its state dictionary as safetensors");
  }
}

TEST(ForeignNames, WhatIsWrittenIsReadBackBitForBit) {
  Scratch scratch;
  for (const auto& [family, model] : {std::pair<std::string, Model>{"gpt", gpt()},
                                      {"llama", llama()},
                                      {"bert", bert(false)},
                                      {"bert", bert(true)},
                                      {"vit", vit()},
                                      {"resnet", resnet()}}) {
    Model written = model, read = model;
    written.draw();
    written.values[1][0] = -0.0F;
    const auto path = scratch / "model.safetensors";
    write_foreign(path, family, written);
    const auto result = io::load_weights(scratch / ".", family, read.tensors(), all);
    EXPECT_EQ(result.source, scratch / "./model.safetensors");
    EXPECT_EQ(result.taken.size(), model.parameters.size()) << family;
    EXPECT_TRUE(result.absent.empty() && result.other_shape.empty()) << family;
    // Where the model has no segments, a row of zeros is written for them, and belongs to the positions.
    EXPECT_TRUE(result.unused.empty()) << family << ": " << result.unused.at(0);
    for (std::size_t p = 0; p < read.values.size(); ++p)
      EXPECT_EQ(std::memcmp(read.values[p].data(), written.values[p].data(), 4 * read.values[p].size()), 0)
          << family << ", " << model.parameters[p].first;
  }
}

TEST(ForeignNames, OfGpt2WithAndWithoutThePrefix) {
  Scratch scratch;
  for (const std::string prefix : {"", "transformer."}) {
    Tensors tensors{{prefix + "wte.weight", {7, 4}},
                    {prefix + "wpe.weight", {9, 4}},
                    {prefix + "h.11.ln_1.weight", {4}},
                    {prefix + "h.11.attn.c_attn.weight", {4, 12}},
                    {prefix + "h.11.attn.bias", {1, 1, 5, 5}},
                    {prefix + "h.11.attn.masked_bias", {}},
                    {"lm_head.weight", {7, 4}},
                    {prefix + "h.12.ln_1.weight", {4}}};
    Model model = gpt();
    const auto result = io::load_weights(counted(scratch / "a.safetensors", tensors), "gpt", model.tensors(), all);
    EXPECT_EQ(result.taken, (Names{"wte.weight", "h_11_ln_1.weight", "h_11_attn_c_attn.weight"}));
    EXPECT_EQ(result.absent, (Names{"h_11_ln_1.bias", "h_11_attn_c_attn.bias"}));
    EXPECT_EQ(result.other_shape, Names{"wpe.weight is [9, 4] there and [5, 4] here"});
    EXPECT_EQ(result.unused, Names{prefix + "h.12.ln_1.weight"});
    const float first = 7 * 4 + 9 * 4 + 4;  // of c_attn, which is stored as [inputs, outputs]
    EXPECT_EQ(model["h_11_attn_c_attn.weight"][1], first + 12.0F);
    EXPECT_EQ(model["h_11_attn_c_attn.weight"][4], first + 1.0F);
  }
}

TEST(ForeignNames, OldNamesOfNormsAndTheOnlySegmentsRow) {
  Scratch scratch;
  const auto path = counted(scratch / "a.safetensors", {{"embeddings.LayerNorm.gamma", {4}},
                                                        {"embeddings.LayerNorm.beta", {4}},
                                                        {"embeddings.token_type_embeddings.weight", {2, 4}},
                                                        {"embeddings.position_embeddings.weight", {5, 4}},
                                                        {"embeddings.position_ids", {1, 5}},
                                                        {"pooler.dense.weight", {4, 4}}});
  Model one = bert(false), two = bert(true);
  auto result = io::load_weights(path, "bert", one.tensors(), all);
  EXPECT_EQ(result.taken, (Names{"position_embeddings.weight", "embeddings_norm.weight", "embeddings_norm.bias"}));
  EXPECT_EQ(result.unused, Names{"pooler.dense.weight"});
  EXPECT_EQ(one["embeddings_norm.bias"], (std::vector<float>{4, 5, 6, 7}));
  EXPECT_EQ(one["position_embeddings.weight"][5], 30.0F) << "row 1, column 1, and row 0 of the segments";
  io::load_weights(path, "bert", two.tensors(), all);
  EXPECT_EQ(two["position_embeddings.weight"][5], 21.0F);
  EXPECT_EQ(two["token_type_embeddings.weight"][7], 15.0F);
}

TEST(ForeignNames, PartsThatDoNotFitTogetherAreNamed) {
  Scratch scratch;
  Model model = llama();
  const auto part = [](const char* which) { return fmt::format("model.layers.0.self_attn.{}_proj.weight", which); };
  const auto path = counted(scratch / "a.safetensors", {{part("q"), {8, 8}}, {part("k"), {4, 8}}, {part("v"), {4, 7}}});
  EXPECT_HAS(message_of<DataError>([&] { io::load_weights(path, "llama", model.tensors(), all); }),
             "layers_0_qkv_proj.weight is made of shapes [12, 8] and [4, 7]");
}

TEST(ForeignNames, ShardsAreOneModel) {
  Scratch scratch;
  counted(scratch / "model-1.safetensors", {{"model.norm.weight", {8}}});
  counted(scratch / "model-2.safetensors", {{"model.embed_tokens.weight", {7, 8}}});
  const auto index = scratch / "model.safetensors.index.json";
  write_file(index, R"({"metadata": {}, "weight_map": {"model.norm.weight": "model-1.safetensors",
                        "model.embed_tokens.weight": "model-2.safetensors"}})");
  Model model = llama();
  const auto result = io::load_weights(scratch / ".", "llama", model.tensors(), all);
  EXPECT_EQ(result.taken, (Names{"embed_tokens.weight", "norm.weight"}));
  EXPECT_EQ(model["norm.weight"][7], 7.0F);
  EXPECT_EQ(model["embed_tokens.weight"][55], 55.0F);
  for (const auto& [text, says] : {std::pair{R"({"weight_map": {"a": "../a.safetensors"}})", "names the file"},
                                   {R"({"weight_map": {"a": 1}})", "is no index of shards"},
                                   {R"({"weight_map": {}})", "names no files"},
                                   {R"({"weight_map": {"a": "absent"}})", "absent: cannot be read as safetensors"},
                                   {"{", "is no index of shards"}}) {
    write_file(index, text);
    EXPECT_HAS(message_of<DataError>([&] { io::load_weights(scratch / ".", "llama", model.tensors(), all); }), says);
  }
}

}  // namespace
}  // namespace dtrain::test
