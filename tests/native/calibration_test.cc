// SPDX-License-Identifier: Apache-2.0
#include "behavior/calibration.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "lab.h"

namespace tool_firewall {
namespace {

constexpr Prior kRamp = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};
constexpr Prior kMostlyZero = {{0, 0, 0, 0, 2, 4, 6, 7, 8, 9, 10}};

TEST(Prior, GivesSurpriseByHand) {
  struct Row {
    const char* name;
    Prior prior;
    double score, expected;
  };
  const double slope = (11. - 8) / (std::log(.002) - std::log(.0002));  // of the last four points
  const Row rows[] = {
      {"the first point", kRamp, 1, -std::log(.5)},
      {"a point inside", kRamp, 6, -std::log(.01)},
      {"the last point", kRamp, 11, -std::log(.0002)},
      {"halfway between two points", kRamp, 3.5, (-std::log(.1) - std::log(.05)) / 2},
      {"a quarter of the way", kRamp, 8.25, -std::log(.002) * .75 - std::log(.001) * .25},
      {"below the first point", kRamp, .25, -std::log(.5) * .25},
      {"nothing", kRamp, 0, 0},
      {"below nothing", kRamp, -5, 0},
      {"beyond the last point", kRamp, 12, -std::log(.0002) + 1 / slope},
      {"far beyond, capped", kRamp, 1000, 20},
      {"zero where most are zero", kMostlyZero, 0, 0},
      {"the first that differs", kMostlyZero, 1, (-std::log(.05) - std::log(.02)) / 2},
      {"after flat points", kMostlyZero, 2, -std::log(.02)},
  };
  for (const Row& row : rows) EXPECT_NEAR(row.prior.surprise(row.score), row.expected, 1e-12) << row.name;
}

TEST(Prior, ASteepPriorStillHasASlopeBeyondTheLastPoint) {
  constexpr Prior flat_end = {{1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8}};
  // .15 * 8 / -ln .0002: the least slope.
  EXPECT_NEAR(flat_end.surprise(9), -std::log(.0002) + 1 / (.15 * 8 / -std::log(.0002)), 1e-12);
}

TEST(Prior, NeverFallsAsTheScoreRises) {
  for (const Prior& prior : {kRamp, kMostlyZero}) {
    double before = 0;
    for (double score = -1; score < 40; score += .01) {
      const double now = prior.surprise(score);
      ASSERT_GE(now, before) << score;
      ASSERT_LE(now, 20) << score;
      before = now;
    }
  }
}

TEST(Calibrator, ShrinksByTheFormula) {
  Calibrator calibrator;
  for (int i = 0; i < 300; ++i) calibrator.learn(2);  // bin 8: 2.00 to 2.25
  for (int i = 0; i < 100; ++i) calibrator.learn(5);  // bin 20
  struct Row {
    const char* name;
    double surprise, larger;
  };
  const Row rows[] = {
      {"below both bins", 1, 400},
      {"at the start of the lower bin", 2, 400},
      {"a half into the lower bin", 2.125, 250},
      {"between", 3, 100},
      {"a quarter into the upper bin", 5.0625, 75},
      {"above both", 6, 0},
  };
  for (const Row& row : rows)
    for (const double parent : {1., .5, 1e-6})
      EXPECT_NEAR(calibrator.tail(row.surprise, parent, 1000), (row.larger + 1000 * parent) / (400 + 1000),
                  1e-12)
          << row.name << ", parent " << parent;
}

TEST(Calibrator, WithoutSamplesIsItsParent) {
  const Calibrator calibrator;
  for (const double parent : {1., .01, 2e-9}) EXPECT_DOUBLE_EQ(calibrator.tail(3, parent, 300), parent);
}

TEST(Calibrator, TheGroupShrinksToTheTenantAndTheTenantToThePrior) {
  Calibrator tenant, group;
  for (int i = 0; i < 3000; ++i) tenant.learn(i < 600 ? 8 : 1);  // a fifth are surprising
  for (int i = 0; i < 100; ++i) group.learn(i < 90 ? 8 : 1);     // nine tenths here
  const double prior = std::exp(-4.);
  const double in_tenant = tenant.tail(4, prior, kPriorStrength);
  EXPECT_NEAR(in_tenant, (600 + 1000 * prior) / 4000, 1e-12);
  EXPECT_NEAR(group.tail(4, in_tenant, kTenantStrength), (90 + 300 * in_tenant) / 400, 1e-12);
}

TEST(Calibrator, HalvesWhenFullAndKeepsTheShares) {
  Calibrator calibrator;
  for (int i = 0; i < 8000; ++i) calibrator.learn(i % 4 == 0 ? 6 : 1);
  EXPECT_EQ(calibrator.samples(), 8000);
  calibrator.learn(1);
  EXPECT_EQ(calibrator.samples(), 4000.5F);
  EXPECT_NEAR(calibrator.tail(3, .5, 100), (1000 + 100 * .5) / (4000.5 + 100), 1e-9);
  for (int i = 0; i < 100'000; ++i) calibrator.learn(1);
  EXPECT_LE(calibrator.samples(), Calibrator::kFull);
  EXPECT_LT(calibrator.tail(3, 0, 0), .001) << "old traffic fades";
}

TEST(Calibrator, TheTopBinCountsHalf) {
  Calibrator calibrator;
  for (int i = 0; i < 10; ++i) calibrator.learn(20);
  EXPECT_NEAR(calibrator.tail(20, 0, 10), 5. / 20, 1e-12);
}

TEST(Calibrators, TeachHeldBackScoresAfterAnHour) {
  Calibrators calibrators(2);
  calibrators.learn(0, 1);
  calibrators.learn_later(0, 8, kMonday);
  calibrators.learn_later(1, 8, kMonday + 500);
  struct Row {
    double after;
    float first, second;
  };
  for (const Row& row : {Row{1, 1, 0}, Row{3599, 1, 0}, Row{3600, 2, 0}, Row{4099, 2, 0}, Row{4100, 2, 1}}) {
    calibrators.catch_up(kMonday + row.after);
    EXPECT_EQ(calibrators.of(0).samples(), row.first) << row.after;
    EXPECT_EQ(calibrators.of(1).samples(), row.second) << row.after;
  }
}

TEST(Calibrators, ARecordALittleOutOfOrderTeachesNothingEarly) {
  Calibrators calibrators(1);
  calibrators.learn_later(0, 8, kMonday);
  for (const double ago : {.05, 1., 60., 1800.}) {
    calibrators.catch_up(kMonday - ago);
    EXPECT_EQ(calibrators.of(0).samples(), 0) << ago;
  }
}

TEST(Calibrators, AClockThatRanAheadHoldsUpNobody) {
  Calibrators calibrators(1);
  calibrators.learn_later(0, 8, kMonday + 3650 * kDay);
  calibrators.learn_later(0, 8, kMonday);
  calibrators.catch_up(kMonday + kHour);
  EXPECT_EQ(calibrators.of(0).samples(), 2);
}

TEST(Calibrators, BeyondTheLimitTheOldestTeachesEarly) {
  Calibrators calibrators(1);
  for (std::size_t i = 0; i < Calibrators::kMostWaiting + 5; ++i) calibrators.learn_later(0, 8, kMonday);
  EXPECT_EQ(calibrators.of(0).samples(), 5);
}

TEST(Calibrator, IsAlwaysAProbability) {
  std::mt19937 random(11);
  std::uniform_real_distribution<double> surprises(0, 20);
  Calibrator calibrator;
  for (int i = 0; i < 30'000; ++i) {
    const double at = surprises(random);
    const double tail = calibrator.tail(at, std::exp(-at), 1000);
    ASSERT_GT(tail, 0);
    ASSERT_LE(tail, 1);
    calibrator.learn(surprises(random));
  }
}

}  // namespace
}  // namespace tool_firewall
