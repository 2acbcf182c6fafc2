// SPDX-License-Identifier: Apache-2.0
#include "behavior/fusion.h"

#include <gtest/gtest.h>

namespace tool_firewall {
namespace {

constexpr Prior kPrior = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};

TEST(Fusion, TheBandsByHand) {
  struct Row {
    const char* name;
    double evidence, risk;
  };
  const Row rows[] = {{"nothing", 0, 0},
                      {"half of the first piece", 3.75, .058},
                      {"1 in 100", 15.4, 1. / 3},
                      {"between the bands", 18.95, (1. / 3 + .5) / 2},
                      {"1 in 1,000", 22.5, .5},
                      {"1 in 10,000", 34, .667},
                      {"beyond", 47, (.667 + 1) / 2},
                      {"all", 60, 1},
                      {"more than all", 1e9, 1}};
  for (const Row& row : rows) EXPECT_NEAR(risk_of(row.evidence), row.risk, 1e-12) << row.name;
}

TEST(Fusion, RiskNeverFallsAndStaysInItsRange) {
  double before = 0;
  for (double evidence = 0; evidence < 100; evidence += .01) {
    const double risk = risk_of(evidence);
    ASSERT_GE(risk, before);
    ASSERT_LE(risk, 1);
    before = risk;
  }
}

TEST(Fusion, SharesByHand) {
  const Channel channel{.name = "x", .prior = kPrior, .weight = 2};
  EXPECT_EQ(share(channel, {1.6, 9}), 0) << "the ordinary says nothing";
  EXPECT_NEAR(share(channel, {1.7, 0}), 2 * (1.7 - .8), 1e-12);
  EXPECT_NEAR(share(channel, {5, 0}), 2 * (5 - .8), 1e-12);
  EXPECT_NEAR(share(channel, {19, 0}), 2 * (5.5 - .8), 1e-12) << "capped";
}

TEST(Fusion, SpecialistsStandAlone) {
  const Channel by_group{.name = "x", .prior = kPrior, .alone_group = 2.8};
  const Channel by_tenant{.name = "x", .prior = kPrior, .alone_tenant = 2.5};
  EXPECT_NEAR(alone(by_group, {10, 3}), 28, 1e-12) << "not capped";
  EXPECT_NEAR(alone(by_tenant, {10, 3}), 7.5, 1e-12);
  EXPECT_EQ(alone({.name = "x", .prior = kPrior, .weight = 2}, {10, 10}), 0);
}

}  // namespace
}  // namespace tool_firewall
