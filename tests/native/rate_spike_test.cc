// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "behavior/fusion.h"
#include "behavior/tool_hours.h"
#include "lab.h"

namespace tool_firewall {
namespace {

class RateSpikeTest : public testing::Test {
 protected:
  // `calls` calls within an hour from `from`; which of them (from 1) are told of.
  std::vector<int> hour(double from, int calls, const std::string& tool = "query") {
    std::vector<int> told;
    for (int i = 1; i <= calls; ++i) {
      const Sight sight = bench.sight(from + (i - 1) * 3599. / calls, tool);
      bench.measure(sight);
      if (bench.signal->floor() > 0) {
        EXPECT_EQ(bench.signal->floor(), kNotable) << "listed, never stopped";
        told.push_back(i);
        said = bench.said(sight, {.user = "a", .tool = tool, .previous = "", .destination = ""});
        numbers = bench.signal->numbers(sight);
      }
      bench.signal->count(sight, false);
    }
    return told;
  }
  using Told = std::vector<int>;
  SignalBench bench{make_rate_spike, {.rate_spike_floor = 20}};
  double nine = kMonday + 9 * kHour;
  std::string said;
  Numbers numbers;
};

TEST_F(RateSpikeTest, WhileColdTheFloorAloneAndEachDoubling) {
  EXPECT_EQ(hour(nine, 100), (Told{20, 40, 80}));
  EXPECT_EQ(
      said,
      "query was called 80 times in this hour (Monday 09:00 UTC); there is no week to compare it with yet");
  EXPECT_EQ(hour(nine + kHour, 19), Told{}) << "each hour for itself";
  EXPECT_EQ(hour(nine + kHour, 1), Told{1}) << "an hour goes on whenever its calls come";
}

TEST_F(RateSpikeTest, EachToolForItself) {
  EXPECT_EQ(hour(nine, 15, "query"), Told{});
  EXPECT_EQ(hour(nine, 15, "export"), Told{});
}

TEST_F(RateSpikeTest, TheHourOfTheWeekBeforeIsWhatCounts) {
  hour(nine, 60);
  EXPECT_EQ(hour(nine + 7 * kDay, 61), Told{}) << "as a week ago";
  EXPECT_EQ(hour(nine + 7 * kDay + kHour, 25), Told{20}) << "the hour after had no calls";
  EXPECT_EQ(hour(nine + 8 * kDay, 25), Told{20}) << "nor had Tuesday";
}

TEST_F(RateSpikeTest, ThreeTimesOrSixDeviationsAreASpike) {
  hour(nine, 60);
  // Of 60 the deviation is sqrt(60 + 15^2) = 16.9: six of them end at 161.3, before three times 60.
  const Told told = hour(nine + 7 * kDay, 400);
  EXPECT_EQ(told, (Told{162, 323}));
  EXPECT_EQ(numbers.baseline, 60);
  EXPECT_NEAR(static_cast<double>(numbers.detail[0]), (323 - 60) / std::sqrt(60 + 225.), 1e-3);
  EXPECT_EQ(said, "query was called 323 times in this hour (Monday 09:00 UTC); usual is 60 (z 15.6)");
  hour(nine + kDay, 30);
  EXPECT_EQ(hour(nine + 8 * kDay, 100), Told{static_cast<int>(std::ceil(30 + 6 * std::sqrt(30 + 56.25)))});
}

TEST_F(RateSpikeTest, OfTwoWeeksTheMean) {
  hour(nine, 100);
  hour(nine + 7 * kDay, 200);
  const double usual = 150;
  const double at = std::min(3 * usual, usual + 6 * std::sqrt(usual + std::pow(usual / 4, 2)));
  const Told told = hour(nine + 14 * kDay, 600);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told.front(), static_cast<int>(std::ceil(at)));
  EXPECT_EQ(numbers.baseline, 150);
  EXPECT_EQ(numbers.detail[2], 2);
}

TEST_F(RateSpikeTest, TheWeekBeforeThoseIsOverwritten) {
  hour(nine, 1000);
  hour(nine + 7 * kDay, 50);
  hour(nine + 14 * kDay, 50);
  const Told told = hour(nine + 21 * kDay, 300);
  ASSERT_FALSE(told.empty()) << "the first week is forgotten";
  EXPECT_EQ(numbers.baseline, 50);
}

TEST_F(RateSpikeTest, AWeekWithoutCallsCountsAsNone) {
  hour(nine, 100);
  const Told told = hour(nine + 14 * kDay, 300);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(numbers.baseline, 50) << "the mean of 100 and none";
  EXPECT_EQ(hour(nine + 70 * kDay, 25), Told{20}) << "months later nothing is usual";
}

TEST_F(RateSpikeTest, BlockedCallsCount) {
  for (int i = 1; i <= 30; ++i) {
    const Sight sight = bench.sight(nine + i);
    bench.measure(sight);
    EXPECT_EQ(bench.signal->floor() > 0, i == 20) << i;
    bench.signal->count(sight, true);
  }
}

TEST(ToolHours, WeeksBeginOnMondayUtc) {
  const Hasher hasher(kKey);
  const Tool tool(hasher, "", "query");
  EXPECT_EQ(ToolHours(hasher, tool, kMonday).hour_of_week(), 0);
  EXPECT_EQ(ToolHours(hasher, tool, kMonday - 1).hour_of_week(), 167);
  EXPECT_EQ(ToolHours(hasher, tool, 0).hour_of_week(), 72) << "1970 began on a Thursday";
  EXPECT_EQ(ToolHours(hasher, tool, -1).hour_of_week(), 71);
  EXPECT_EQ(ToolHours(hasher, tool, -1e11).hour_of_week() >= 0, true);
}

TEST(ToolHours, HoldsForAnyTime) {
  const Hasher hasher(kKey);
  const Tool tool(hasher, "", "query");
  ShardedCountTable counts(10'000);
  for (double now = -1e12; now < 1e12; now += 3.7e10) {
    const ToolHours hours(hasher, tool, now);
    ASSERT_EQ(hours.calls(counts), 0) << now;
    hours.add_call(counts);
    hours.add_cost(counts, .5);
    ASSERT_EQ(hours.calls(counts), 1) << now;
    ASSERT_NEAR(hours.add_cost(counts, 0).before, .5, 1e-6);
    ASSERT_GE(hours.usual(counts, -1e12).calls, 0);
  }
}

TEST(ToolHours, HoldsAnyCost) {
  const Hasher hasher(kKey);
  const Tool tool(hasher, "", "query");
  ShardedCountTable counts(10'000);
  const ToolHours hours(hasher, tool, kMonday);
  hours.add_call(counts);
  for (const double cost : {1e12, 0., 1e12, 1e-300, 1.}) {
    hours.add_cost(counts, cost);
    ASSERT_TRUE(std::isfinite(hours.add_cost(counts, 0).before)) << cost;
    ASSERT_GE(hours.add_cost(counts, 0).before, 0) << cost;
  }
  EXPECT_EQ(hours.calls(counts), 1);
}

TEST(RateSpike, IsOfATenantTogetherAndListsOnce) {
  EngineSettings settings;
  settings.model.signals.rate_spike_floor = 50;
  Lab lab(settings);
  int told = 0;
  for (int i = 0; i < 90; ++i) {
    const Verdict verdict = lab.run({.user = "u" + std::to_string(i)}, "query", kMonday + 9 * kHour + i * 30);
    lab.run({.user = "u" + std::to_string(i), .tenant = "other"}, "mail", kMonday + 9 * kHour + i * 30);
    const Reason* reason = reason_of(verdict, "rate_spike");
    if (reason == nullptr) continue;
    ++told;
    EXPECT_EQ(reason->numbers.value, 50);
    EXPECT_GE(verdict.decision, Decision::kAudit);
  }
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace tool_firewall
