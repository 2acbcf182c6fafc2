// SPDX-License-Identifier: Apache-2.0
// What the end of a call shows, and the thresholds calls are acted on from.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

struct AftermathTest : testing::Test {
  AftermathTest() : lab(journaling(7)) {
    for (int i = 0; i < 300; ++i) lab.complete(alice, "query", now += 300, i % 2 == 0 ? .009 : .011);
    lab.journal();
  }
  Lab lab;
  Who alice{.group = "desk", .agent = "a", .token = "t"};
  double now = kMonday + 9 * kHour;
};

TEST_F(AftermathTest, AnOrdinaryEndSaysNothing) {
  const Verdict verdict = lab.check(alice, "query", now += 300);
  const Aftermath after = lab.end(verdict, now + 1, .01);
  EXPECT_TRUE(after.known);
  EXPECT_EQ(after.decision, Decision::kAllow);
  EXPECT_TRUE(after.reasons.empty());
  EXPECT_GE(after.risk, verdict.risk);
  const std::vector<std::string> records = lab.journal();
  ASSERT_EQ(records.size(), 2U);
  const auto record = std::get<OutcomeRecord>(decode(records[1]));
  EXPECT_EQ(record.cost, .01);
  EXPECT_EQ(record.risk, after.risk);
  EXPECT_EQ(record.decision, Decision::kAllow);
  EXPECT_EQ(class_of(records[1]), RecordClass::kOrdinary);
}

TEST_F(AftermathTest, ADearEndIsAFindingOfItsOwn) {
  const Verdict verdict = lab.check(alice, "query", now += 300);
  ASSERT_EQ(verdict.decision, Decision::kAllow);
  const Aftermath after = lab.end(verdict, now + 1, 5);
  EXPECT_GE(after.risk, .5);
  EXPECT_EQ(after.decision, Decision::kDeny) << "what would have been said";
  EXPECT_FALSE(after.told);
  EXPECT_EQ(after.incident, verdict.incident);
  ASSERT_FALSE(after.reasons.empty());
  EXPECT_EQ(signal_name(after.reasons[0].signal), "cost");
  EXPECT_EQ(after.tool, verdict.tool);
  EXPECT_EQ(lab.engine.counts().after[2], 1U);
  const std::vector<std::string> records = lab.journal();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(class_of(records[1]), RecordClass::kFinding);
  const auto call = std::get<CallRecord>(decode(records[0]));
  const auto found = std::get<OutcomeRecord>(decode(records[1]));
  EXPECT_EQ(found.id.worker, call.id.worker);
  EXPECT_EQ(found.id.seq, call.id.seq);
  EXPECT_EQ(found.decision, Decision::kDeny);
  EXPECT_EQ(found.risk, after.risk);
  EXPECT_EQ(found.found.tenant, "acme");
  EXPECT_EQ(found.found.user, alice.user);
  EXPECT_EQ(found.found.agent, "a");
  EXPECT_EQ(found.found.group, "desk");
  EXPECT_EQ(found.found.token, "t");
  EXPECT_EQ(found.found.tool, "query");
  EXPECT_EQ(found.found.previous, "query");
  EXPECT_EQ(found.found.incident, verdict.incident);
  EXPECT_EQ(found.found.reasons.size(), after.reasons.size());
}

TEST_F(AftermathTest, SaysWhenTheCallWasToldOfBefore) {
  lab.policy.threshold = 0;  // every call is denied, in learning mode
  const Verdict verdict = lab.check(alice, "query", now += 300);
  ASSERT_EQ(verdict.decision, Decision::kDeny);
  const Aftermath after = lab.end(verdict, now + 1, 5);
  EXPECT_EQ(after.decision, Decision::kDeny) << "the end raised the risk";
  EXPECT_TRUE(after.told);
  EXPECT_GE(after.risk, .5);
  const Verdict ordinary = lab.check(alice, "query", now += 300);
  EXPECT_EQ(lab.end(ordinary, now, kNoCost).decision, Decision::kAllow) << "nothing new, nothing said";
}

TEST_F(AftermathTest, RiskNeverFalls) {
  std::mt19937 random(61);
  int risen = 0;
  for (int i = 0; i < 4000; ++i) {
    now += static_cast<double>(random() % 6000) / 10;
    const Who who{.user = "u" + std::to_string(random() % 4), .session = "s" + std::to_string(random() % 2)};
    const Verdict verdict = lab.check(who, "tool" + std::to_string(random() % (random() % 20 == 0 ? 40 : 4)),
                                      now, lab.arguments({{"q", std::to_string(random() % 5)}}));
    const double cost =
        random() % 5 == 0 ? kNoCost : std::pow(10., static_cast<double>(random() % 50) / 10 - 4);
    const Aftermath after =
        lab.end(verdict, now + 1, cost, random() % 10 == 0 ? Outcome::kToolError : Outcome::kOk);
    ASSERT_TRUE(after.risk >= verdict.risk && after.risk <= 1)
        << i << ": " << verdict.risk << " to " << after.risk;
    if (std::isnan(cost)) {
      ASSERT_EQ(after.risk, verdict.risk) << "without a cost there is nothing new";
    }
    risen += after.risk > verdict.risk ? 1 : 0;
  }
  EXPECT_GT(risen, 100);
}

