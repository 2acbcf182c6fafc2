// SPDX-License-Identifier: Apache-2.0
#include "engine/snoozes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "journal/snapshot.h"
#include "lab.h"

namespace tool_firewall {
namespace {

constexpr double kWeek = 7 * kDay;

void set(Snoozes& snoozes, const Scope& scope, double until, double now) {
  snoozes.set({scope, until, 0, "root", "test"}, now);
}

TEST(Snoozes, LastUntilTheirTime) {
  Snoozes snoozes;
  EXPECT_FALSE(snoozes.active("t", "q", "u", kMonday));
  set(snoozes, {}, kMonday + kHour, kMonday);
  EXPECT_TRUE(snoozes.active("t", "q", "u", kMonday));
  EXPECT_TRUE(snoozes.active("t", "q", "u", kMonday + kHour - 1));
  EXPECT_FALSE(snoozes.active("t", "q", "u", kMonday + kHour)) << "expires by itself";
}

TEST(Snoozes, AreClampedToSevenDays) {
  Snoozes snoozes;
  for (const double until : {kMonday + 8 * kDay, kMonday + 3650 * kDay, 1e300}) {
    set(snoozes, {}, until, kMonday);
    ASSERT_EQ(snoozes.all().size(), 1U);
    EXPECT_EQ(snoozes.all()[0].until, kMonday + kWeek);
    EXPECT_EQ(snoozes.all()[0].first, kMonday);
    EXPECT_EQ(snoozes.all()[0].by, "root");
  }
  set(snoozes, {}, kMonday + 2 * kDay, kMonday);
  EXPECT_EQ(snoozes.all()[0].until, kMonday + 2 * kDay);
}

TEST(Snoozes, AChainIsNoLongerThanOne) {
  Snoozes snoozes;
  for (int day = 0; day < 7; ++day) {
    const double now = kMonday + day * kDay;
    set(snoozes, {}, now + 2 * kDay, now);
    ASSERT_EQ(snoozes.all().size(), 1U);
    EXPECT_EQ(snoozes.all()[0].first, kMonday);
    EXPECT_EQ(snoozes.all()[0].until, std::min(now + 2 * kDay, kMonday + kWeek)) << day;
  }
  EXPECT_FALSE(snoozes.active("t", "q", "u", kMonday + kWeek));
}

TEST(Snoozes, AChainBreaksWhenOneRanOutOrWasCleared) {
  Snoozes ran_out, cleared;
  set(ran_out, {}, kMonday + kDay, kMonday);
  set(ran_out, {}, kMonday + 30 * kDay, kMonday + kDay + 1);
  EXPECT_EQ(ran_out.all()[0].first, kMonday + kDay + 1);
  EXPECT_EQ(ran_out.all()[0].until, kMonday + kDay + 1 + kWeek);
  set(cleared, {}, kMonday + 7 * kDay, kMonday);
  set(cleared, {}, 0, kMonday + 6 * kDay);
  EXPECT_TRUE(cleared.empty());
  set(cleared, {}, kMonday + 30 * kDay, kMonday + 6 * kDay);
  EXPECT_EQ(cleared.all()[0].until, kMonday + 13 * kDay);
}

TEST(Snoozes, WhatIsNotAheadClears) {
  for (const double until : {kMonday, kMonday - 1, 0., -1e300, std::nan("")}) {
    Snoozes snoozes;
    set(snoozes, {"t", "", ""}, kMonday + kDay, kMonday);
    set(snoozes, {"t", "", ""}, until, kMonday);
    EXPECT_TRUE(snoozes.empty()) << until;
  }
}

TEST(Snoozes, EachScopeForItself) {
  Snoozes snoozes;
  set(snoozes, {"t", "q", ""}, kMonday + kDay, kMonday);
  set(snoozes, {"", "", "u"}, kMonday + 2 * kDay, kMonday);
  EXPECT_TRUE(snoozes.active("t", "q", "any", kMonday));
  EXPECT_FALSE(snoozes.active("t", "other", "any", kMonday));
  EXPECT_FALSE(snoozes.active("other", "q", "any", kMonday));
  EXPECT_TRUE(snoozes.active("other", "other", "u", kMonday));
  EXPECT_TRUE(snoozes.active("t", "q", "u", kMonday + 1.5 * kDay)) << "any of them is enough";
  EXPECT_FALSE(snoozes.active("t", "q", "any", kMonday + 1.5 * kDay));
}

TEST(Snoozes, TheListIsBoundedAndWhatRanOutMakesRoom) {
  Snoozes snoozes;
  for (std::size_t i = 0; i < Snoozes::kMostScopes + 10; ++i)
    set(snoozes, {"", "", "u" + std::to_string(i)}, kMonday + (i == 0 ? kHour : kDay), kMonday);
  EXPECT_EQ(snoozes.all().size(), Snoozes::kMostScopes);
  EXPECT_FALSE(snoozes.active("", "", "u" + std::to_string(Snoozes::kMostScopes), kMonday));
  set(snoozes, {"", "", "u5"}, kMonday + 2 * kDay, kMonday);
  EXPECT_TRUE(snoozes.active("", "", "u5", kMonday + 1.5 * kDay)) << "one that is there can be prolonged";
  set(snoozes, {"", "", "new"}, kMonday + kDay, kMonday + 2 * kHour);
  EXPECT_TRUE(snoozes.active("", "", "new", kMonday + 3 * kHour));
}

struct EngineSnoozes : testing::Test {
  bool control(const std::string& value, double ts, const Scope& scope = {}) {
    return feed(lab.engine,
                encode(ControlRecord{
                    {99, ++seq, ts}, "snooze", scope.tenant, scope.tool, scope.user, value, "root", "why"}));
  }
  static std::string until(double time) { return std::to_string(time); }
  Lab lab;
  Who alice;
  std::uint64_t seq = 0;
  double now = lab.history(alice, {"query"}, 5, 10) + 23 * kHour;
};

TEST_F(EngineSnoozes, ScoreAndDecideButSayAndStopNothing) {
  lab.policy.mode = Mode::kBlock;
  ASSERT_TRUE(control(until(now + kDay), now));
  const Verdict verdict = lab.check(alice, "remove", now + 60);
  EXPECT_TRUE(verdict.snoozed);
  EXPECT_GE(verdict.risk, .5);
  EXPECT_EQ(verdict.decision, Decision::kDeny) << "what would have been";
  EXPECT_FALSE(verdict.blocked);
  EXPECT_NE(verdict.ticket, 0U);
  EXPECT_FALSE(verdict.reasons.empty());
  lab.end(verdict, now + 61);
  ASSERT_TRUE(control("", now + 70));
  const Verdict after = lab.check(alice, "remove", now + 80);
  EXPECT_FALSE(after.snoozed);
  EXPECT_TRUE(after.blocked) << "it stayed new";
}

TEST_F(EngineSnoozes, EndByThemselvesByTheTimeOfTheCalls) {
  lab.policy.mode = Mode::kBlock;
  ASSERT_TRUE(control(until(now + 600), now));
  EXPECT_FALSE(lab.run(alice, "remove", now + 60).blocked);
  EXPECT_FALSE(lab.run(alice, "remove", now + 599).blocked);
  EXPECT_TRUE(lab.check(alice, "remove", now + 600).blocked);
}

TEST_F(EngineSnoozes, AreForBehaviourNotForWhatCannotBeRead) {
  lab.policy.mode = Mode::kBlock;
  ASSERT_TRUE(control(until(now + kDay), now));
  const Verdict verdict = lab.check(alice, "query", now + 60, unreadable(Inspection::kTooLarge));
  EXPECT_TRUE(verdict.blocked);
  EXPECT_FALSE(verdict.snoozed);
}

TEST_F(EngineSnoozes, AreClampedByTheEngineToo) {
  ASSERT_TRUE(control(until(now + 400 * kDay), now));
  ASSERT_EQ(lab.engine.snoozes().all().size(), 1U);
  EXPECT_EQ(lab.engine.snoozes().all()[0].until, now + kWeek);
  EXPECT_EQ(lab.engine.snoozes().all()[0].why, "why");
}

TEST_F(EngineSnoozes, TimesThatAreNoneAreUnreadable) {
  std::uint64_t wrong = 0;
  for (const char* value : {"tomorrow", "1e5 ", " 1e5", "0x10", "nan", "inf", "-inf", "1,5", "1e999"}) {
    EXPECT_FALSE(control(value, now)) << value;
    EXPECT_EQ(lab.engine.counts().unreadable, ++wrong) << value;
  }
  EXPECT_TRUE(lab.engine.snoozes().empty());
  EXPECT_TRUE(control("0", now));
  EXPECT_TRUE(control("-5", now));
  EXPECT_TRUE(control("1e30", now));
  EXPECT_EQ(lab.engine.snoozes().all()[0].until, now + kWeek);
}

TEST_F(EngineSnoozes, OutliveASnapshot) {
  ASSERT_TRUE(control(until(now + kDay), now, {"acme", "remove", "alice@example.com"}));
  Lab restored;
  restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
  ASSERT_EQ(restored.engine.snoozes().all().size(), 1U);
  const Snooze one = restored.engine.snoozes().all()[0];
  EXPECT_EQ(one.until, now + kDay);
  EXPECT_EQ(one.first, now);
  EXPECT_EQ(one.scope.user, "alice@example.com");
  EXPECT_EQ(one.by, "root");
  EXPECT_TRUE(restored.check(alice, "remove", now + 60).snoozed);
  EXPECT_FALSE(restored.check(alice, "query", now + 60).snoozed);
}

TEST_F(EngineSnoozes, AreInTheRecords) {
  Lab writer(journaling(1));
  writer.history(alice, {"query"}, 5, 10);
  writer.journal();
  feed(writer.engine,
       encode(ControlRecord{{99, 1, now}, "snooze", "", "", "", until(now + kDay), "root", ""}));
  writer.run(alice, "remove", now + 60);
  const std::vector<std::string> records = writer.journal();
  ASSERT_GE(records.size(), 1U);
  EXPECT_TRUE(std::get<CallRecord>(decode(records[0])).snoozed);
  EXPECT_EQ(class_of(records[0]), RecordClass::kFinding) << "recorded as ever";
}

}  // namespace
}  // namespace tool_firewall
