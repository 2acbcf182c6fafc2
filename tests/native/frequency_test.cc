// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "lab.h"

namespace tool_firewall {
namespace {

class FrequencyTest : public testing::Test {
 protected:
  double z(double now) { return bench.measure(bench.sight(now))[0]; }
  SignalBench bench{make_frequency};
};

TEST_F(FrequencyTest, TheFirstCallIsOrdinary) { EXPECT_EQ(z(kMonday), 0); }

TEST_F(FrequencyTest, TheSecondCallByHand) {
  // One call taught ln 1 = 0 to user and group: mean 0. The user's variance 0 with weight 1 against the first
  // variance .25 with the weight of 15 calls gives 15 * .25 / 16; the noise floor is .25 e^0, which is more.
  bench.call(kMonday);
  const double deviation = std::sqrt(std::max(15 * .25 / 16, .25));
  // After 30 s the windows of 1, 10 and 60 minutes hold 1 + e^-.5, 1 + e^-.05, 1 + e^-(1/120); the longest is
  // most.
  EXPECT_NEAR(z(kMonday + 30), std::log(1 + std::exp(-30. / 3600)) / deviation, 1e-9);
}

TEST_F(FrequencyTest, TheUsualPaceIsOrdinaryAndAFasterOneIsNot) {
  double now = kMonday;
  for (int i = 0; i < 400; ++i) bench.call(now += 120);
  EXPECT_LT(z(now + 120), 1.5);
  double highest = 0;
  for (int i = 0; i < 30; ++i) {
    now += 1;
    highest = std::max(highest, z(now));
    bench.call(now);
  }
  EXPECT_GT(highest, 3);
}

TEST_F(FrequencyTest, BlockedCallsCountToo) {
  SignalBench other(make_frequency);
  for (int i = 0; i < 50; ++i) {
    bench.call(kMonday + i, false);
    other.call(kMonday + i, true);
  }
  EXPECT_EQ(z(kMonday + 51), other.measure(other.sight(kMonday + 51))[0]);
}

TEST_F(FrequencyTest, APauseGoesBackToOrdinary) {
  for (int i = 0; i < 100; ++i) bench.call(kMonday + i);
  EXPECT_LT(z(kMonday + 40 * kDay), 1);
}

TEST_F(FrequencyTest, OneWildHourTeachesLittle) {
  for (int i = 0; i < 200; ++i) bench.call(kMonday + i * 300.);
  const double before = bench.fact("usual_60s", kMonday + 2e5);
  for (int i = 0; i < 10; ++i) bench.call(kMonday + 2e5 + i * .001);
  const double after = bench.fact("usual_60s", kMonday + 2e5);
  EXPECT_GE(after, before);
  EXPECT_LT(after, before * 1.2);
}

TEST_F(FrequencyTest, NamesTheWindow) {
  struct Row {
    float window;
    const char* words;
  };
  for (const Row& row :
       {Row{60, "about one minute"}, Row{600, "about ten minutes"}, Row{3600, "about one hour"}})
    EXPECT_EQ(bench.signal->explain({12, 2.5, {row.window, 0, 0, 0}}, {}),
              std::string("12 calls in ") + row.words + "; usual for this user is 2.5");
}

TEST_F(FrequencyTest, IsFiniteForStrangeTimes) {
  for (const double now :
       {kMonday, kMonday, 0., kMonday - 10 * 365 * kDay, kMonday + 10 * 365 * kDay, kMonday, 1e12, 5.}) {
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(std::isfinite(z(now))) << now;
      bench.call(now);
    }
  }
}

}  // namespace
}  // namespace tool_firewall
