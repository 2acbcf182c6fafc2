// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "lab.h"

namespace tool_firewall {
namespace {

const double kFade = std::exp2(-1. / 14);  // of a day

// What `days` days in a row, the last one yesterday, are worth.
double worth(int days) {
  double sum = 0;
  for (int day = 0; day < days; ++day) sum = (sum + 1) * kFade;
  return sum;
}

double surprise(double near, double days) { return -std::log((near + .05) / (days + .05)); }

class OffHoursTest : public testing::Test {
 protected:
  double at(double now) { return bench.measure(bench.sight(now))[0]; }

  // A call that is measured, counted, and learned from unless it was blocked.
  double call(double now, bool blocked = false) {
    const Sight sight = bench.sight(now);
    const double raw = bench.measure(sight)[0];
    bench.signal->count(sight, blocked);
    Ran ran = SignalBench::ran(sight);
    ran.mark = bench.signal->mark();
    if (!blocked) bench.signal->learn(ran);
    return raw;
  }
  void another_session() { bench.session.begin(2, SignalBench::kState); }

  // One call in each of the hours [from, to), on the days [first, last) after kMonday.
  void work(
      int first, int last, int from, int to, const std::function<bool(int)>& on = [](int) { return true; }) {
    for (int day = first; day < last; ++day)
      for (int hour = from; on(day) && hour < to; ++hour) call(kMonday + day * kDay + hour * kHour);
    another_session();
  }

