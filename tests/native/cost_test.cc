// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>

#include "journal/snapshot.h"
#include "lab.h"

namespace tool_firewall {
namespace {

class CostTest : public testing::Test {
 protected:
  // The raw score after a call, -1 when the signal has nothing to say of it.
  double spend(double cost, const std::string& tool = "query") { return spend_in(bench, cost, tool); }
  double spend_in(SignalBench& one, double cost, const std::string& tool = "query") {
    const Sight sight = one.sight(now, tool);
    before = one.measure(sight)[0];
    floor_before = one.signal->floor();
    one.signal->count(sight, false);
    Ran ran = SignalBench::ran(sight);
    ran.cost = cost;
    double raw = -1;
    const bool said = one.signal->measure_after(ran, {&raw, 1});
    one.signal->learn(ran);
    floor = one.signal->floor_after();
    numbers = one.signal->numbers_after();
    return said ? raw : -1;
  }
  std::string said() const {
    return bench.signal->explain(numbers, {.user = "a", .tool = "query", .previous = "", .destination = ""});
  }
  SignalBench bench{make_cost};
  double now = kMonday + 9 * kHour;
  double before = 0, floor_before = 0, floor = 0;
  Numbers numbers;
};

TEST_F(CostTest, TheFirstCallsByHand) {
  // The first says what is usual: nothing stands out.
  EXPECT_EQ(spend(1), 0);
  // One call of ln 1 taught 0 to all: the means stay, the tool's and the user's are less uncertain by half;
  // the variance is that of one value (0) and 15 of the prior.
  const double deviation = std::sqrt(15 * .25 / 16 + .25 / 2 + .25 / 2);
  EXPECT_NEAR(spend(std::exp(1)), 1 / deviation, 1e-4);
}

TEST_F(CostTest, WithoutACostItIsSilent) {
  for (int i = 0; i < 50; ++i) spend(.01);
  for (const double none : {kNoCost, 0., -1., -HUGE_VAL}) {
    EXPECT_EQ(spend(none), -1) << none;
    EXPECT_EQ(floor, 0);
  }
}

TEST_F(CostTest, TheUsualIsOrdinaryAndADearCallIsNot) {
  std::mt19937 random(41);
  std::normal_distribution<double> noise(0, .2);
  for (int i = 0; i < 200; ++i) {
    const double raw = spend(.02 * std::exp(noise(random)));
    now += 60;
    if (i > 30) {
      EXPECT_LT(raw, 4) << i;
    }
  }
  const double dear = spend(.02 * 30);
  EXPECT_GT(dear, 5);
  EXPECT_NEAR(numbers.value, .6, 1e-9);
  EXPECT_NEAR(numbers.baseline, .02, .005);
  EXPECT_EQ(said().find("this call of query cost 0.6; usual is 0.0"), 0U) << said();
}

TEST_F(CostTest, OfAToolThatIsDearForEverybodyADearCallIsOrdinary) {
  for (int i = 0; i < 200; ++i) {
    spend(.01, "query");
    spend(2, "train");
    now += 60;
  }
  EXPECT_LT(spend(2, "train"), 1);
  EXPECT_GT(spend(2, "query"), 5);
}

TEST_F(CostTest, CheapIsNeverStrange) {
  for (int i = 0; i < 100; ++i) spend(1);
  EXPECT_EQ(spend(.0001), 0);
}

TEST_F(CostTest, SeveralCallsTogetherSayMoreThanEach) {
  for (int i = 0; i < 300; ++i) {
    spend(.01 * (i % 2 == 0 ? .8 : 1.25));
    now += 60;
  }
  now += kHour;
  double last = 0;
  for (int i = 1; i <= 6; ++i) {
    const double raw = spend(.02);
    EXPECT_GE(raw, last) << i;
    last = raw;
    now += 60;
  }
  EXPECT_EQ(static_cast<int>(numbers.detail[0]), 2) << "together";
  EXPECT_GE(numbers.detail[1], 3);
  EXPECT_NE(said().find("calls together were dearer than usual"), std::string::npos) << said();
}

TEST_F(CostTest, BeforeACallTheRunSoFarIsSaid) {
  for (int i = 0; i < 300; ++i) {
    spend(.01);
    now += 60;
    EXPECT_EQ(before, 0) << i;
  }
  const double first = spend(.5);
  EXPECT_EQ(before, 0) << "its own cost is not known";
  now += 60;
  spend(.01);
  EXPECT_GT(before, 2) << "what the last one was";
  EXPECT_LE(before, first);
  spend(.01);
  EXPECT_EQ(before, 0) << "while the last was dear";
  spend(.5);
  now += kHour;
  spend(.01);
  EXPECT_EQ(before, 0) << "and not long ago";
  spend(.5);
  bench.session.begin(99, SignalBench::kState);
  spend(.01);
  EXPECT_EQ(before, 0) << "and in this session";
}

TEST_F(CostTest, OneWildCallTeachesLittle) {
  SignalBench calm(make_cost);
  for (int i = 0; i < 100; ++i) {
    spend(.01);
    spend_in(calm, .01);
  }
  spend(1e6);
  spend_in(calm, .01);
  EXPECT_LT(bench.fact("times_usual", now), calm.fact("times_usual", now) * 1.3);
}

TEST_F(CostTest, ASlowRampIsADriftFromWhereItBegan) {
  int drifted = 0;
  for (int day = 0; day < 60 && drifted == 0; ++day) {
    for (int i = 0; i < 20; ++i) {
      now = kMonday + day * kDay + 9 * kHour + i * 600;
      const double raw = spend(.01 * std::pow(1.05, std::max(0, day - 5)));
      EXPECT_LT(raw, 4) << "no single call stands out, day " << day;
      if (floor > 0 && drifted == 0) drifted = day;
      if (floor > 0) {
        EXPECT_EQ(floor, .5);
        EXPECT_NE(said().find("dearer and dearer"), std::string::npos) << said();
        break;
      }
    }
  }
  EXPECT_GT(drifted, 10);
  EXPECT_LT(drifted, 40) << "three times at the most";
}

TEST_F(CostTest, SteadyUseNeverDrifts) {
  std::mt19937 random(42);
  std::lognormal_distribution<double> cost(-4.6, .7);
  for (int day = 0; day < 120; ++day) {
    for (int i = 0; i < 25; ++i) {
      now = kMonday + day * kDay + 9 * kHour + i * 600;
      spend(cost(random));
      ASSERT_EQ(floor, 0) << "day " << day << ", call " << i;
    }
  }
}

TEST_F(CostTest, AnAcceptedWayOfWorkingIsTheNewReference) {
  const auto days = [&](int from, int to, double cost) {
    int floors = 0;
    for (int day = from; day < to; ++day) {
      for (int i = 0; i < 20; ++i) {
        now = kMonday + day * kDay + 9 * kHour + i * 600;
        spend(cost);
        floors += floor > 0 ? 1 : 0;
      }
    }
    return floors;
  };
  EXPECT_EQ(days(0, 10, .01), 0);
  EXPECT_GT(days(10, 14, .04), 0);
  bench.signal->accept(bench.user, "burst");
  EXPECT_GT(days(14, 18, .04), 0) << "that was about something else";
  bench.signal->accept(bench.user, "cost");
  EXPECT_EQ(days(18, 40, .04), 0);
  EXPECT_GT(days(40, 44, .2), 0) << "from there on it is watched again";
}

TEST_F(CostTest, BudgetsAreAbsolute) {
  SignalBench strict(make_cost, {.session_budget = 1, .day_budget = 3});
  for (int i = 0; i < 10; ++i) {
    spend_in(strict, .1);
    EXPECT_EQ(floor, 0) << i;
    now += 60;
  }
  spend_in(strict, .1);
  EXPECT_EQ(floor_before, 0);
  EXPECT_EQ(floor, .5);
  EXPECT_EQ(said(), "this session has cost 1.1; its budget is 1");
  spend_in(strict, kNoCost);
  EXPECT_EQ(floor_before, .5) << "before the next one too";
  for (int session = 2; session < 4; ++session) {
    strict.session.begin(static_cast<std::uint64_t>(session), SignalBench::kState);
    spend_in(strict, .9);
    EXPECT_EQ(floor, 0);
  }
  strict.session.begin(9, SignalBench::kState);
  spend_in(strict, .2);
  EXPECT_EQ(floor, .5);
  EXPECT_EQ(said(), "this user has spent 3.1 today; the budget is 3");
  now += kDay;
  spend_in(strict, .2);
  EXPECT_EQ(floor_before, 0) << "another day";
  EXPECT_EQ(floor, 0);
}

TEST_F(CostTest, ExtremeCostsBreakNothing) {
  for (const double cost : {1e12, 1e-300, 5e-324, .01, 1e12}) {
    for (int i = 0; i < 3; ++i) {
      const double raw = spend(cost);
      ASSERT_TRUE(std::isfinite(raw)) << cost << ": " << raw;
      ASSERT_TRUE(std::isfinite(bench.fact("times_usual", now))) << cost;
    }
  }
  for (int i = 0; i < 200; ++i) spend(.01);
  EXPECT_LT(spend(.01), 2) << "and it finds back";
}

TEST_F(CostTest, AdoptsNoNonsense) {
  for (int i = 0; i < 20; ++i) spend(.01);
  const std::span<std::byte> state = bench.signal->bytes_in(bench.user);
  const std::vector<std::byte> good(state.begin(), state.end());
  std::vector<std::byte> own(good.size());
  bench.signal->adopt(good, own);
  EXPECT_EQ(own, good);
  const std::uint32_t next = 10;
  const std::size_t at = 3 * 8 + 10 * 4;  // after the times and the run
  std::vector<std::byte> bad = good, into(good.size());
  std::memcpy(&bad[at], &next, sizeof next);
  bench.signal->adopt(bad, into);
  EXPECT_EQ(into, std::vector<std::byte>(good.size()));
}

// In the engine.

TEST(Cost, RunningThirtyTimesTheUsualIsSeenAfterTheCall) {
  Lab lab;
  const Who alice;
  double now = kMonday + 9 * kHour;
  std::mt19937 random(43);
  std::normal_distribution<double> noise(0, .3);
  for (int i = 0; i < 400; ++i) lab.complete(alice, "query", now += 300, .01 * std::exp(noise(random)));
  const Verdict verdict = lab.check(alice, "query", now += 300);
  EXPECT_LT(verdict.risk, 1. / 3);
  const Aftermath after = lab.end(verdict, now, .3);
  EXPECT_GE(after.risk, 1. / 3);
  EXPECT_GE(after.decision, Decision::kAudit);
  ASSERT_NE(reason_of(after, "cost"), nullptr);
  EXPECT_EQ(after.incident, verdict.incident);
}

TEST(Cost, WhatIsNoCostIsNotKnown) {
  Lab lab, without;
  double now = kMonday + 9 * kHour;
  const double costs[] = {HUGE_VAL, -HUGE_VAL, -1, 1e13, 1e300, kNoCost, std::numeric_limits<double>::max()};
  for (int i = 0; i < 140; ++i) {
    now += 60;
    const double cost = i % 2 == 0 ? .01 : costs[static_cast<std::size_t>(i / 2) % std::size(costs)];
    const double with = lab.complete({}, "query", now, cost).risk;
    EXPECT_EQ(without.complete({}, "query", now, i % 2 == 0 ? .01 : kNoCost).risk, with) << i << ", " << cost;
  }
  Lab restored;
  restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
  EXPECT_EQ(restored.check({}, "query", now).risk, lab.check({}, "query", now).risk);
}

TEST(Cost, WhateverTheUnitTheFirstCallsOfATenantAreOrdinary) {
  for (const double unit : {1e-6, .01, 1., 500., 1e9}) {
    EngineSettings settings;
    settings.model.signals.burn_spike_floor = 1e15;
    Lab lab(settings);
    double now = kMonday + 9 * kHour;
    for (int i = 0; i < 20; ++i) {
      const Aftermath after = lab.complete({}, "query", now += 600, unit * (i % 3 == 0 ? 1.2 : .9));
      EXPECT_LT(after.risk, 1. / 3) << "unit " << unit << ", call " << i;
    }
  }
}

}  // namespace
}  // namespace tool_firewall
