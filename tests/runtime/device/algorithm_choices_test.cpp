// Choices of algorithms: their text and back, texts that are none, and that the cpu has none.
#include "runtime/device/algorithm_choices.hpp"

#include <gtest/gtest.h>

#include "runtime/device/device.hpp"
#include "runtime/ops/kernels.hpp"
#include "runtime/tensor/error.hpp"

namespace dtrain {
namespace {

AlgorithmChoices some() {
  AlgorithmChoices choices;
  choices.set("cudnn 91900 NVIDIA H200: conv2d forward 3x3", "plain eng45_k2=4_k5=3");
  choices.set("cublaslt 130002 NVIDIA H200: linear forward", "00ff");
  return choices;
}

TEST(AlgorithmChoices, equal_choices_have_equal_texts_that_lead_back) {
  const AlgorithmChoices choices = some();
  EXPECT_EQ(choices.text(),
            "cublaslt 130002 NVIDIA H200: linear forward = 00ff\n"
            "cudnn 91900 NVIDIA H200: conv2d forward 3x3 = plain eng45_k2=4_k5=3\n");
  EXPECT_EQ(AlgorithmChoices::parse(choices.text()), choices);
  EXPECT_EQ(AlgorithmChoices::parse(""), AlgorithmChoices{});
}

TEST(AlgorithmChoices, a_key_that_was_not_chosen_is_not_found) {
  const AlgorithmChoices choices = some();
  EXPECT_EQ(choices.find("linear forward"), nullptr);
  ASSERT_NE(choices.find("cublaslt 130002 NVIDIA H200: linear forward"), nullptr);
  EXPECT_EQ(*choices.find("cublaslt 130002 NVIDIA H200: linear forward"), "00ff");
}

TEST(AlgorithmChoices, merging_takes_the_others) {
  AlgorithmChoices choices = some(), others;
  others.set("cublaslt 130002 NVIDIA H200: linear forward", "11");
  others.set("another", "1");
  choices.merge(others);
  EXPECT_EQ(choices.all().size(), 3u);
  EXPECT_EQ(*choices.find("cublaslt 130002 NVIDIA H200: linear forward"), "11");
}

TEST(AlgorithmChoices, a_text_that_is_none_is_refused_with_its_line) {
  for (const char* text :
       {"a = b\nc\n", "a = b\nc = d", "a = b\n = d\n", "a = b\nc = \n", "a = b\nc = d = e\n", "a = b\n\n"}) {
    try {
      AlgorithmChoices::parse(text);
      FAIL() << text;
    } catch (const CheckpointError& e) {
      EXPECT_EQ(e.kind(), CheckpointError::Kind::corrupt);
      EXPECT_NE(std::string(e.what()).find("line 2 of"), std::string::npos) << e.what();
    }
  }
  AlgorithmChoices choices;
  EXPECT_THROW(choices.set("a\nb", "c"), BugError);
  EXPECT_THROW(choices.set("a", "b = c"), BugError);
  EXPECT_THROW(choices.set("a", ""), BugError);
}

TEST(AlgorithmChoices, the_cpu_has_none) {
  const auto device = make_cpu_device(1);
  const TensorDesc in{DType::f32, Shape{4, 3}};
  device->kernels().use(some());
  EXPECT_NE(device->kernels().prepare(Dense{.units = 2}, {&in, 1}, {}), nullptr);
  EXPECT_TRUE(device->kernels().choices().all().empty());
}

}  // namespace
}  // namespace dtrain
