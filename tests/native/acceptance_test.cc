// SPDX-License-Identifier: Apache-2.0
// The scenarios the firewall was asked for, at the engine.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

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

// A tenant of `users` people, all from 9 to 5 for two weeks: eight sessions a day each, or one long one. Ends
// on a Friday; the tools vary a little.
struct Office {
  Office(int users, bool one_session, Lab& its_lab) : lab(its_lab) {
    const char* const tools[] = {"login", "query", "read", "query", "export", "query", "read", "list"};
    std::mt19937 random(71);
    for (int day = 0; day < 14; ++day) {
      if (day % 7 >= 5) continue;
      for (int hour = 9; hour < 17; ++hour) {
        for (int call = 0; call < 4; ++call) {
          for (int user = 0; user < users; ++user) {
            const std::string session = one_session ? "day" + std::to_string(day)
                                                    : "d" + std::to_string(day) + "h" + std::to_string(hour);
            const double at = kMonday + day * kDay + hour * kHour + call * 14 * kMinute +
                              static_cast<double>(random() % 600) + user;
            lab.run({.user = name(user), .session = session}, tools[(hour + call) % 8], at);
          }
        }
      }
    }
  }
  static std::string name(int user) { return "user" + std::to_string(user); }
  Lab& lab;
};

// How everybody's day begins.
constexpr const char* kUsual[] = {"query", "read", "query", "export", "query"};

constexpr double kThreeAtNight = kMonday + 14 * kDay + 3 * kHour;  // of the Monday after

TEST(AtNight, TheFirstCallIsNotableAndFiveReachAHalf) {
  for (const int users : {1, 3, 20}) {
    for (const bool one_session : {false, true}) {
      const std::string about =
          std::to_string(users) + " users, " + (one_session ? "one session" : "eight sessions") + " a day";
      Lab lab;
      const Office office(users, one_session, lab);
      const Who who{.user = Office::name(0), .session = "night"};
      double risk = 0;
      for (int i = 0; i < 5; ++i) {
        const Verdict verdict = lab.run(who, kUsual[i], kThreeAtNight + i * 2 * kMinute);
        if (i == 0) {
          EXPECT_GE(verdict.risk, 1. / 3) << about;
          EXPECT_NE(reason_of(verdict, "off_hours"), nullptr) << about;
        }
        risk = verdict.risk;
      }
      EXPECT_GE(risk, .5) << about << ": the fifth";
    }
  }
}

TEST(AtNight, TheSameCallsByDayAreOrdinary) {
  for (const int users : {1, 3, 20}) {
    Lab lab;
    const Office office(users, false, lab);
    const Who who{.user = Office::name(0), .session = "day"};
    for (int i = 0; i < 5; ++i)
      EXPECT_LT(lab.run(who, kUsual[i], kThreeAtNight + 8 * kHour + i * 2 * kMinute).risk, 1. / 3)
          << users << " users, call " << i;
  }
}

TEST(RoleChange, IsNoisyForADayAndThenQuiet) {
  Lab lab;
  const Office office(5, false, lab);
  const char* const tools[] = {"deploy", "rollback", "logs", "deploy", "logs", "metrics"};
  std::vector<int> notable;
  for (int day = 14; day < 26; ++day) {
    if (day % 7 >= 5) continue;
    int findings = 0;
    for (int hour = 9; hour < 17; ++hour) {
      for (int call = 0; call < 4; ++call) {
        const Verdict verdict =
            lab.run({.user = Office::name(0), .session = std::to_string(day * 24 + hour)},
                    tools[(hour + call) % 6], kMonday + day * kDay + hour * kHour + call * 13 * kMinute);
        findings += verdict.risk >= 1. / 3 ? 1 : 0;
      }
    }
    notable.push_back(findings);
  }
  EXPECT_GT(notable[0], 0) << "the first day is told of";
  // What was new at high risk stays so for two days; from the fourth day on it is the new job.
  for (std::size_t day = 3; day < notable.size(); ++day) EXPECT_LE(notable[day], 1) << "day " << day;
}

