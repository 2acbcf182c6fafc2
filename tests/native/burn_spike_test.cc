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

class BurnSpikeTest : public testing::Test {
 protected:
  // `calls` calls of `cost` within an hour; which of them (from 1) are told of.
  std::vector<int> hour(double from, int calls, double cost, const std::string& tool = "query") {
    std::vector<int> told;
    for (int i = 1; i <= calls; ++i) {
      Ran ran = SignalBench::ran(bench.sight(from + (i - 1) * 3599. / calls, tool));
      ran.arguments = nullptr;
      ran.cost = cost;
      ToolHours(bench.hasher, *ran.tool, ran.now).add_call(bench.tenant.counts);  // as rate_spike does
      const bool spikes = bench.signal->measure_after(ran, {});
      EXPECT_EQ(bench.signal->floor_after(), spikes ? kNotable : 0) << "listed, never more";
      if (!spikes) continue;
      told.push_back(i);
      numbers = bench.signal->numbers_after();
      said = bench.signal->explain(numbers, {.user = "a", .tool = tool, .previous = "", .destination = ""});
    }
    return told;
  }
  using Told = std::vector<int>;
  SignalBench bench{make_burn_spike, {.burn_spike_floor = 2}};
  double nine = kMonday + 9 * kHour;
  Numbers numbers;
  std::string said;
};

TEST_F(BurnSpikeTest, WhileColdTheFloorAloneAndEachDoubling) {
  EXPECT_EQ(hour(nine, 20, .5), (Told{4, 8, 16}));
  EXPECT_EQ(said, "query cost 8 in this hour (Monday 09:00 UTC); there is no week to compare it with yet");
  EXPECT_EQ(hour(nine + kHour, 3, .5), Told{}) << "each hour for itself";
}

TEST_F(BurnSpikeTest, TheSameHourOfTheWeekBeforeIsWhatCounts) {
  hour(nine, 100, .5);
  EXPECT_EQ(hour(nine + 7 * kDay, 100, .5), Told{});
  // Usual are 50, at .5 a call: the deviation is sqrt(.5 * 50 + 12.5^2) = 13.5, and 50 + 6 * 13.5 = 130.8
  // comes before three times 50.
  const Told told = hour(nine + 14 * kDay, 400, .5);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_NEAR(told[0] * .5, 50 + 6 * std::sqrt(.5 * 50 + 12.5 * 12.5), .5);
  EXPECT_NEAR(numbers.baseline, 50, 1e-3);
  EXPECT_EQ(said.find("query cost 131 in this hour (Monday 09:00 UTC); usual is 50 (z 6.0"),
            std::string::npos);
  EXPECT_EQ(said.substr(0, 14), "query cost 131") << said;
}

TEST_F(BurnSpikeTest, DearerCallsAreASpikeAsMoreCallsAre) {
  hour(nine, 50, .1);
  EXPECT_EQ(hour(nine + 7 * kDay, 50, .1), Told{});
  EXPECT_FALSE(hour(nine + 14 * kDay, 50, 1).empty());
}

TEST_F(BurnSpikeTest, WithoutCostsItIsSilent) {
  EXPECT_EQ(hour(nine, 1000, kNoCost), Told{});
  EXPECT_EQ(hour(nine, 1000, 0), Told{});
  EXPECT_EQ(hour(nine, 1000, -5), Told{});
}

TEST_F(BurnSpikeTest, TheWeekBeforeThoseIsOverwritten) {
  hour(nine, 100, 5);
  hour(nine + 7 * kDay, 100, .1);
  hour(nine + 14 * kDay, 100, .1);
  hour(nine + 21 * kDay, 100, .5);
  EXPECT_NEAR(numbers.baseline, 10, 1e-3);
}

TEST_F(BurnSpikeTest, ACallOfAnHourThatIsOverCountsNoMore) {
  hour(nine, 3, .5);
  Ran late = SignalBench::ran(bench.sight(nine + 60));
  hour(nine + 21 * kDay, 1, .5);  // in the same cell
  late.cost = 100;
  EXPECT_FALSE(bench.signal->measure_after(late, {}));
  EXPECT_NEAR(ToolHours(bench.hasher, *late.tool, nine + 21 * kDay).add_cost(bench.tenant.counts, 0).before,
              .5, 1e-6);
}

TEST(BurnSpike, IsFoundWhenACallHasEnded) {
  EngineSettings settings;
  settings.model.signals.burn_spike_floor = 5;
  Lab lab(settings);
  int told = 0;
  for (int i = 0; i < 60; ++i) {
    const Who who{.user = "u" + std::to_string(i)};
    const Verdict verdict = lab.check(who, "query", kMonday + 9 * kHour + i * 50);
    EXPECT_EQ(reason_of(verdict, "burn_spike"), nullptr);
    const Aftermath after = lab.end(verdict, kMonday + 9 * kHour + i * 50, .125);
    if (reason_of(after, "burn_spike") == nullptr) continue;
    ++told;
    EXPECT_EQ(after.decision, Decision::kAudit);
    EXPECT_GE(after.risk, kNotable);
    EXPECT_EQ(i, 39);
  }
  EXPECT_EQ(told, 1);
}

}  // namespace
}  // namespace tool_firewall
