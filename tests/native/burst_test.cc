// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "lab.h"

namespace tool_firewall {
namespace {

// Calls spread so thinly over a window that only the exact limit can speak: the record is high.
constexpr SignalSettings kDefault = {};

// Raises the user's record far above anything the tests do, so that the record rule keeps quiet.
void raise_record(SignalBench& bench, double until) {
  for (int window = 0; window < 6; ++window)
    for (int i = 0; i < 200; ++i) bench.call(until - (6 - window) * 1000. + i * .1);
}

struct BurstLimit : testing::Test {
  // The floors of `calls` calls, evenly spread over `seconds` from `from`: call i at from + i * seconds /
  // calls.
  std::vector<double> floors(double from, int calls, double seconds, bool blocked = false) {
    std::vector<double> floors;
    for (int i = 0; i < calls; ++i) floors.push_back(bench.call(from + i * seconds / calls, blocked));
    return floors;
  }
  SignalBench bench{make_burst, kDefault};
};

TEST_F(BurstLimit, TwentyCallsInSixtySecondsAreNotOverItAndTheTwentyFirstIs) {
  struct Row {
    const char* name;
    double idle;  // s since earlier traffic; 0: none
  };
  for (const Row& row :
       {Row{"a new user", 0}, Row{"after an hour", kHour}, Row{"after four months", 120 * kDay}}) {
    SignalBench one(make_burst, kDefault);
    double now = kMonday;
    if (row.idle > 0) {
      for (int i = 0; i < 30; ++i) one.call(now += 300);
      now += row.idle;
    }
    for (int i = 1; i <= 25; ++i) {
      one.measure(one.sight(now));
      const Numbers numbers = one.signal->numbers(one.sight(now));
      const double floor = one.call(now);
      if (i <= 20) {
        EXPECT_EQ(numbers.detail[0], 0) << row.name << ", call " << i << " is not over the limit";
      } else {
        EXPECT_GE(floor, .5) << row.name << ", call " << i;
        EXPECT_EQ(numbers.detail[0], 1) << row.name << ", call " << i;
        EXPECT_EQ(numbers.value, i) << row.name;
        EXPECT_EQ(numbers.baseline, 20) << row.name;
      }
      now += 1.2;
    }
  }
}

TEST_F(BurstLimit, ExactlyAtTheEdgeOfTheWindow) {
  // 21 calls, the first and the last exactly 60 s apart: at 60 s the first has left the window.
  for (const double apart : {60., 59.999}) {
    SignalBench one(make_burst, kDefault);
    for (int i = 0; i < 20; ++i) one.call(kMonday + i * .001);
    one.measure(one.sight(kMonday + apart));
    EXPECT_EQ(one.signal->numbers(one.sight(kMonday + apart)).detail[0], apart < 60 ? 1 : 0) << apart;
  }
}

TEST_F(BurstLimit, AFewCallsAreQuiet) {
  for (const double floor : floors(kMonday, 14, 5))
    EXPECT_EQ(floor, 0) << "the record rule starts at 15 calls";
}

TEST_F(BurstLimit, GrowsWithTheBurst) {
  const std::vector<double> all = floors(kMonday, 80, 40);
  for (std::size_t i = 21; i < all.size(); ++i) EXPECT_GE(all[i], all[i - 1]) << i;
  // 40 calls in a burst are twice the limit; the record rule says more: .5 + .1 log2(N / 7.5).
  EXPECT_GE(all[39], .6);
  EXPECT_LE(all.back(), .9);
}

TEST_F(BurstLimit, OnlyTheLimitIsQuietForAnEstablishedFastUser) {
  raise_record(bench, kMonday);
  const std::vector<double> all = floors(kMonday + 2000, 40, 40);
  for (std::size_t i = 0; i < 20; ++i) EXPECT_EQ(all[i], 0) << i;
  for (std::size_t i = 20; i < 40; ++i)
    EXPECT_NEAR(all[i], .5 + .1 * std::log2(static_cast<double>(i + 1) / 20), 1e-12) << i;
}

TEST_F(BurstLimit, HoldsRightAfterManyBlockedCalls) {
  for (int i = 0; i < 500; ++i) bench.call(kMonday + i * .05, true);
  EXPECT_GE(bench.call(kMonday + 26, true), .5) << "blocked calls count";
  const double quiet = kMonday + kHour;
  const std::vector<double> again = floors(quiet, 21, 50);
  EXPECT_EQ(again[0], 0) << "an hour later the burst is over";
  EXPECT_GE(again[20], .5);
}

TEST_F(BurstLimit, FollowsTheSettings) {
  SignalBench small(make_burst, {.burst_window = 10, .burst_threshold = 3});
  for (int i = 0; i < 3; ++i) EXPECT_EQ(small.call(kMonday + i * 3), 0) << i;
  EXPECT_EQ(small.call(kMonday + 9), .5 + .1 * std::log2(4. / 3));
  SignalBench one(make_burst, {.burst_window = 10, .burst_threshold = 1});
  EXPECT_EQ(one.call(kMonday), 0);
  EXPECT_EQ(one.call(kMonday + 9), .6) << "2 calls where 1 is the limit";
  EXPECT_EQ(one.call(kMonday + 20), 0);
}

TEST_F(BurstLimit, ExemptsFromTheFourthDayOnAndLapsesAfterThirtyDays) {
  const auto burst_on = [&](int day) { return floors(kMonday + day * kDay + 10 * kHour, 22, 40)[21]; };
  raise_record(bench, kMonday + 10 * kHour);  // itself a day over the limit: day 0
  EXPECT_EQ(bench.fact("days_over_limit", kMonday + kDay), 1);
  EXPECT_GE(burst_on(0), .5) << "the same day again";
  EXPECT_EQ(bench.fact("days_over_limit", kMonday + kDay), 1);
  EXPECT_GE(burst_on(1), .5);
  EXPECT_GE(burst_on(2), .5) << "the third day itself is not exempt";
  EXPECT_EQ(bench.fact("exempt", kMonday + 2 * kDay + 11 * kHour), 0);
  EXPECT_EQ(burst_on(3), 0) << "three different days before";
  EXPECT_EQ(bench.fact("exempt", kMonday + 33 * kDay), 1) << "30 days after the last";
  EXPECT_EQ(bench.fact("exempt", kMonday + 34 * kDay), 0) << "lapsed";
  EXPECT_GE(burst_on(40), .5);
  EXPECT_GE(burst_on(41), .5) << "the days start anew";
  EXPECT_EQ(bench.fact("days_over_limit", kMonday + 42 * kDay), 2);
}

TEST_F(BurstLimit, BlockedBurstsExemptNobody) {
  for (int day = 0; day < 10; ++day) floors(kMonday + day * kDay, 40, 40, true);
  EXPECT_EQ(bench.fact("days_over_limit", kMonday + 10 * kDay), 0);
  EXPECT_GE(floors(kMonday + 11 * kDay, 21, 40)[20], .5);
}

struct BurstRecord : BurstLimit {};

TEST_F(BurstRecord, TheFormulaByHand) {
  // N60 after the 18th of 30 calls in 30 s: sum of e^-(k/60) for k = 0..17; the record starts at 3.
  double minute = 0;
  for (int i = 1; i <= 18; ++i) minute = minute * std::exp(-1. / 60) + 1;
  const std::vector<double> all = floors(kMonday, 18, 18);
  EXPECT_GE(minute, 15);
  EXPECT_NEAR(all.back(), .5 + .1 * std::log2(minute / (2.5 * 3)), 1e-9);
}

TEST_F(BurstRecord, GrowsAtMostThreefoldATenMinutes) {
  for (int i = 0; i < 100; ++i) bench.call(kMonday + i * .01);
  EXPECT_EQ(bench.fact("record_60s", kMonday), 3);
  bench.call(kMonday + 601);
  EXPECT_EQ(bench.fact("record_60s", kMonday + 601), 9);
}

TEST_F(BurstRecord, FadesWithAHalfLifeOfThirtyDays) {
  raise_record(bench, kMonday);
  bench.call(kMonday + 1000);
  bench.call(kMonday + 2000);
  const double high = bench.fact("record_60s", kMonday);
  ASSERT_GT(high, 40);
  bench.call(kMonday + 2000 + 30 * kDay);
  EXPECT_NEAR(bench.fact("record_60s", kMonday), high / 2, high * .01);
}

TEST_F(BurstRecord, BlockedCallsRaiseNone) {
  // The blocked calls end, and their tail is still in the minute when the next allowed call comes.
  SignalBench calm(make_burst, kDefault);
  for (int round = 0; round < 6; ++round) {
    const double start = kMonday + round * 1000.;
    calm.call(start);
    calm.call(start + 170);
    calm.call(start + 700);
    bench.call(start);
    for (int i = 0; i < 200; ++i) bench.call(start + 1 + i * .01, true);
    bench.call(start + 170);
    bench.call(start + 700);
  }
  EXPECT_EQ(bench.fact("record_60s", kMonday), calm.fact("record_60s", kMonday));
  EXPECT_EQ(bench.fact("record_60s", kMonday), 3);
}

TEST_F(BurstLimit, StrangeTimesGiveASaneFloor) {
  for (const double now :
       {0., kMonday, kMonday, kMonday - 3650 * kDay, kMonday + 3650 * kDay, kMonday, 1e12, -1e12}) {
    for (int i = 0; i < 30; ++i) {
      const double floor = bench.call(now);
      ASSERT_GE(floor, 0) << now;
      ASSERT_LE(floor, .9) << now;
    }
  }
}

TEST_F(BurstLimit, AClockThatJumpedForwardAndBackDoesNotPunishForEver) {
  for (int i = 0; i < 30; ++i) bench.call(kMonday + i * 300);
  bench.call(kMonday + 3650 * kDay);
  double floor = 1;
  for (int i = 0; i < 200; ++i) floor = bench.call(kMonday + kDay + i * 300);
  EXPECT_EQ(floor, 0) << "one call in five minutes";
}

TEST_F(BurstLimit, Explains) {
  EXPECT_EQ(bench.signal->explain({25, 20, {1, 60, 3, 0}}, {}),
            "25 calls in one burst; the limit is 20 in 60 s");
  EXPECT_EQ(bench.signal->explain({15.26, 3, {0, 60, 3, 0}}, {}),
            "15.3 calls in about one minute; this user's record is 3");
}

}  // namespace
}  // namespace tool_firewall