TEST(LoadTest, UnderASnoozeRunsRecordedAndQuiet) {
  Lab lab(journaling(1));
  lab.policy.mode = Mode::kBlock;
  const Office office(3, false, lab);
  lab.journal();
  const double now = kMonday + 14 * kDay + 10 * kHour;
  const auto snooze = [&](std::uint64_t seq, const std::string& value, double at) {
    return feed(lab.engine,
                encode(ControlRecord{{99, seq, at}, "snooze", "acme", "", "", value, "root", "load test"}));
  };
  ASSERT_TRUE(snooze(1, std::to_string(now + kHour), now));
  int denied = 0;
  for (int i = 0; i < 300; ++i) {
    const Verdict verdict = lab.run({.user = Office::name(0), .session = "load"}, "query", now + 1 + i * .2);
    ASSERT_FALSE(verdict.blocked) << i;
    ASSERT_TRUE(verdict.snoozed) << i;
    denied += verdict.decision == Decision::kDeny ? 1 : 0;
  }
  EXPECT_GT(denied, 100) << "scored as ever";
  std::size_t recorded = 0;
  for (const std::string& bytes : lab.journal()) {
    const Record record = decode(bytes);
    if (const auto* call = std::get_if<CallRecord>(&record)) {
      ++recorded;
      EXPECT_TRUE(call->snoozed);
    }
  }
  EXPECT_EQ(recorded, 300U);
  bool blocked = false;
  for (int i = 0; i < 40; ++i)
    blocked |=
        lab.run({.user = Office::name(1), .session = "load"}, "query", now + 2 * kHour + i * .2).blocked;
  EXPECT_TRUE(blocked) << "it ends by itself";
}

TEST(NewHire, OfATeamDoesWhatTheTeamDoes) {
  Lab lab;
  const Office office(10, false, lab);
  const char* const tools[] = {"login", "query", "read", "query", "export", "query", "read", "list"};
  int notable = 0, denied = 0;
  for (int day = 14; day < 19; ++day) {
    for (int hour = 9; hour < 17; ++hour) {
      for (int call = 0; call < 4; ++call) {
        const Verdict verdict =
            lab.run({.user = "new", .session = std::to_string(day * 24 + hour)}, tools[(hour + call) % 8],
                    kMonday + day * kDay + hour * kHour + call * 13 * kMinute);
        notable += verdict.risk >= 1. / 3 ? 1 : 0;
        denied += verdict.risk >= .5 ? 1 : 0;
      }
    }
  }
  EXPECT_LE(notable, 8) << "of 160";
  EXPECT_LE(denied, 1);
}

TEST(NightlyBatch, IsOrdinaryAfterAFewNights) {
  Lab lab;
  const Office office(5, false, lab);
  std::vector<int> notable;
  for (int night = 14; night < 28; ++night) {
    int findings = 0;
    for (int i = 0; i < 60; ++i) {
      const Verdict verdict =
          lab.run({.user = "batch", .session = std::to_string(night)}, i % 2 == 0 ? "read" : "export",
                  kMonday + night * kDay + 2 * kHour + i * 20,
                  lab.arguments({{"id", "row-" + std::to_string(night * 100 + i)}}));
      findings += verdict.risk >= 1. / 3 ? 1 : 0;
    }
    notable.push_back(findings);
  }
  for (std::size_t night = 5; night < notable.size(); ++night)
    EXPECT_LE(notable[night], 2) << "night " << night;
}

TEST(Poller, ThatIsSlowIsNeverALoopAndAFastOneIsLearned) {
  Lab lab;
  const Office office(5, false, lab);
  const Arguments same = lab.arguments({{"q", "select state"}});
  int late = 0;
  for (int i = 0; i < 3 * 24 * 12; ++i) {
    const Verdict verdict =
        lab.run({.user = "slow", .session = "p"}, "query", kMonday + 14 * kDay + i * 5 * kMinute, same);
    EXPECT_EQ(reason_of(verdict, "retry_loop"), nullptr) << i;
    if (i > 24 * 12) late += verdict.risk >= 1. / 3 ? 1 : 0;
  }
  EXPECT_EQ(late, 0);
  late = 0;
  for (int i = 0; i < 6000; ++i) {
    const Verdict verdict =
        lab.run({.user = "fast", .session = "p"}, "query", kMonday + 18 * kDay + i * 20., same);
    if (i > 3000) late += verdict.risk >= 1. / 3 ? 1 : 0;
  }
  EXPECT_LE(late, 30) << "of 3,000: one in a hundred";
}

}  // namespace
}  // namespace tool_firewall
