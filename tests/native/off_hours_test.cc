// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "lab.h"

namespace tool_firewall {
namespace {

class OffHoursTest : public testing::Test {
 protected:
  void learn(double now, int times, bool starts_session = true, double weight = 1) {
    Ran ran;
    ran.now = now;
    ran.weight = weight;
    ran.starts_session = starts_session;
    ran.hour_bin = bench.utc.hour_bin(now);
    ran.levels = bench.levels;
    for (int i = 0; i < times; ++i) bench.signal->learn(ran);
  }
  double at(double now, double weight = 1) {
    Sight sight = bench.sight(now);
    sight.weight = weight;
    return bench.measure(sight)[0];
  }
  SignalBench bench{make_off_hours};
};

TEST_F(OffHoursTest, IsTheKernelByHand) {
  learn(kMonday + 9 * kHour, 8);
  learn(kMonday + 10 * kHour, 4);
  struct Row {
    const char* name;
    double now, near;
  };
  const Row rows[] = {
      {"the usual hour", kMonday + 9.5 * kHour, .5 * 8 + .25 * 4},
      {"the other hour", kMonday + 10 * kHour, .5 * 4 + .25 * 8},
      {"the hour before", kMonday + 8 * kHour, .25 * 8},
      {"the hour after", kMonday + 11 * kHour, .25 * 4},
      {"two hours before", kMonday + 7 * kHour, 0},
      {"at night", kMonday + 3 * kHour, 0},
      {"another weekday counts as the same", kMonday + 2 * kDay + 9 * kHour, .5 * 8 + .25 * 4},
      {"the weekend does not", kMonday + 5 * kDay + 9 * kHour, 0},
  };
  for (const Row& row : rows)
    EXPECT_NEAR(at(row.now), -std::log((row.near + 1. / 24) / (12 + 2)), 1e-9) << row.name;
}

TEST_F(OffHoursTest, MidnightIsNoEdge) {
  learn(kMonday + 23 * kHour, 4);
  EXPECT_NEAR(at(kMonday + kDay), -std::log((.25 * 4 + 1. / 24) / 6), 1e-9);
  learn(kMonday + 4 * kDay + 23 * kHour, 4);  // Friday night helps Monday's midnight, not Saturday's
  EXPECT_NEAR(at(kMonday + 5 * kDay), -std::log((1. / 24) / 10), 1e-9);
  EXPECT_NEAR(at(kMonday + 7 * kDay), -std::log((.25 * 8 + 1. / 24) / 10), 1e-9);
}

TEST_F(OffHoursTest, WithoutHistoryEveryHourIsOneInFortyEight) {
  for (int hour = 0; hour < 7 * 24; ++hour)
    EXPECT_NEAR(at(kMonday + hour * kHour), std::log(48.), 1e-12) << hour;
}

TEST_F(OffHoursTest, OnlySessionStartsTeach) {
  learn(kMonday + 9 * kHour, 50, false);
  EXPECT_NEAR(at(kMonday + 9 * kHour), std::log(48.), 1e-12);
}

TEST_F(OffHoursTest, OldSessionsFade) {
  learn(kMonday + 9 * kHour, 8);
  EXPECT_NEAR(at(kMonday + 9 * kHour, 4), -std::log((.5 * 2 + 1. / 24) / 4), 1e-9) << "two half-lives later";
}

TEST_F(OffHoursTest, ExplainsTheLocalHour) {
  learn(kMonday + 9 * kHour, 12);
  const Sight sight = bench.sight(kMonday + 5 * kDay + 3 * kHour);
  bench.measure(sight);
  EXPECT_EQ(bench.signal->explain(bench.signal->numbers(sight), {}),
            "about 0 of the user's 12 sessions start around 03:00 on weekends");
}

}  // namespace
}  // namespace tool_firewall
