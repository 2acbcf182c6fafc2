// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "lab.h"

namespace tool_firewall {
namespace {

class IdentityNoveltyTest : public testing::Test {
 protected:
  double raw(std::uint64_t agent, std::uint64_t token) {
    here = bench.sight(kMonday);
    here.identity = {agent, token};
    return bench.measure(here)[0];
  }
  void learn(std::uint64_t agent, std::uint64_t token, bool starts_session = true) {
    Sight sight = bench.sight(kMonday);
    sight.identity = {agent, token};
    Ran ran = SignalBench::ran(sight);
    ran.starts_session = starts_session;
    bench.signal->learn(ran);
  }
  SignalBench bench{make_identity_novelty};
  Sight here;
};

TEST_F(IdentityNoveltyTest, ByHand) {
  EXPECT_EQ(raw(1, 0), 0) << "the first agent is new to nobody";
  learn(1, 0);
  EXPECT_EQ(raw(1, 0), 0);
  EXPECT_NEAR(raw(2, 0), -std::log((1 + 4 * .25 + 1) / 6), 1e-9);
  for (int i = 0; i < 19; ++i) learn(1, 0);
  // 20 sessions, the first with a new one; the last 15 taught the group, which began with one of four, that
  // nothing new comes.
  EXPECT_NEAR(raw(2, 0), -std::log((1 + 4 * (1. / 19) + 1) / 25.), 1e-6);
}

TEST_F(IdentityNoveltyTest, CallsWithinASessionTeachNothingMore) {
  learn(1, 0);
  const double before = raw(2, 0);
  for (int i = 0; i < 50; ++i) learn(1, 0, false);
  EXPECT_EQ(raw(2, 0), before);
}

TEST_F(IdentityNoveltyTest, TokensThatAreMadeForEverySessionSayNothing) {
  for (std::uint64_t i = 1; i <= 100; ++i) learn(1, i);
  EXPECT_LT(raw(1, 1000), .1);
  EXPECT_GT(raw(2, 1000), 3) << "another agent does";
}

TEST_F(IdentityNoveltyTest, TheStrangerOfTheTwoCounts) {
  for (std::uint64_t i = 1; i <= 60; ++i) learn(1, i % 20 + 1);
  const double token = raw(1, 77), agent = raw(2, 1), both = raw(2, 77);
  EXPECT_GT(agent, token);
  EXPECT_EQ(both, agent);
}

TEST_F(IdentityNoveltyTest, WhatIsNotKnownIsNotNew) {
  for (int i = 0; i < 20; ++i) learn(1, 1);
  EXPECT_EQ(raw(0, 0), 0);
  EXPECT_EQ(raw(0, 1), 0);
}

TEST_F(IdentityNoveltyTest, AnAgentIsNoToken) {
  learn(1, 2);
  EXPECT_GT(raw(2, 0), 0) << "though that is the token's";
  EXPECT_GT(raw(0, 1), 0) << "though that is the agent's";
}

TEST_F(IdentityNoveltyTest, TheWindowFades) {
  for (std::uint64_t i = 1; i <= 30; ++i) learn(i, 0);
  const double restless = raw(1000, 0);
  for (int i = 0; i < 300; ++i) learn(1, 0);
  EXPECT_GT(raw(1000, 0), restless + 2);
}

TEST_F(IdentityNoveltyTest, Explains) {
  for (int i = 0; i < 20; ++i) learn(1, 2);
  raw(3, 2);
  EXPECT_EQ(bench.said(here, {}),
            "the user was never seen with this agent; 1 of the last 20 sessions brought a new one");
  raw(1, 3);
  EXPECT_EQ(bench.said(here, {}),
            "the user was never seen with this token; 1 of the last 20 sessions brought a new one");
}

TEST(IdentityNovelty, IsOfTheCallerAndInTheReasons) {
  Lab lab;
  double now = kMonday + 9 * kHour;
  for (int i = 0; i < 100; ++i)
    lab.run({.session = "s" + std::to_string(i), .agent = "desk", .token = "t"}, "query", now += kHour);
  const Verdict verdict = lab.check({.session = "x", .agent = "other", .token = "t"}, "query", now += kHour);
  ASSERT_NE(reason_of(verdict, "identity_novelty"), nullptr);
  EXPECT_LT(verdict.risk, .5) << "nothing to stop a call for by itself";
  EXPECT_EQ(reason_of(lab.check({.session = "y", .agent = "desk", .token = "t"}, "query", now += kHour),
                      "identity_novelty"),
            nullptr);
}

// Records name tokens: whoever reads them must tell a user's tokens apart as the writer did.
TEST(IdentityNovelty, IsTheSameForAReader) {
  Lab writer(journaling(1)), reader;
  double now = kMonday + 9 * kHour;
  for (int i = 0; i < 60; ++i)
    writer.run({.agent = "desk", .token = "t" + std::to_string(i % 3)}, "query", now += kHour);
  for (const std::string& record : writer.journal()) feed(reader.engine, record);
  for (const char* token : {"t0", "t1", "t2", "other"}) {
    const Who who{.session = token, .agent = "desk", .token = token};
    now += kHour;
    EXPECT_EQ(reader.check(who, "query", now).risk, writer.check(who, "query", now).risk) << token;
  }
}

}  // namespace
}  // namespace tool_firewall
