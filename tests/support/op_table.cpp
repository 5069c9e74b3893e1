#include "tests/support/op_table.hpp"

#include <utility>

namespace dtrain::test {

namespace {

TensorDesc image(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
  return {DType::f32, Shape{n, h, w, c}};
}
TensorDesc series(std::int64_t n, std::int64_t t, std::int64_t c) {
  return {DType::f32, Shape{n, t, c}};
}
TensorDesc volume(std::int64_t n, std::int64_t c, std::int64_t d, std::int64_t h, std::int64_t w) {
  return {DType::f32, Shape{n, d, h, w, c}};
}
/// The first position that each may see.
TensorDesc documents(std::int64_t n, std::int64_t t) {
  return {DType::i32, Shape{n, t}};
}
TensorDesc matrix(std::int64_t n, std::int64_t d) {
  return {DType::f32, Shape{n, d}};
}

OpRow in_half(OpRow row, DType dtype) {
  row.name += dtype == DType::bf16 ? "_bf16" : "_f16";
  return in_dtype(std::move(row), dtype);
}

}  // namespace

DType dtype_of(const OpRow& row) {
  const auto of_op = [&](const auto& op) {
    if constexpr (requires { op.dtype; })
      return op.dtype;
    else
      return row.in.dtype;
  };
  return row.in.is_index() ? std::visit(of_op, row.op) : row.in.dtype;
}

bool is_loss(const OpRow& row) {
  return std::holds_alternative<SoftmaxCrossEntropy>(row.op) || std::holds_alternative<LinearCrossEntropy>(row.op) ||
         std::holds_alternative<MeanSquaredError>(row.op);
}

const std::vector<OpRow>& op_table() {
  static const std::vector<OpRow> rows = [] {
    constexpr auto relu = Activation::relu, none = Activation::none, tanh = Activation::tanh;
    TensorDesc flattened = matrix(3, 60);
    flattened.flattened = {3, 20};
    const TensorDesc small = matrix(4, 21), pixels = image(2, 5, 7, 6), norm = image(3, 17, 4, 5);
    std::vector<OpRow> table{
        {"linear", 1, Dense{9, true, none}, matrix(5, 7)},
        {"linear_relu", 2, Dense{18, true, relu}, matrix(3, 33)},
        {"linear_no_bias", 3, Dense{10, false, none}, matrix(4, 16)},
        {"linear_flattened", 4, Dense{11, true, relu}, flattened},
        {"conv_one_channel", 5, Conv{32, {3, 3}, {1, 1}, {0, 0}, true, relu}, image(2, 1, 9, 8)},
        {"conv_odd", 6, Conv{5, {3, 2}, {2, 1}, {1, 0}, false, none}, image(2, 3, 8, 7)},
        {"conv_padded", 7, Conv{32, {3, 3}, {1, 1}, {1, 1}, true, relu}, image(2, 16, 5, 5)},
        {"conv_strided", 8, Conv{16, {3, 3}, {2, 2}, {0, 0}, true, none}, image(1, 4, 8, 8)},
        {"conv_1x1", 9, Conv{7, {1, 1}, {1, 1}, {0, 0}, true, none}, image(2, 6, 3, 3)},
        {"pool", 10, MaxPool{{2, 2}, {2, 2}}, image(2, 3, 5, 7)},
        {"pool_overlapping", 11, MaxPool{{3, 2}, {1, 2}}, image(2, 5, 7, 6)},
        {"pool_padded", 40, MaxPool{{3, 3}, {2, 2}, {1, 1}}, pixels},
        {"average_pool", 41, AveragePool{{2, 2}, {2, 2}}, image(2, 3, 5, 7)},
        {"average_pool_padded", 42, AveragePool{{3, 3}, {2, 2}, {1, 1}}, pixels},
        {"average_pool_there", 43, AveragePool{{3, 2}, {1, 2}, {1, 1}, false}, image(2, 5, 6, 7)},
        {"global_average_pool", 44, GlobalAveragePool{}, image(3, 19, 4, 5)},
        {"relu", 12, Activate{relu}, small},
        {"gelu", 45, Activate{Activation::gelu}, small, {}, 4},
        {"soft_cap", 161, SoftCap{3}, small, {}, 4},
        {"gelu_tanh", 148, Activate{Activation::gelu_tanh}, small, {}, 4},
        {"silu", 46, Activate{Activation::silu}, small, {}, 4},
        {"tanh", 47, Activate{tanh}, small, {}, 4},
        {"sigmoid", 48, Activate{Activation::sigmoid}, small, {}, 4},
        {"hard_swish", 49, Activate{Activation::hard_swish}, small, {}, 4},
        {"add", 50, Add{}, small, {small}},
        {"add_relu", 51, Add{relu}, image(2, 5, 3, 4), {image(2, 5, 3, 4)}},
        {"add_tanh", 52, Add{tanh}, small, {small}},
        {"add_sigmoid", 53, Add{Activation::sigmoid}, small, {small}},
        {"add_factor", 159, Add{none, 0.75}, small, {small}},
        {"add_factor_tanh", 160, Add{tanh, -2.5}, image(2, 5, 3, 4), {image(2, 5, 3, 4)}},
        {"multiply", 54, Multiply{}, small, {small}},
        {"multiply_broadcast", 55, Multiply{}, image(2, 19, 3, 4), {image(2, 19, 1, 1)}},
        {"concat", 56, Concat{}, image(2, 3, 4, 5), {image(2, 8, 4, 5), image(2, 1, 4, 5)}},
        {"concat_features", 57, Concat{}, matrix(3, 5), {matrix(3, 7)}},
        {"batch_norm", 58, BatchNorm{}, norm},
        {"batch_norm_relu", 59, BatchNorm{1e-5, 0.1, relu}, image(2, 16, 3, 5)},
        {"batch_norm_features", 60, BatchNorm{1e-5, 0.1, tanh}, matrix(9, 21)},
        {"batch_moments", 61, BatchMoments{}, norm},
        {"batch_normalize", 62, BatchNormalize{1e-5, 0.1, relu}, norm},
        {"layer_norm", 63, LayerNorm{}, matrix(5, 37)},
        {"layer_norm_pixels", 64, LayerNorm{}, image(2, 19, 3, 4)},
        {"rms_norm", 101, RmsNorm{}, matrix(5, 37)},
        {"rms_norm_positions", 102, RmsNorm{}, {DType::f32, Shape{2, 5, 24}}},
        {"embedding", 103, Embedding{11, 21}, {DType::i32, Shape{3, 14}}, {}, 1, 11},
        {"embedding_images", 104, Embedding{5, 8}, {DType::u8, Shape{2, 3, 4}}, {}, 1, 5},
        {"gated_silu", 149, Gated{}, series(2, 5, 42), {}, 4},
        {"gated_gelu", 150, Gated{Activation::gelu}, matrix(4, 32), {}, 4},
        {"gated_sigmoid", 151, Gated{Activation::sigmoid}, matrix(4, 14), {}, 4},
        {"positions", 152, Positions{}, series(3, 5, 12)},
        {"positions_longer", 153, Positions{9}, series(2, 4, 7)},
        {"class_token", 154, ClassToken{}, series(3, 5, 12)},
        {"class_token_pixels", 155, ClassToken{}, image(2, 24, 3, 4)},
        {"sequence_pool_first", 156, SequencePool{}, series(3, 5, 12)},
        {"sequence_pool_mean", 157, SequencePool{SequencePool::Take::mean}, image(2, 7, 3, 4)},
        {"sequence_pool_documents", 158, SequencePool{SequencePool::Take::mean}, series(3, 9, 24), {documents(3, 9)}},
        {"attention", 140, Attention{.heads = 2}, series(2, 13, 36)},
        {"attention_apart",
         141,
         Attention{.heads = 4, .kv_heads = 2, .causal = false, .rotary = Rotary{}},
         series(2, 11, 32),
         {series(2, 11, 16), series(2, 11, 16)}},
        {"attention_documents", 142, Attention{.heads = 2, .causal = false}, series(2, 21, 30), {documents(2, 21)}},
        {"attention_packed",
         143,
         Attention{.heads = 4, .kv_heads = 1, .rotary = Rotary{5e5, Rotary::Scaling{8, 1, 4, 16}}},
         series(2, 19, 48),
         {documents(2, 19)},
         4},
        {"attention_window", 144, Attention{.heads = 1, .window = 5}, series(2, 17, 24)},
        {"attention_pixels", 145, Attention{.heads = 2, .causal = false, .window = 4, .scale = 0.7},
         image(2, 24, 3, 4)},
        {"attention_dropout", 146, Attention{.heads = 2, .dropout = 0.2, .id = 3}, series(2, 14, 36)},
        {"cast_to_f32", 65, Cast{DType::f32}, small},
        {"cast_to_bf16", 66, Cast{DType::bf16}, small},
        {"dropout", 13, Dropout{0.3, 3}, matrix(3, 150)},
        {"dropout_sample", 67, Dropout{0.4, 3, true}, image(8, 3, 2, 2)},
        {"conv_grouped", 100, Conv{6, {3, 3}, {1, 2}, {2, 1}, true, relu, {2, 1}, 3}, image(2, 9, 6, 5)},
        {"conv_same", 101, Conv{4, {5, 3}, {2, 1}, {Conv::same, Conv::same}, true, none, {1, 2}}, image(2, 3, 6, 5)},
        {"conv1d", 102, Conv{8, {3}, {1}, {1}, true, relu, {1}}, series(2, 9, 6)},
        {"conv1d_grouped", 103, Conv{6, {3}, {2}, {Conv::same}, false, none, {2}, 2}, series(3, 10, 4)},
        {"conv3d", 104, Conv{5, {2, 3, 3}, {1, 2, 1}, {0, 1, 1}, true, relu, {1, 1, 1}}, volume(2, 3, 4, 5, 6)},
        {"conv3d_grouped", 105, Conv{4, {3, 3, 1}, {1, 1, 1}, {1, 2, 0}, true, none, {1, 2, 1}, 2},
         volume(1, 4, 5, 5, 3)},
        {"conv_transpose1d", 106, ConvTranspose{6, {4}, {2}, {1}, {1}, true, relu, {1}}, series(2, 5, 3)},
        {"conv_transpose", 107, ConvTranspose{5, {3, 2}, {2, 1}, {1, 0}, {1, 0}, true, tanh}, image(2, 4, 4, 5)},
        {"conv_transpose_grouped", 108, ConvTranspose{6, {2, 2}, {2, 2}, {0, 0}, {0, 0}, false, none, {1, 1}, 2},
         image(2, 4, 3, 4)},
        {"conv_transpose3d", 109,
         ConvTranspose{4, {2, 3, 2}, {2, 1, 2}, {0, 1, 0}, {1, 0, 0}, true, none, {1, 2, 1}, 2}, volume(1, 6, 2, 4, 3)},
        {"pool1d", 110, MaxPool{{3}, {2}, {1}}, series(2, 9, 5)},
        {"pool3d", 111, MaxPool{{2, 3, 2}, {1, 2, 2}, {1, 1, 0}}, volume(2, 3, 4, 5, 6)},
        {"average_pool1d", 112, AveragePool{{3}, {2}, {1}}, series(2, 9, 4)},
        {"average_pool3d", 113, AveragePool{{2, 2, 3}, {2, 1, 2}, {1, 0, 1}, false}, volume(2, 3, 4, 5, 6)},
        {"global_average_pool1d", 114, GlobalAveragePool{}, series(3, 7, 5)},
        {"global_average_pool3d", 115, GlobalAveragePool{}, volume(2, 5, 3, 2, 4)},
        {"upsample1d_linear", 116, Upsample{{3}, Upsample::Mode::linear}, series(2, 5, 4)},
        {"upsample_nearest", 117, Upsample{{2, 3}}, image(2, 3, 4, 3)},
        {"upsample_linear", 118, Upsample{{2, 3}, Upsample::Mode::linear}, image(2, 3, 4, 3)},
        {"upsample3d_nearest", 119, Upsample{{2, 1, 3}}, volume(1, 5, 2, 3, 2)},
        {"upsample3d_linear", 120, Upsample{{2, 1, 4}, Upsample::Mode::linear}, volume(1, 3, 3, 1, 3)},
        {"softmax_cross_entropy", 14, SoftmaxCrossEntropy{}, matrix(7, 10)},
        {"mean_squared_error", 15, MeanSquaredError{}, matrix(7, 5)},
        {"cross_entropy_series", 130, SoftmaxCrossEntropy{}, series(3, 5, 11)},
        {"cross_entropy_images", 131, SoftmaxCrossEntropy{0, 2}, image(2, 6, 3, 4), {}, 1, 0, DType::u8, true},
        {"cross_entropy_volumes", 132, SoftmaxCrossEntropy{0.1, 1}, volume(3, 4, 2, 3, 2), {}, 1, 0, DType::u16},
        {"cross_entropy_z_loss", 154, SoftmaxCrossEntropy{0.1, 1, 0.01}, series(3, 5, 11)},
        // Chunks of 4, 4, 4 and 3 positions.
        {"linear_cross_entropy",
         155,
         LinearCrossEntropy{Dense{13}, {0.1, 2, 0.01}, 4},
         series(3, 5, 16),
         {},
         1,
         0,
         DType::u8,
         true},
        {"linear_cross_entropy_capped",
         162,
         LinearCrossEntropy{Dense{13}, {0.1, 2, 0.01}, 4, SoftCap{4}},
         series(3, 5, 16),
         {},
         1,
         0,
         DType::u8,
         true},
        {"squared_error_series", 133, MeanSquaredError{}, series(3, 5, 3), {}, 1, 0, DType::i32, true},
        {"squared_error_images", 134, MeanSquaredError{}, image(3, 2, 3, 4)},
        {"squared_error_volumes", 135, MeanSquaredError{}, volume(2, 17, 2, 3, 2), {}, 1, 0, DType::i32, true},
    };
    const std::size_t rows_in_f32 = table.size();
    for (const DType half : {DType::bf16, DType::f16})
      for (std::size_t i = 0; i < rows_in_f32; ++i) table.push_back(in_half(table[i], half));
    return table;
  }();
  return rows;
}

const std::vector<OpRow>& large_ops() {
  static const std::vector<OpRow> all = [] {
    std::vector<OpRow> rows;
    // 64 channels fill vectors, 67 do not; 5 and 300 make narrow and several tiles.
    for (const std::int64_t c : {5, 64, 67, 300}) {
      const TensorDesc x = image(3, c, 17, 13);
      rows.push_back({"batch_norm", 72, BatchNorm{1e-5, 0.1, Activation::relu}, x});
      rows.push_back({"batch_moments", 73, BatchMoments{}, x});
      rows.push_back({"batch_normalize", 62, BatchNormalize{1e-5, 0.1, Activation::tanh}, x});
      rows.push_back({"layer_norm", 74, LayerNorm{}, x});
      rows.push_back({"multiply", 76, Multiply{}, x, {image(3, c, 1, 1)}});
      rows.push_back({"concat", 77, Concat{}, x, {image(3, 2 * c, 17, 13)}});
      rows.push_back({"max_pool", 79, MaxPool{{3, 3}, {2, 2}, {1, 1}}, x});
      rows.push_back({"average_pool", 78, AveragePool{{3, 3}, {2, 2}, {1, 1}}, x});
      rows.push_back({"global_average_pool", 80, GlobalAveragePool{}, x});
      const TensorDesc small = volume(3, c, 5, 6, 7);
      rows.push_back({"max_pool3d", 121, MaxPool{{3, 3, 3}, {2, 2, 2}, {1, 1, 1}}, small});
      rows.push_back({"average_pool3d", 122, AveragePool{{3, 3, 3}, {2, 2, 2}, {1, 1, 1}}, small});
      rows.push_back({"max_pool1d", 123, MaxPool{{3}, {2}, {1}}, series(3, 221, c)});
      rows.push_back({"upsample", 124, Upsample{{2, 2, 2}, Upsample::Mode::linear}, small});
      rows.push_back({"upsample_nearest", 125, Upsample{{2, 2, 2}}, small});
      rows.push_back({"dropout", 83, Dropout{0.3, 3}, x});
      if (c <= 67)
        rows.push_back({"attention", 147, Attention{.heads = 3, .rotary = Rotary{}, .dropout = 0.1},
                        series(2, 221, 9 * (c / 2 * 2))});
      rows.push_back({"gelu", 81, Activate{Activation::gelu}, x});
      rows.push_back({"soft_cap", 163, SoftCap{0.5}, x});
    }
    // Of halves, what a library's fused attention can do, too.
    for (const bool causal : {true, false})
      rows.push_back({"attention_fused", 159,
                      Attention{.heads = 4, .kv_heads = 2, .causal = causal, .window = causal ? 0 : 30},
                      series(2, 70, 64)});
    rows.push_back(
        {"attention_turned", 160, Attention{.heads = 2, .window = 50, .rotary = Rotary{}}, series(2, 70, 48)});
    rows.push_back({"batch_norm_tall", 84, BatchNorm{}, image(20, 8, 33, 31)});
    rows.push_back({"one_sample", 85, LayerNorm{}, matrix(1, 3)});
    for (const std::int64_t classes : {1, 33, 1500}) {
      rows.push_back({"cross_entropy", 86, SoftmaxCrossEntropy{0.1}, matrix(300, classes)});
      rows.push_back({"squared_error", 87, MeanSquaredError{}, matrix(300, classes)});
      rows.push_back({"cross_entropy_positions",
                      88,
                      SoftmaxCrossEntropy{0, 0},
                      image(5, classes, 7, 9),
                      {},
                      1,
                      0,
                      DType::u16,
                      true});
      rows.push_back({"squared_error_positions", 89, MeanSquaredError{}, series(5, 63, classes)});
    }
    rows.push_back({"linear", 88, Dense{129, true, Activation::relu}, matrix(64, 300)});
    rows.push_back({"conv", 89, Conv{24, {3, 3}, {1, 1}, {1, 1}, true, Activation::relu}, image(3, 40, 17, 13)});
    const ConvTranspose transposed{24, {4, 4}, {2, 2}, {1, 1}, {0, 0}, true, Activation::tanh};
    rows.push_back({"conv_transpose", 126, transposed, image(3, 40, 9, 7)});
    rows.push_back({"conv3d", 127, Conv{24, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, true, Activation::relu, {1, 1, 1}},
                    volume(2, 17, 5, 6, 7)});
    return rows;
  }();
  return all;
}

OpRow in_dtype(OpRow row, DType dtype) {
  if (row.in.is_index()) {
    std::visit(
        [&](auto& op) {
          if constexpr (requires { op.dtype; }) op.dtype = dtype;
        },
        row.op);
    return row;
  }
  row.in.dtype = dtype;
  for (TensorDesc& desc : row.more_in)
    if (!desc.is_index()) desc.dtype = dtype;
  return row;
}

}  // namespace dtrain::test
