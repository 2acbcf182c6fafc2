// SPDX-License-Identifier: Apache-2.0
// The scenarios the firewall was asked for, at the engine.
#include <gtest/gtest.h>

#include "lab.h"

namespace tool_firewall {
namespace {

// alice has called db_query 50 times on five days.
struct Story : testing::Test {
  Lab lab;
  Who alice;
  double last = lab.history(alice, {"db_query"}, 5, 10);
  double now = kMonday + 7 * kDay + 9.5 * kHour;  // the next Monday, within her hours
};

TEST_F(Story, HerOwnHistoryWasNeverStopped) {
  Lab fresh;
  for (int day = 0; day < 5; ++day)
    for (int i = 0; i < 10; ++i)
      EXPECT_LT(fresh.run(alice, "db_query", kMonday + day * kDay + 9 * kHour + i * 10 * kMinute).risk, .5)
          << "day " << day << ", call " << i;
}

TEST_F(Story, AnotherQueryIsOrdinary) {
  const Verdict first = lab.run(alice, "db_query", now);
  EXPECT_LT(first.risk, .1);
  EXPECT_EQ(first.decision, Decision::kAllow);
  const Verdict second = lab.run(alice, "db_query", now + 10 * kMinute);
  EXPECT_LT(second.risk, .1);
}

TEST_F(Story, TheFirstDeleteStandsOut) {
  struct Row {
    const char* name;
    bool after_a_query;
  };
  for (const Row& row : {Row{"after a query", true}, Row{"as the first call of a session", false}}) {
    Lab fresh;
    fresh.history(alice, {"db_query"}, 5, 10);
    const double query = fresh.run(alice, "db_query", now).risk;
    Who who = alice;
    if (!row.after_a_query) who.session = "another";
    const Verdict verdict = fresh.check(who, "delete_records", now + 60);
    EXPECT_GE(verdict.risk, .5) << row.name;
    EXPECT_GE(verdict.risk, 3 * query) << row.name;
    EXPECT_EQ(verdict.decision, Decision::kDeny) << row.name;
    ASSERT_FALSE(verdict.reasons.empty()) << row.name;
    EXPECT_NE(reason_of(verdict, "novelty"), nullptr) << row.name;
  }
}

TEST_F(Story, InBlockModeItIsStoppedWithReasons) {
  lab.policy.mode = Mode::kBlock;
  const Verdict query = lab.run(alice, "db_query", now);
  EXPECT_FALSE(query.blocked);
  const Verdict verdict = lab.check(alice, "delete_records", now + 60);
  EXPECT_TRUE(verdict.blocked);
  EXPECT_EQ(verdict.ticket, 0U);
  ASSERT_FALSE(verdict.reasons.empty());
  const Reason* reason = reason_of(verdict, "novelty");
  ASSERT_NE(reason, nullptr);
  const std::string text =
      explain(reason->signal, reason->numbers, {alice.user, "delete_records", "db_query", ""});
  EXPECT_NE(text.find("the tool delete_records is new to this user"), std::string::npos) << text;
  EXPECT_GE(lab.check(alice, "delete_records", now + 120).risk, .5) << "and it stays stopped";
}

TEST_F(Story, AWarnedDeleteDoesNotMakeTheNextOneOrdinary) {
  lab.policy.mode = Mode::kWarn;
  for (int i = 0; i < 5; ++i)
    EXPECT_GE(lab.run(alice, "delete_records", now + i * 20 * kMinute).risk, .5) << i;
}

TEST_F(Story, TwentyFiveCallsInThirtySecondsAreABurst) {
  for (const bool varied : {false, true}) {
    Lab fresh;
    fresh.history(
        alice,
        varied ? std::vector<std::string>{"db_query", "db_list"} : std::vector<std::string>{"db_query"}, 5,
        10);
    for (int i = 1; i <= 25; ++i) {
      const Verdict verdict = fresh.run(alice, varied && i % 2 == 0 ? "db_list" : "db_query", now + i * 1.2);
      if (i < 15) {
        EXPECT_LT(verdict.risk, .5) << "call " << i;
      } else if (i > 20) {
        EXPECT_GE(verdict.risk, .5) << "call " << i;
        EXPECT_NE(reason_of(verdict, "burst"), nullptr) << "call " << i;
        EXPECT_EQ(verdict.decision, Decision::kDeny);
      }
    }
  }
}

TEST_F(Story, ABlockedBurstEndsByItself) {
  lab.policy.mode = Mode::kBlock;
  for (int i = 0; i < 25; ++i) lab.run(alice, "db_query", now + i);
  EXPECT_GE(lab.engine.counts().blocked, 5U);
  EXPECT_FALSE(lab.run(alice, "db_query", now + 10 * kMinute).blocked);
}

TEST_F(Story, BurstsAreCaughtFromTheFirstDay) {
  Lab fresh;
  double risk = 0;
  for (int i = 0; i < 21; ++i) risk = fresh.run(alice, "db_query", now + i).risk;
  EXPECT_GE(risk, .5);
}

TEST_F(Story, LearningModeNeverBlocks) {
  lab.policy.mode = Mode::kLearning;
  bool denied = false;
  for (int i = 0; i < 200; ++i) {
    const Verdict verdict =
        lab.run(alice, i % 3 == 0 ? "delete_records" + std::to_string(i) : "db_query", now + i * .5);
    EXPECT_FALSE(verdict.blocked);
    EXPECT_NE(verdict.ticket, 0U);
    denied |= verdict.decision == Decision::kDeny;
  }
  EXPECT_TRUE(denied) << "it scores all the same";
}

TEST_F(Story, AnHourBobNeverWorks) {
  const Who bob{.user = "bob@example.com"};
  for (int day = 0; day < 14; ++day)
    for (int i = 0; i < 6; ++i)
      lab.run({.user = bob.user, .session = "d" + std::to_string(day) + "-" + std::to_string(i)}, "db_query",
              kMonday + day * kDay + (9 + i) * kHour);
  const double night = kMonday + 14 * kDay + 2.5 * kHour;
  const Verdict verdict = lab.check(bob, "db_query", night);
  EXPECT_NE(reason_of(verdict, "off_hours"), nullptr) << verdict.risk;
  const Verdict by_day =
      lab.check({.user = bob.user, .session = "day"}, "db_query", kMonday + 14 * kDay + 11.5 * kHour);
  EXPECT_EQ(reason_of(by_day, "off_hours"), nullptr);
  EXPECT_GT(verdict.risk, by_day.risk);
}

}  // namespace
}  // namespace tool_firewall