  SignalBench bench{make_off_hours};
};

bool weekdays(int day) { return day % 7 < 5; }

TEST_F(OffHoursTest, IsTheKernelByHand) {
  work(0, 10, 9, 10);
  const double n = worth(10);
  struct Row {
    const char* name;
    double hour, share;
  };
  // One call counts half.
  for (const Row& row : {Row{"the hour after", 10, 1. / 3}, Row{"two hours before", 7, 1. / 9},
                         Row{"late in the hour", 11.99, 1. / 9}, Row{"at night", 3, std::pow(3, -6)},
                         Row{"as far as can be", 21, std::pow(3, -12)}})
    EXPECT_NEAR(at(kMonday + 10 * kDay + row.hour * kHour), .5 * surprise(row.share * n, n), 1e-5)
        << row.name;
  EXPECT_EQ(at(kMonday + 10 * kDay + 9.5 * kHour), 0) << "the usual hour";
}

TEST_F(OffHoursTest, NeighboursAddUp) {
  work(0, 10, 9, 12);
  const double n = worth(10);
  EXPECT_NEAR(at(kMonday + 10 * kDay + 13 * kHour), .5 * surprise((1. / 9 + 1. / 27 + 1. / 81) * n, n), 1e-5);
  EXPECT_EQ(at(kMonday + 10 * kDay + 10 * kHour), 0) << "more than a day a day is no surprise";
}

TEST_F(OffHoursTest, MidnightIsNoEdge) {
  work(0, 10, 23, 24);
  const double n = worth(10);
  EXPECT_NEAR(at(kMonday + 10 * kDay), .5 * surprise(n / 3, n), 1e-5);
  EXPECT_NEAR(at(kMonday + 10 * kDay + kHour), .5 * surprise(n / 9, n), 1e-5);
}

TEST_F(OffHoursTest, WithoutHistoryNoHourIsOdd) {
  for (int hour = 0; hour < 7 * 24; ++hour) EXPECT_EQ(at(kMonday + hour * kHour), 0) << hour;
}

TEST_F(OffHoursTest, UnderFiveDaysSayLess) {
  for (int day = 1; day < 10; ++day) {
    work(day - 1, day, 9, 10);
    const double n = worth(day);
    EXPECT_NEAR(at(kMonday + day * kDay + 21 * kHour),
                std::min(1., n / 5) * .5 * surprise(n * std::pow(3, -12), n), 1e-5)
        << day;
  }
}

TEST_F(OffHoursTest, DaysCountNotCalls) {
  SignalBench busy(make_off_hours);
  work(0, 10, 9, 10);
  for (int day = 0; day < 10; ++day) {
    for (int i = 0; i < 50; ++i) {
      const Sight sight = busy.sight(kMonday + day * kDay + 9 * kHour + i * 60);
      busy.measure(sight);
      busy.signal->count(sight, false);
      busy.signal->learn(SignalBench::ran(sight));
    }
  }
  const double night = kMonday + 10 * kDay + 3 * kHour;
  EXPECT_EQ(busy.measure(busy.sight(night))[0], at(night));
}

TEST_F(OffHoursTest, AnOddSessionGrowsAndStaysAsOddAsItBegan) {
  work(0, 14, 9, 17);
  const double night = kMonday + 14 * kDay + 2 * kHour;
  const double n = worth(14);
  double near = 0;
  for (int hour = 9; hour < 17; ++hour) near += std::pow(3, -std::min(hour - 2, 26 - hour)) * n;
  for (int i = 0; i < 20; ++i)
    EXPECT_NEAR(call(night + i * 60), surprise(near, n) * (i + 1.) / (i + 2.), 1e-4) << i;
  another_session();
  EXPECT_NEAR(call(night + 2000), surprise(near, n) / 2, 1e-4) << "each session for itself";
}

TEST_F(OffHoursTest, BlockedCallsMakeTheSessionOddAndTeachNothing) {
  work(0, 14, 9, 17);
  const double night = kMonday + 14 * kDay + 2 * kHour;
  const double first = call(night, true);
  EXPECT_NEAR(call(night + 60, true), first * 2 / (1. / 2) * (2. / 3) / 2, 1e-9);
  another_session();
  for (int day = 14; day < 30; ++day) call(kMonday + day * kDay + 9 * kHour);
  const double before = bench.fact("hour_02", kMonday);
  EXPECT_EQ(before, 0);
}

TEST_F(OffHoursTest, WhatWasOddIsLearnedADayLater) {
  work(0, 14, 9, 17);
  const auto night = [](int day) { return kMonday + day * kDay + 2 * kHour; };
  const double first = call(night(14));
  another_session();
  EXPECT_NEAR(call(night(15)), first, .05) << "one night does not excuse the next";
  another_session();
  const double third = call(night(16));
  EXPECT_LT(third, first - .5) << "the first of them is known by now";
  another_session();
  EXPECT_LT(call(night(17)), third);
}

TEST_F(OffHoursTest, AfterAPauseItIsLearnedTheSame) {
  work(0, 14, 9, 17);
  call(kMonday + 14 * kDay + 2 * kHour);
  another_session();
  call(kMonday + 17 * kDay + 9 * kHour);
  EXPECT_NEAR(bench.fact("hour_02", kMonday), std::pow(kFade, 3), 1e-5);
}

TEST_F(OffHoursTest, OldDaysFade) {
  work(0, 1, 9, 10);
  call(kMonday + 14 * kDay + 15 * kHour);
  EXPECT_NEAR(bench.fact("hour_09", kMonday), .5, 1e-5);
  EXPECT_NEAR(bench.fact("hour_15", kMonday), 1, 1e-5) << "for people, today counts";
  EXPECT_NEAR(bench.fact("days", kMonday), 1.5, 1e-5);
}

TEST_F(OffHoursTest, TheFirstWeekendAfterMonthsOfNone) {
  work(0, 26, 9, 17, weekdays);  // ends on a Friday; three weekends went by
  const double saturday = kMonday + 26 * kDay + 10 * kHour;
  ASSERT_TRUE(Zone::is_weekend(bench.utc.local(saturday).day));
  double weekends = 0;
  for (int ago : {20, 19, 13, 12, 6, 5}) weekends += std::pow(kFade, ago);
  EXPECT_NEAR(at(saturday), .5 * -std::log(.5 / (weekends + .5)), .1);
  EXPECT_EQ(at(kMonday + 28 * kDay + 10 * kHour), 0) << "on Monday the same hour is ordinary";
  work(26, 28, 9, 17);
  work(28, 33, 9, 17, weekdays);
  EXPECT_LT(at(kMonday + 33 * kDay + 10 * kHour), .5) << "who worked on one may work on the next";
}

TEST_F(OffHoursTest, OnTheClockOfTheUser) {
  Zone tokyo{"Asia/Tokyo", {{0, 9 * 3600}}};
  bench.utc = tokyo;
  work(0, 10, 9, 10);  // 18:00 there
  EXPECT_EQ(at(kMonday + 10 * kDay + 9 * kHour), 0);
  EXPECT_NEAR(bench.fact("hour_18", kMonday), worth(9) + 1, 1e-4);
  EXPECT_EQ(bench.fact("hour_09", kMonday), 0);
}

TEST_F(OffHoursTest, HistoryOfThePastCountsByItsAge) {
  call(kMonday + 20 * kDay + 9 * kHour);
  for (const double hour : {10., 10.5, 12.}) {
    const Sight sight = bench.sight(kMonday + 6 * kDay + hour * kHour);  // 14 days before, a Sunday
    Ran ran = SignalBench::ran(sight);
    ran.past = true;
    bench.signal->learn(ran);
  }
  EXPECT_NEAR(bench.fact("hour_10", kMonday), .5, 1e-5);
  EXPECT_NEAR(bench.fact("hour_12", kMonday), .5, 1e-5);
  EXPECT_NEAR(bench.fact("days", kMonday), 1.5, 1e-5) << "one day, and today";
  EXPECT_NEAR(bench.fact("weekend_days", kMonday), 1.5, 1e-5);
  EXPECT_NEAR(bench.fact("hour_09", kMonday), 1, 1e-5);
}

TEST_F(OffHoursTest, TimesInAnyOrderAreHarmless) {
  for (const double now : {kMonday, kMonday - 10 * kDay, kMonday + 3650 * kDay, kMonday, 0., -1e11, 1e11,
                           kMonday, kMonday + kDay}) {
    for (int i = 0; i < 3; ++i) {
      const double raw = call(now + i * kHour);
      ASSERT_TRUE(raw >= 0 && raw < 30) << now << ": " << raw;
    }
  }
}

TEST_F(OffHoursTest, AClockThatWasWrongForACallTakesNothingAlong) {
  for (const double off : {3650 * kDay, -3650 * kDay, 40 * kDay, -40 * kDay, 3 * kDay, -3 * kDay}) {
    SignalBench right(make_off_hours);
    const auto both = [&](double now, double wrong_by) {
      for (SignalBench* one : {&bench, &right}) {
        if (one == &right && wrong_by != 0) continue;
        const Sight sight = one->sight(now + wrong_by);
        one->measure(sight);
        one->signal->count(sight, false);
        one->signal->learn(SignalBench::ran(sight));
      }
    };
    bench.user.state = make_state(SignalBench::kState);
    for (int day = 0; day < 14; ++day)
      for (int hour = 9; hour < 17; ++hour) both(kMonday + day * kDay + hour * kHour, 0);
    for (int i = 0; i < 3; ++i) {
      both(kMonday + 13 * kDay + 17 * kHour, off);
      both(kMonday + 13 * kDay + 17 * kHour + 60, 0);
    }
    for (int day = 14; day < 18; ++day) {
      both(kMonday + day * kDay + 10 * kHour, 0);
      const double night = kMonday + day * kDay + 20 * kHour;
      EXPECT_EQ(bench.measure(bench.sight(night)), right.measure(right.sight(night))) << off / kDay;
    }
  }
}

TEST_F(OffHoursTest, AClockThatWasSetBackForGoodGoesOnLearning) {
  for (int day = 0; day < 14; ++day) call(kMonday + 3650 * kDay + day * kDay + 9 * kHour);
  for (int day = 0; day < 20; ++day) call(kMonday + day * kDay + 10 * kHour);
  EXPECT_NEAR(bench.fact("hour_10", kMonday), worth(19) + 1, 1e-3);
}

TEST_F(OffHoursTest, AdoptsNoNonsense) {
  work(0, 14, 9, 17);
  const std::span<std::byte> state = bench.signal->bytes_in(bench.user);
  const std::vector<std::byte> good(state.begin(), state.end());
  std::vector<std::byte> own(good.size());
  bench.signal->adopt(good, own);
  EXPECT_EQ(own, good);
  for (const float wrong :
       {std::numeric_limits<float>::quiet_NaN(), -1.F, 1e30F, std::numeric_limits<float>::infinity()}) {
    for (std::size_t at = 7 * 4; at < good.size() / 2; at += 4) {  // the numbers after the seven words
      std::vector<std::byte> bad = good;
      std::memcpy(&bad[at], &wrong, sizeof wrong);
      std::vector<std::byte> taken(good.size());
      bench.signal->adopt(bad, taken);
      EXPECT_EQ(taken, std::vector<std::byte>(good.size())) << at;
    }
  }
  std::vector<std::byte> short_one(good.size() - 8), into(good.size());
  bench.signal->adopt(short_one, into);
  EXPECT_EQ(into, std::vector<std::byte>(good.size())) << "of another size";
}

TEST_F(OffHoursTest, Explains) {
  const auto said = [this](double now) {
    const Sight sight = bench.sight(now);
    bench.measure(sight);
    return bench.said(sight, {});
  };
  work(0, 14, 9, 10, weekdays);
  EXPECT_EQ(said(kMonday + 14 * kDay + 3.5 * kHour),
            "around 03:00 this user was active on about 0 of 6.7 days");
  call(kMonday + 14 * kDay + 3.5 * kHour);
  EXPECT_EQ(
      said(kMonday + 14 * kDay + 3.6 * kHour),
      "around 03:00 this user was active on about 0 of 6.7 days; call 2 at such an hour in this session");
  EXPECT_EQ(said(kMonday + 19 * kDay + 9 * kHour), "this user works on weekends on 0 of about 6 days");
}

}  // namespace
}  // namespace tool_firewall
