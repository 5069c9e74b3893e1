#include "runtime/config/version.hpp"

#include <string>

#include <gtest/gtest.h>

TEST(Version, StartsWithTheProjectsNumber) {
  const std::string text(dtrain::version());
  EXPECT_EQ(text.rfind("0.", 0), 0U) << text;
  EXPECT_EQ(text.find('"'), std::string::npos);
}