TEST_F(AftermathTest, BlockedCallsNeverEnd) {
  lab.policy.mode = Mode::kBlock;
  const Verdict verdict = lab.check(alice, "query", now += 300, unreadable(Inspection::kTooDeep));
  ASSERT_TRUE(verdict.blocked);
  EXPECT_EQ(verdict.ticket, 0U);
  const Aftermath after = lab.end(verdict, now, 100);
  EXPECT_FALSE(after.known);
  EXPECT_EQ(lab.journal().size(), 1U);
}

TEST_F(AftermathTest, ASnoozedCallsEndIsSnoozed) {
  feed(lab.engine, encode(ControlRecord{
                       {99, 1, now}, "snooze", "", "query", "", std::to_string(now + kDay), "root", ""}));
  const Aftermath after = lab.complete(alice, "query", now += 300, 5);
  EXPECT_EQ(after.decision, Decision::kDeny);
  EXPECT_TRUE(after.snoozed);
}

TEST_F(AftermathTest, AReaderLearnsTheSameFromTheRecords) {
  Lab writer(journaling(1)), reader;
  std::mt19937 random(62);
  double at = kMonday + 9 * kHour;
  for (int i = 0; i < 1500; ++i) {
    at += static_cast<double>(random() % 3000) / 10;
    const Who who{.user = "u" + std::to_string(random() % 3),
                  .group = "g",
                  .agent = random() % 30 == 0 ? "b" : "a",
                  .token = "t" + std::to_string(random() % 3)};
    const Verdict verdict =
        writer.check(who, "send_" + std::to_string(random() % 4), at,
                     writer.arguments({{"to", "p" + std::to_string(random() % 9) + "@example.com"}}));
    writer.end(verdict, at + .5, .01 * static_cast<double>(1 + random() % 40),
               random() % 8 == 0 ? Outcome::kTimeout : Outcome::kOk);
  }
  for (const std::string& record : writer.journal()) ASSERT_TRUE(feed(reader.engine, record));
  for (int i = 0; i < 30; ++i) {
    at += 7;
    const Who who{.user = "u" + std::to_string(i % 3), .group = "g", .agent = "a", .token = "t1"};
    const std::string to = "p" + std::to_string(i % 12) + "@example.com";
    const Verdict a = writer.check(who, "send_1", at, writer.arguments({{"to", to}}));
    const Verdict b = reader.check(who, "send_1", at, reader.arguments({{"to", to}}));
    ASSERT_EQ(a.risk, b.risk) << i;
    ASSERT_EQ(writer.end(a, at, .7).risk, reader.end(b, at, .7).risk) << i;
  }
}

TEST(Thresholds, OfUsersThenToolsThenTheInstanceThenTenants) {
  EngineSettings settings;
  settings.user_thresholds["vip"] = .9;
  settings.tool_thresholds["query"] = .8;
  settings.tenant_thresholds["strict"] = 1e-9;
  Lab lab(settings);
  const auto decision = [&](const Who& who, const char* tool, double threshold, bool own) {
    Lab fresh(settings);
    fresh.policy.threshold = threshold;
    fresh.policy.own_threshold = own;
    double now = kMonday + 9 * kHour;
    for (int i = 0; i < 5; ++i) fresh.run(who, "login", now += 600);
    const Verdict verdict = fresh.check(who, tool, now += 600);
    EXPECT_GT(verdict.risk, 1e-6);
    EXPECT_LT(verdict.risk, .8);
    return verdict.decision == Decision::kDeny;
  };
  struct Row {
    const char* name;
    Who who;
    const char* tool;
    double threshold;
    bool own, deny;
  };
  const Row rows[] = {
      {"the instance's, from the settings", {}, "export", 1e-9, false, true},
      {"nothing said of the tenant", {}, "export", .95, false, false},
      {"the tenant's before the general one", {.tenant = "strict"}, "export", .95, false, true},
      {"of the instance's own tool before the tenant's", {.tenant = "strict"}, "export", .95, true, false},
      {"of a tool before the instance's own", {}, "query", 1e-9, true, false},
      {"of a tool before the tenant's", {.tenant = "strict"}, "query", 1e-9, false, false},
      {"of a user before all", {.user = "vip", .tenant = "strict"}, "query", 1e-9, true, false},
      {"of a user", {.user = "vip"}, "export", 1e-9, true, false},
  };
  for (const Row& row : rows)
    EXPECT_EQ(decision(row.who, row.tool, row.threshold, row.own), row.deny) << row.name;
}

TEST(Thresholds, HoldForTheEndOfACallToo) {
  for (const double threshold : {.5, .99}) {
    EngineSettings settings;
    settings.tool_thresholds["query"] = threshold;
    Lab lab(settings);
    double now = kMonday + 9 * kHour;
    for (int i = 0; i < 300; ++i) lab.complete({}, "query", now += 300, i % 2 == 0 ? .009 : .011);
    EXPECT_EQ(lab.complete({}, "query", now += 300, 2).decision,
              threshold < .9 ? Decision::kDeny : Decision::kAudit);
  }
}

}  // namespace
}  // namespace tool_firewall
