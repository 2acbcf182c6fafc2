// SPDX-License-Identifier: Apache-2.0
// Sessions, and what teaches when.
#include "behavior/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "engine/report.h"
#include "lab.h"

namespace tool_firewall {
namespace {

const Arguments kUnreadable = unreadable(Inspection::kTooDeep);

std::string previous_of(const Verdict& verdict) {
  return verdict.previous == nullptr ? "" : verdict.previous->name;
}

struct Sessions : testing::Test {
  Lab lab;
  Who alice;
};

TEST_F(Sessions, ThirtyMinutesIdleStartsAnew) {
  struct Row {
    const char* name;
    double pause;
    const char* previous;
  };
  for (const Row& row : {Row{"at once", 0, "login"}, Row{"30 minutes", 1800, "login"},
                         Row{"a second more", 1801, ""}, Row{"a month", 30 * kDay, ""}}) {
    Lab fresh;
    fresh.run(alice, "login", kMonday);
    EXPECT_EQ(previous_of(fresh.check(alice, "query", kMonday + row.pause)), row.previous) << row.name;
  }
}

TEST_F(Sessions, EachCallKeepsItAlive) {
  for (int i = 0; i < 10; ++i) lab.run(alice, "query", kMonday + i * 1700);
  EXPECT_EQ(previous_of(lab.check(alice, "export", kMonday + 9 * 1700 + 1700)), "query");
}

TEST_F(Sessions, TheIdleTimeIsASetting) {
  EngineSettings settings;
  settings.model.session_idle = 60;
  Lab minute(settings);
  minute.run(alice, "login", kMonday);
  EXPECT_EQ(previous_of(minute.run(alice, "query", kMonday + 60)), "login");
  EXPECT_EQ(previous_of(minute.run(alice, "query", kMonday + 121)), "");
}

TEST_F(Sessions, ParallelCallsFollowEachOtherInTheOrderTheyWereChecked) {
  const Verdict a = lab.check(alice, "login", kMonday);
  const Verdict b = lab.check(alice, "query", kMonday + .1);
  const Verdict c = lab.check(alice, "export", kMonday + .2);
  EXPECT_EQ(previous_of(b), "login");
  EXPECT_EQ(previous_of(c), "query");
  EXPECT_TRUE(lab.engine.observe(c.ticket, Outcome::kOk, kNoCost, kMonday + 1).known);
  EXPECT_TRUE(lab.engine.observe(a.ticket, Outcome::kToolError, kNoCost, kMonday + 2).known);
  EXPECT_TRUE(lab.engine.observe(b.ticket, Outcome::kOk, kNoCost, kMonday + 3).known);
  EXPECT_EQ(previous_of(lab.check(alice, "login", kMonday + 4)), "export") << "not the last that ended";
}

TEST_F(Sessions, DoNotMix) {
  Who other_token = alice, other_user = alice;
  other_token.session = "other";
  other_user.user = "bob";
  lab.run(alice, "login", kMonday);
  EXPECT_EQ(previous_of(lab.run(other_token, "query", kMonday + 1)), "");
  EXPECT_EQ(previous_of(lab.run(other_user, "query", kMonday + 2)), "");
  EXPECT_EQ(previous_of(lab.run(alice, "query", kMonday + 3)), "login");
}

TEST_F(Sessions, BeyondSixtyFourTheLeastRecentlyUsedGoes) {
  Who who = alice;
  for (int i = 0; i < 100; ++i) {
    who.session = "s" + std::to_string(i);
    lab.run(who, "login", kMonday + i);
  }
  EXPECT_EQ(lab.engine.model().sessions_dropped(), 36U);
  EXPECT_EQ(lab.engine.model().principals().find("acme", alice.user)->sessions.size(), 64U);
  who.session = "s36";  // the oldest that is left
  EXPECT_EQ(previous_of(lab.check(who, "query", kMonday + 100)), "login");
  who.session = "s35";
  EXPECT_EQ(previous_of(lab.check(who, "query", kMonday + 101)), "");
}

TEST_F(Sessions, IdleOnesMakeRoomWithoutLoss) {
  Who who = alice;
  for (int i = 0; i < 200; ++i) {
    who.session = "s" + std::to_string(i);
    lab.run(who, "login", kMonday + i * kHour);
  }
  EXPECT_EQ(lab.engine.model().sessions_dropped(), 0U);
  EXPECT_LE(lab.engine.model().principals().find("acme", alice.user)->sessions.size(), 2U);
}

TEST_F(Sessions, ABlockedCallMovesNone) {
  lab.policy.mode = Mode::kBlock;
  lab.run(alice, "login", kMonday);
  const Verdict blocked = lab.check(alice, "export", kMonday + 1, kUnreadable);
  ASSERT_TRUE(blocked.blocked);
  EXPECT_EQ(blocked.ticket, 0U);
  EXPECT_EQ(previous_of(lab.check(alice, "query", kMonday + 2)), "login");
  const Session& session = *lab.engine.model().principals().find("acme", alice.user)->sessions.front();
  EXPECT_EQ(session.earlier_count, 2U) << "login and query";
}

TEST_F(Sessions, RememberSixDistinctTools) {
  const char* const tools[] = {"a", "b", "a", "c", "d", "e", "f", "g", "b"};
  for (std::size_t i = 0; i < std::size(tools); ++i)
    lab.run(alice, tools[i], kMonday + static_cast<double>(i));
  const Session& session = *lab.engine.model().principals().find("acme", alice.user)->sessions.front();
  ASSERT_EQ(session.earlier_count, 6U);
  std::string names;
  for (const Tool* tool : session.earlier) names += tool->name;
  EXPECT_EQ(names, "bcdefg");
}

struct Teaching : testing::Test {
  bool knows(const std::string& tool) {
    const std::optional<Baseline> baseline = baseline_of(lab.engine, "acme", alice.user);
    return baseline && std::any_of(baseline->tools.begin(), baseline->tools.end(),
                                   [&](const BaselineTool& one) { return one.name == tool; });
  }
  std::optional<Baseline> baseline() { return baseline_of(lab.engine, "acme", alice.user); }
  Lab lab;
  Who alice;
};

TEST_F(Teaching, ACallTeachesWhenItEnds) {
  const Verdict verdict = lab.check(alice, "query", kMonday);
  EXPECT_FALSE(knows("query"));
  EXPECT_TRUE(lab.engine.observe(verdict.ticket, Outcome::kOk, kNoCost, kMonday + 1).known);
  EXPECT_TRUE(knows("query"));
  ASSERT_EQ(baseline()->steps.size(), 1U);
  EXPECT_EQ(baseline()->steps[0].from, "");
  EXPECT_EQ(baseline()->steps[0].to, "query");
  EXPECT_NEAR(baseline()->hours[0], 1, 1e-6);
}

TEST_F(Teaching, EveryOutcomeTeachesTheSame) {
  for (const Outcome outcome :
       {Outcome::kOk, Outcome::kToolError, Outcome::kTimeout, Outcome::kUnreachable}) {
    const std::string tool(name_of(outcome));
    EXPECT_TRUE(lab.engine.observe(lab.check(alice, tool, kMonday).ticket, outcome, kNoCost, kMonday).known);
    EXPECT_TRUE(knows(tool));
    EXPECT_EQ(lab.engine.counts().outcomes[static_cast<std::size_t>(outcome)], 1U);
  }
}

TEST_F(Teaching, BlockedCallsTeachNoToolStepOrHour) {
  lab.history(alice, {"login", "query"}, 5, 10);
  const Baseline before = *baseline();
  lab.policy.mode = Mode::kBlock;
  for (int i = 0; i < 50; ++i) {
    Who who = alice;
    who.session = "night" + std::to_string(i);
    ASSERT_TRUE(
        lab.check(who, i % 2 == 0 ? "export" : "query", kMonday + 4 * kDay + 23 * kHour + i, kUnreadable)
            .blocked);
  }
  lab.engine.expire(kMonday + 6 * kDay);
  const Baseline after = *baseline();
  ASSERT_EQ(after.tools.size(), before.tools.size());
  // Both fade by the same time, so the shares stay.
  for (std::size_t i = 0; i < before.tools.size(); ++i)
    EXPECT_EQ(after.tools[i].share, before.tools[i].share);
  EXPECT_EQ(after.steps.size(), before.steps.size());
  EXPECT_EQ(after.hours[23], 0);
  EXPECT_EQ(after.calls, before.calls + 50) << "they are calls all the same";
  EXPECT_EQ(lab.engine.counts().blocked, 50U);
}

TEST_F(Teaching, BlockedCallsCountInRatesAndCalibrators) {
  lab.policy.mode = Mode::kBlock;
  lab.check(alice, "query", kMonday, kUnreadable);
  const float samples =
      lab.engine.model().principals().tenants().at("acme")->peers.calibrators.of(0).samples();
  EXPECT_EQ(samples, 1);
  for (int i = 1; i <= 20; ++i) lab.check(alice, "query", kMonday + i, kUnreadable);
  const Verdict verdict = lab.check(alice, "query", kMonday + 21);
  EXPECT_GE(verdict.risk, .5) << "the 22nd call of a burst, however the others ended";
  EXPECT_NE(reason_of(verdict, "burst"), nullptr);
}

TEST_F(Teaching, WithoutAPostHookACallIsDoneAfterFiveMinutes) {
  const Verdict verdict = lab.check(alice, "query", kMonday);
  lab.engine.expire(kMonday + 300);
  EXPECT_FALSE(knows("query"));
  EXPECT_EQ(lab.engine.counts().assumed_done, 0U);
  lab.engine.expire(kMonday + 300.5);
  EXPECT_TRUE(knows("query"));
  EXPECT_EQ(lab.engine.counts().assumed_done, 1U);
  EXPECT_FALSE(lab.engine.observe(verdict.ticket, Outcome::kOk, kNoCost, kMonday + 301).known) << "too late";
  EXPECT_EQ(lab.engine.counts().unpaired, 1U);
  EXPECT_NEAR(baseline()->tools[0].count, 1, 1e-6) << "and only once";
}

TEST_F(Teaching, AnyLaterCallEndsTheForgottenOnes) {
  lab.check(alice, "query", kMonday);
  Who bob = alice;
  bob.user = "bob";
  lab.check(bob, "mail", kMonday + 301);
  EXPECT_TRUE(knows("query"));
}

TEST_F(Teaching, UnknownTicketsAreFalseAndCounted) {
  Lab other;
  const Verdict first = lab.check(alice, "query", kMonday);
  std::uint64_t foreign = 0;
  for (int i = 0; i < 3; ++i) foreign = other.check(alice, "query", kMonday).ticket;
  EXPECT_TRUE(lab.engine.observe(first.ticket, Outcome::kOk, kNoCost, kMonday).known);
  struct Row {
    const char* name;
    std::uint64_t ticket;
  };
  for (const Row& row : {Row{"none", 0}, Row{"invented", 12'345}, Row{"used", first.ticket},
                         Row{"of another engine", foreign}})
    EXPECT_FALSE(lab.engine.observe(row.ticket, Outcome::kOk, kNoCost, kMonday).known) << row.name;
  EXPECT_EQ(lab.engine.counts().unpaired, 4U);
  EXPECT_NEAR(baseline()->tools[0].count, 1, 1e-6);
}

TEST_F(Teaching, TooManyRunningCallsEndTheOldestEarly) {
  for (std::size_t i = 0; i <= InFlight::kMost; ++i) {
    Who who{.user = "user" + std::to_string(i % 100)};
    lab.check(who, "query", kMonday + static_cast<double>(i) * .001);
  }
  EXPECT_EQ(lab.engine.counts().crowded_out, 1U);
  EXPECT_EQ(lab.engine.in_flight().size(), InFlight::kMost);
}

struct Held : Teaching {
  double start = lab.history(alice, {"query"}, 5, 10) + kDay;
};

TEST_F(Held, AWarnedItemStaysNewForTwoDaysAndIsLearnedAfterwards) {
  const Verdict first = lab.run(alice, "remove", start);
  ASSERT_GE(first.risk, .5);
  EXPECT_FALSE(knows("remove"));
  ASSERT_FALSE(baseline()->held.empty());
  EXPECT_EQ(baseline()->held[0].tool, "remove");
  EXPECT_EQ(baseline()->held[0].until, start + 48 * kHour);
  for (const double hours : {.1, 1., 24., 47.9}) {
    const Verdict again = lab.run(alice, "remove", start + hours * kHour);
    EXPECT_GE(again.risk, .5) << hours;
    const Reason* reason = reason_of(again, "novelty");
    ASSERT_NE(reason, nullptr) << hours;
    EXPECT_NE(explain(reason->signal, reason->numbers, {"alice", "remove", "", ""}).find("still new"),
              std::string::npos);
    EXPECT_FALSE(knows("remove")) << hours;
  }
  lab.run(alice, "remove", start + 48 * kHour);
  EXPECT_TRUE(knows("remove")) << "its time is up";
  const Verdict after = lab.run(alice, "remove", start + 49 * kHour);
  EXPECT_LT(after.risk, .5) << "as the first call of a session, which it was then too";
}

TEST_F(Held, ManyWarnedCallsDoNotMakeItOrdinary) {
  for (int i = 0; i < 400; ++i) {
    const Verdict verdict = lab.run(alice, "remove", start + i * 400.);
    ASSERT_GE(verdict.risk, .5) << i;
  }
}

TEST_F(Held, ABlockedItemStaysNewAndARetryStaysBlocked) {
  lab.policy.mode = Mode::kBlock;
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(lab.check(alice, "remove", start + i * 1000.).blocked) << i;
  EXPECT_FALSE(knows("remove"));
  EXPECT_LE(lab.engine.model().principals().find("acme", alice.user)->held.size(), 2U)
      << "the tool and the step";
}

TEST_F(Held, EveryBlockedTryBeginsTheTimeAnew) {
  lab.policy.mode = Mode::kBlock;
  for (int i = 0; i < 100; ++i)
    ASSERT_TRUE(lab.check(alice, "remove", start + i * kHour).blocked) << i << " hours later";
  lab.policy.mode = Mode::kWarn;
  EXPECT_GE(lab.check(alice, "remove", start + (99 + 47) * kHour).risk, .5);
}

TEST_F(Held, ItInsistsOnTheRiskItWasSeenWith) {
  const double first = lab.run(alice, "remove", start).risk;
  ASSERT_GT(first, .5);
  for (int i = 1; i < 20; ++i) EXPECT_GE(lab.run(alice, "remove", start + i * kHour).risk, first) << i;
}

TEST_F(Held, OneRefusedCallOpensNoDoorForASecondDifferentOne) {
  lab.policy.mode = Mode::kBlock;
  for (const char* tool : {"remove", "drop"})
    EXPECT_TRUE(lab.check(alice, tool, start += 10 * kMinute).blocked) << tool;
}

TEST_F(Held, WhatWasBlockedForItsArgumentsIsNotHeld) {
  lab.policy.mode = Mode::kBlock;
  ASSERT_TRUE(lab.check(alice, "query", start, kUnreadable).blocked);
  EXPECT_TRUE(lab.engine.model().principals().find("acme", alice.user)->held.empty());
}

TEST_F(Held, ItIsHeldForThisUserOnly) {
  lab.run(alice, "remove", start);
  const Who bob{.user = "bob"};
  lab.run(bob, "query", start);
  EXPECT_TRUE(lab.engine.model().principals().find("acme", "bob")->held.empty());
}

TEST_F(Held, NothingIsHeldWhenTheTimeIsZero) {
  EngineSettings settings;
  settings.model.new_for = 0;
  Lab none(settings);
  const double now = none.history(alice, {"query"}, 5, 10) + kDay;
  ASSERT_GE(none.run(alice, "remove", now).risk, .5);
  for (const HeldItem& item : none.engine.model().principals().find("acme", alice.user)->held)
    EXPECT_EQ(item.state, HeldItem::State::kListed);
  EXPECT_TRUE(baseline_of(none.engine, "acme", alice.user)->held.empty());
  EXPECT_LT(none.run(alice, "remove", now + 60).risk, .5);
}

TEST_F(Held, AFullListDoesNotWhitewash) {
  const PrincipalPtr principal = lab.engine.model().principals().find("acme", alice.user);
  for (std::uint64_t i = 0; i < kHeldPerUser; ++i)
    principal->held.push_back({.cell = i + 1,
                               .since = start,
                               .risk = .6,
                               .tool = nullptr,
                               .from = nullptr,
                               .kind = ItemKind::kTool});
  ASSERT_GE(lab.run(alice, "remove", start).risk, .5);
  EXPECT_GT(lab.engine.model().held_refused(), 0U);
  EXPECT_EQ(principal->held.size(), kHeldPerUser);
  EXPECT_FALSE(knows("remove"));
  const Verdict again = lab.run(alice, "remove", start + 60);
  EXPECT_NE(reason_of(again, "novelty"), nullptr);
  EXPECT_FALSE(knows("remove"));
  const Verdict later = lab.run(alice, "remove", start + 49 * kHour);
  EXPECT_EQ(principal->held.size(), kHeldPerUser);
  EXPECT_TRUE(std::any_of(principal->held.begin(), principal->held.end(), [&](const HeldItem& item) {
    return item.cell == later.tool->cell;
  })) << "what is over makes room";
}

}  // namespace
}  // namespace tool_firewall
