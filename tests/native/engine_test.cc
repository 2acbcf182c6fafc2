// SPDX-License-Identifier: Apache-2.0
// The engine as a whole: what always holds, tenants, decisions, the queue and the journal.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/report.h"
#include "lab.h"

namespace tool_firewall {
namespace {

const Arguments kUnreadable = unreadable(Inspection::kTooLarge);

void expect_sane(const Verdict& verdict, const std::string& when) {
  ASSERT_TRUE(verdict.risk >= 0 && verdict.risk <= 1) << when << ": risk " << verdict.risk;
  for (const Reason& reason : verdict.reasons) {
    ASSERT_TRUE(reason.p > 0 && reason.p <= 1) << when << ": p " << reason.p;
    ASSERT_TRUE(std::isfinite(reason.numbers.value)) << when;
    ASSERT_TRUE(std::isfinite(reason.numbers.baseline)) << when;
  }
}

TEST(Invariants, HoldForRandomTraffic) {
  for (const unsigned seed : {1U, 2U, 3U}) {
    EngineSettings settings;
    settings.model.users_per_tenant = 10;
    settings.model.half_life = kDay;
    Lab lab(settings);
    std::mt19937 random(seed);
    double now = kMonday;
    std::vector<std::uint64_t> running;
    for (int i = 0; i < 15'000; ++i) {
      now += std::pow(10., static_cast<double>(random() % 60) / 10 - 3);
      const Who who{.user = "u" + std::to_string(random() % 30),
                    .tenant = "t" + std::to_string(random() % 2),
                    .session = "s" + std::to_string(random() % 3),
                    .group = random() % 2 == 0 ? "" : "g"};
      const Verdict verdict = lab.check(who, "tool" + std::to_string(random() % 60), now);
      expect_sane(verdict, "call " + std::to_string(i));
      if (HasFatalFailure()) return;
      if (verdict.ticket != 0 && random() % 5 != 0) running.push_back(verdict.ticket);
      if (running.size() > 20) {
        lab.engine.observe(running[random() % running.size()], Outcome::kOk, kNoCost, now);
        running.clear();
      }
    }
    EXPECT_GT(lab.engine.model().principals().evicted(), 10U);
  }
}

TEST(Invariants, HoldWhenATableOverflows) {
  Lab lab;
  const Who alice;
  std::mt19937 random(4);
  for (int i = 0; i < 30'000; ++i) {
    const Verdict verdict = lab.run(alice, "tool" + std::to_string(random() % 150), kMonday + i * 40.);
    expect_sane(verdict, "call " + std::to_string(i));
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(lab.engine.model().principals().find("acme", alice.user)->counts.evicted(), 100U);
}

TEST(Invariants, HoldForHostileTimes) {
  const double times[] = {kMonday,
                          kMonday,
                          kMonday - 60,
                          kMonday + 1,
                          kMonday - 3650 * kDay,
                          0,
                          kMonday,
                          -1,
                          kMonday + 3650 * kDay,
                          kMonday,
                          1e11,
                          kMonday + 60,
                          1e15,
                          -1e15,
                          1e300,
                          kMonday,
                          -1e300,
                          HUGE_VAL,
                          -HUGE_VAL,
                          std::nan(""),
                          kMonday + 120};
  for (const double half_life : {kDay, 14 * kDay}) {
    for (std::size_t start = 0; start < std::size(times); ++start) {
      EngineSettings settings = journaling(1);
      settings.model.half_life = half_life;
      Lab lab(settings), reader;
      for (std::size_t i = 0; i < 3 * std::size(times); ++i) {
        const double now = times[(start + i) % std::size(times)];
        const std::string when =
            "time " + std::to_string(now) + ", call " + std::to_string(i) + " from " + std::to_string(start);
        for (const char* tool : {"query", "export"}) {
          const Verdict verdict = lab.check({}, tool, now);
          expect_sane(verdict, when);
          if (HasFatalFailure()) return;
          if (i % 3 != 0) lab.engine.observe(verdict.ticket, Outcome::kOk, kNoCost, now);
        }
      }
      for (const std::string& record : lab.journal())
        ASSERT_TRUE(feed(reader.engine, record)) << "it reads what it wrote";
    }
  }
}

TEST(Settings, WrongOnesAreRefused) {
  const std::array<unsigned char, 16> short_key{};
  EXPECT_THROW(Engine({}, short_key), std::invalid_argument);
  EngineSettings settings;
  settings.default_zone = "Europe/Berlin";
  EXPECT_THROW(Engine(settings, kKey), std::invalid_argument);
  settings.zones["Europe/Berlin"] = {};
  EXPECT_NO_THROW(Engine(settings, kKey));
  settings.tenant_zones["acme"] = "Mars/Olympus";
  EXPECT_THROW(Engine(settings, kKey), std::invalid_argument);
  settings.tenant_zones.clear();
  settings.user_zones["alice"] = "Mars/Olympus";
  EXPECT_THROW(Engine(settings, kKey), std::invalid_argument);
}

TEST(Settings, ZonesGoByUserThenTenantThenDefault) {
  EngineSettings settings;
  settings.zones["plus1"] = {"", {{0, 3600}}};
  settings.zones["plus2"] = {"", {{0, 7200}}};
  settings.zones["plus3"] = {"", {{0, 10'800}}};
  settings.default_zone = "plus1";
  settings.tenant_zones["acme"] = "plus2";
  settings.user_zones["alice"] = "plus3";
  struct Row {
    const char* tenant;
    const char* user;
    std::size_t hour;
    const char* zone;
  };
  for (const Row& row : {Row{"other", "bob", 10, "plus1"}, Row{"acme", "bob", 11, "plus2"},
                         Row{"acme", "alice", 12, "plus3"}, Row{"other", "alice", 12, "plus3"}}) {
    Lab lab(settings);
    lab.run({.user = row.user, .tenant = row.tenant}, "query", kMonday + 9 * kHour);
    const Baseline baseline = *baseline_of(lab.engine, row.tenant, row.user);
    EXPECT_NEAR(baseline.hours[row.hour], 1, 1e-6) << row.tenant << ' ' << row.user;
    EXPECT_EQ(baseline.zone, row.zone);
  }
}

// Two tenants where everything has the same name. What one does changes not one bit for the other.
TEST(Tenancy, TheSameNamesInTwoTenantsShareNothing) {
  for (const bool other_first : {false, true}) {
    Lab alone, shared;
    std::mt19937 random(5), noise(6);
    double now = kMonday;
    if (other_first) shared.run({.tenant = "other", .group = "g"}, "query", now - 5.3 * kDay);
    for (int i = 0; i < 4000; ++i) {
      now += static_cast<double>(random() % 3000) / 2;
      const Who who{.user = "user" + std::to_string(random() % 4),
                    .session = "s",
                    .group = random() % 2 == 0 ? "" : "g"};
      const std::string tool = "tool" + std::to_string(random() % (i % 50 == 0 ? 20 : 4));
      for (unsigned k = noise() % 4; k > 0; --k) {
        Who twin = who;
        twin.tenant = "other";
        shared.run(twin, "tool" + std::to_string(noise() % 20), now - .5);
      }
      const Verdict expected = alone.run(who, tool, now);
      const Verdict got = shared.run(who, tool, now);
      ASSERT_EQ(got.risk, expected.risk)
          << "call " << i << (other_first ? ", the other tenant came first" : "");
      ASSERT_EQ(got.reasons.size(), expected.reasons.size());
      for (std::size_t k = 0; k < got.reasons.size(); ++k) ASSERT_EQ(got.reasons[k].p, expected.reasons[k].p);
    }
  }
}

TEST(Tenancy, GroupsOfOneNameInTwoTenantsShareNothing) {
  Lab lab;
  lab.history({.user = "x", .tenant = "other", .group = "g"}, {"remove"}, 5, 20);
  lab.history({.user = "y", .tenant = "acme", .group = "g"}, {"query"}, 5, 20);
  const Verdict verdict =
      lab.check({.user = "y", .tenant = "acme", .session = "s2", .group = "g"}, "remove", kMonday + 6 * kDay);
  const Reason* reason = reason_of(verdict, "novelty");
  ASSERT_NE(reason, nullptr);
  EXPECT_EQ(reason->numbers.detail[1], 3) << "new to the tenant, whatever others do";
}

struct Decisions : testing::Test {
  Lab lab;
  Who alice;
  double start = lab.history(alice, {"query"}, 5, 10) + kDay;
};

TEST_F(Decisions, TheModeSaysWhatHappens) {
  struct Row {
    Mode mode;
    bool blocked;
  };
  for (const Row& row : {Row{Mode::kLearning, false}, Row{Mode::kWarn, false}, Row{Mode::kShadow, false},
                         Row{Mode::kBlock, true}}) {
    Lab fresh;
    double now = fresh.history(alice, {"query"}, 5, 10) + kDay;
    fresh.policy.mode = row.mode;
    const Verdict ordinary = fresh.run(alice, "query", now);
    EXPECT_EQ(ordinary.decision, Decision::kAllow);
    EXPECT_FALSE(ordinary.blocked);
    const Verdict odd = fresh.check(alice, "remove", now + 600);
    EXPECT_EQ(odd.decision, Decision::kDeny) << name_of(row.mode);
    EXPECT_EQ(odd.mode, row.mode);
    EXPECT_EQ(odd.blocked, row.blocked) << name_of(row.mode);
    EXPECT_EQ(odd.ticket == 0, row.blocked);
    EXPECT_NE(odd.incident, 0U);
  }
}

TEST_F(Decisions, TheThresholdIsTheInstances) {
  const auto decision = [&](double threshold) {
    Lab fresh;
    const double now = fresh.history(alice, {"query"}, 5, 10) + kDay;
    fresh.policy.threshold = threshold;
    return fresh.check(alice, "remove", now);
  };
  const Verdict usual = decision(.5);
  ASSERT_EQ(usual.decision, Decision::kDeny);
  EXPECT_EQ(decision(usual.risk).decision, Decision::kDeny) << "reaching it is enough";
  EXPECT_EQ(decision(std::nextafter(usual.risk, 2)).decision, Decision::kAudit);
  EXPECT_EQ(decision(usual.risk).risk, usual.risk) << "and it changes no risk";
}

TEST_F(Decisions, WhatCannotBeReadIsDenied) {
  lab.policy.exempt_tools = {"upload"};
  for (const Inspection inspection : {Inspection::kTooDeep, Inspection::kTooLarge, Inspection::kWrongType}) {
    const Verdict verdict = lab.check(alice, "query", start += 60, unreadable(inspection));
    EXPECT_EQ(verdict.decision, Decision::kDeny);
    EXPECT_EQ(verdict.inspection, inspection);
    EXPECT_FALSE(verdict.blocked) << "in learning mode";
  }
  EXPECT_EQ(lab.engine.counts().uninspectable, 3U);
  const Verdict exempt = lab.check({.user = "bob"}, "upload", start, kUnreadable);
  EXPECT_EQ(exempt.inspection, Inspection::kInspected);
  EXPECT_LT(exempt.risk, .5);
  lab.policy.mode = Mode::kBlock;
  EXPECT_TRUE(lab.check(alice, "query", start += 60, kUnreadable).blocked);
  EXPECT_FALSE(lab.check({.user = "bob"}, "upload", start + 60, kUnreadable).blocked);
}

TEST_F(Decisions, AreCounted) {
  const Engine::Counts before = lab.engine.counts();
  lab.policy.mode = Mode::kBlock;
  lab.check(alice, "query", start);
  lab.check(alice, "remove", start + 60);
  const Engine::Counts& after = lab.engine.counts();
  const auto block = static_cast<std::size_t>(Mode::kBlock);
  EXPECT_EQ(after.verdicts[0][block] - before.verdicts[0][block], 1U);
  EXPECT_EQ(after.verdicts[2][block] - before.verdicts[2][block], 1U);
  EXPECT_EQ(after.blocked, 1U);
  std::uint64_t observed = 0;
  for (const std::uint64_t count : after.risk) observed += count;
  EXPECT_EQ(observed, lab.engine.calls());
}

TEST(Incidents, DifferAndAreNamed) {
  Lab lab;
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i)
    EXPECT_TRUE(seen.insert(lab.check({}, "query", kMonday + i * 10).incident).second);
  EXPECT_EQ(incident_name(0x1234'0000'00ab'cdefULL), "tf-000000abcdef");
}

TEST(Queue, IsEmptyWithoutJournaling) {
  Lab lab;
  lab.run({}, "query", kMonday);
  EXPECT_EQ(lab.engine.queued(), 0U);
  EXPECT_TRUE(lab.journal().empty());
}

TEST(Queue, DrainsFindingsAndOrdinaryInTheOrderTheyHappened) {
  Lab lab(journaling(7));
  for (int i = 0; i < 60; ++i) {
    const Verdict verdict =
        lab.check({}, "query", kMonday + i * 100., i % 3 == 0 ? kUnreadable : Arguments{});
    if (i % 2 == 0) lab.engine.observe(verdict.ticket, Outcome::kOk, kNoCost, kMonday + i * 100. + 1);
  }
  std::vector<std::string> records = lab.journal(10);
  EXPECT_EQ(records.size(), 10U);
  for (const std::string& record : lab.journal()) records.push_back(record);
  ASSERT_EQ(records.size(), 90U);
  EXPECT_EQ(lab.engine.queued(), 0U);
  double before = 0;
  std::uint64_t seq = 0;
  for (const std::string& bytes : records) {
    const Record record = decode(bytes);
    const RecordId id = std::visit([](const auto& r) { return r.id; }, record);
    EXPECT_GE(id.ts, before);
    EXPECT_EQ(id.worker, 7U);
    before = id.ts;
    if (std::holds_alternative<CallRecord>(record)) {
      EXPECT_EQ(id.seq, ++seq);
      EXPECT_EQ(std::get<CallRecord>(record).decision == Decision::kDeny, (seq - 1) % 3 == 0);
    } else {
      EXPECT_EQ(id.seq, seq) << "an outcome carries the number of its call";
    }
  }
  EXPECT_EQ(seq, 60U);
}

TEST(Queue, WhenFullOrdinaryRecordsGoAndFindingsStay) {
  Lab lab(journaling(7));
  lab.check({}, "finding", kMonday, kUnreadable);
  const std::size_t extra = 100;
  for (std::size_t i = 0; i < (Engine::kMostQueued + extra) / 2; ++i)
    lab.run({.user = "u" + std::to_string(i % 500)}, "query", kMonday + static_cast<double>(i) * .5);
  // Some of these are findings of their own; together nothing is missing but what was counted.
  EXPECT_GT(lab.engine.counts().dropped, 0U);
  EXPECT_EQ(lab.engine.counts().findings_lost, 0U);
  EXPECT_EQ(lab.engine.queued() + lab.engine.counts().dropped, 1 + Engine::kMostQueued + extra);
  const std::vector<std::string> records = lab.journal(2);
  EXPECT_EQ(std::get<CallRecord>(decode(records[0])).tool, "finding")
      << "the oldest record of all, still here";
}

TEST(Queue, RecordsHoldNamesAndDigestsOnly) {
  Lab lab(journaling(7));
  Arguments arguments;
  arguments.digest = 99;
  lab.check({.user = "alice", .tenant = "acme", .session = "digest", .group = "g"}, "query", kMonday,
            arguments);
  const std::vector<std::string> records = lab.journal();
  ASSERT_EQ(records.size(), 1U);
  const auto record = std::get<CallRecord>(decode(records[0]));
  EXPECT_EQ(record.tenant, "acme");
  EXPECT_EQ(record.user, "alice");
  EXPECT_EQ(record.group, "g");
  EXPECT_EQ(record.session, "digest");
  EXPECT_EQ(record.server, "upstream");
  EXPECT_EQ(record.tool, "query");
  EXPECT_EQ(record.arguments, 99U);
}

// Traffic of all kinds through one engine with a journal.
double make_traffic(Lab& lab, unsigned seed, double now = kMonday, int calls = 3000) {
  std::mt19937 random(seed);
  std::vector<std::uint64_t> running;
  for (int i = 0; i < calls; ++i) {
    now += static_cast<double>(random() % 4000) / 10;
    lab.policy.mode = random() % 3 == 0 ? Mode::kBlock : Mode::kWarn;
    const Who who{.user = "u" + std::to_string(random() % 5),
                  .tenant = "t" + std::to_string(random() % 2),
                  .session = "s" + std::to_string(random() % 3),
                  .group = random() % 2 == 0 ? "" : "g"};
    const unsigned variety = random() % 20 == 0 ? 30 : 4;
    const std::string tool = "tool" + std::to_string(random() % variety);
    const Verdict verdict = lab.check(who, tool, now, random() % 25 == 0 ? kUnreadable : Arguments{});
    if (verdict.ticket != 0 && random() % 10 != 0) running.push_back(verdict.ticket);
    while (running.size() > random() % 4) {
      const std::size_t which = random() % running.size();
      lab.engine.observe(running[which], static_cast<Outcome>(random() % 4), kNoCost, now + .5);
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }
  return now;
}

std::vector<double> next_scores(Lab& lab, double now) {
  lab.policy = {};  // the same for all: what is blocked moves no session
  std::vector<double> scores;
  for (int user = 0; user < 6; ++user)
    for (const char* tool : {"tool0", "tool3", "tool25", "unseen"})
      scores.push_back(
          lab.check({.user = "u" + std::to_string(user), .tenant = "t1", .session = "s1"}, tool, now += 7)
              .risk);
  return scores;
}

TEST(Journal, AFreshEngineFedWithItScoresTheSame) {
  for (const unsigned seed : {21U, 22U}) {
    Lab writer(journaling(1)), reader(journaling(2)), again(journaling(3));
    const double now = make_traffic(writer, seed);
    ASSERT_GT(writer.engine.counts().blocked, 20U);
    ASSERT_GT(writer.engine.counts().assumed_done, 50U);
    const std::vector<std::string> records = writer.journal();
    for (const std::string& record : records) {
      ASSERT_TRUE(feed(reader.engine, record));
      ASSERT_TRUE(feed(again.engine, record));
    }
    EXPECT_EQ(reader.engine.counts().applied, records.size());
    EXPECT_EQ(reader.engine.queued(), 0U) << "what was applied is not written again";
    EXPECT_EQ(reader.engine.calls(), writer.engine.calls());
    EXPECT_EQ(reader.engine.in_flight().size(), writer.engine.in_flight().size());
    const std::vector<double> expected = next_scores(writer, now);
    EXPECT_EQ(next_scores(reader, now), expected);
    EXPECT_EQ(next_scores(again, now), expected);
  }
}

TEST(Journal, InPiecesOrAtOnceIsTheSame) {
  Lab writer(journaling(1)), reader;
  std::vector<std::string> pieces;
  double now = kMonday;
  for (unsigned part = 0; part < 20; ++part) {
    now = make_traffic(writer, 30 + part, now, 50);
    for (std::string& record : writer.journal(17)) pieces.push_back(std::move(record));
  }
  for (std::string& record : writer.journal()) pieces.push_back(std::move(record));
  for (const std::string& record : pieces) ASSERT_TRUE(feed(reader.engine, record));
  EXPECT_EQ(next_scores(reader, now), next_scores(writer, now));
}

TEST(Journal, OwnRecordsAreSkipped) {
  Lab lab(journaling(1)), other(journaling(2));
  lab.run({}, "query", kMonday);
  other.run({}, "query", kMonday);
  for (const std::string& record : lab.journal()) EXPECT_FALSE(feed(lab.engine, record));
  EXPECT_EQ(lab.engine.calls(), 1U);
  EXPECT_EQ(lab.engine.counts().unreadable, 0U);
  for (const std::string& record : other.journal()) EXPECT_TRUE(feed(lab.engine, record));
  EXPECT_EQ(lab.engine.calls(), 2U);
}

TEST(Journal, ForeignOutcomesFindTheirCalls) {
  Lab first(journaling(1)), second(journaling(2)), reader;
  const Verdict a = first.check({}, "query", kMonday);
  const Verdict b = second.check({}, "export", kMonday + 1);  // both are number 1 of their process
  for (const std::string& record : first.journal()) feed(reader.engine, record);
  for (const std::string& record : second.journal()) feed(reader.engine, record);
  EXPECT_EQ(reader.engine.in_flight().size(), 2U);
  second.engine.observe(b.ticket, Outcome::kOk, kNoCost, kMonday + 2);
  for (const std::string& record : second.journal()) EXPECT_TRUE(feed(reader.engine, record));
  EXPECT_EQ(reader.engine.in_flight().size(), 1U);
  Baseline baseline = *baseline_of(reader.engine, "acme", "alice@example.com");
  ASSERT_EQ(baseline.tools.size(), 1U);
  EXPECT_EQ(baseline.tools[0].name, "export");
  first.engine.observe(a.ticket, Outcome::kOk, kNoCost, kMonday + 3);
  for (const std::string& record : first.journal()) EXPECT_TRUE(feed(reader.engine, record));
  EXPECT_EQ(reader.engine.in_flight().size(), 0U);
  EXPECT_EQ(baseline_of(reader.engine, "acme", "alice@example.com")->tools.size(), 2U);
  EXPECT_EQ(reader.engine.counts().unpaired, 0U);
}

TEST(Journal, RecordsThatComeLateEndNoRunningCall) {
  Lab lab(journaling(1)), late(journaling(2));
  late.run({.user = "bob"}, "query", kMonday - 20 * kMinute);
  const Verdict running = lab.check({}, "query", kMonday);
  for (const std::string& record : late.journal()) EXPECT_TRUE(feed(lab.engine, record));
  EXPECT_TRUE(lab.engine.observe(running.ticket, Outcome::kOk, kNoCost, kMonday + 1).known);
  EXPECT_EQ(lab.engine.counts().assumed_done, 0U);
}

TEST(Journal, AnOutcomeWithoutItsCallIsHarmless) {
  Lab reader;
  EXPECT_TRUE(feed(reader.engine, encode(ended({5, 6, kMonday}))));
  EXPECT_FALSE(baseline_of(reader.engine, "acme", "alice@example.com"));
}

TEST(Journal, WhatWasBlockedElsewhereTeachesNothingHere) {
  Lab writer(journaling(1)), reader;
  writer.policy.mode = Mode::kBlock;
  ASSERT_TRUE(writer.check({}, "query", kMonday, kUnreadable).blocked);
  for (const std::string& record : writer.journal()) EXPECT_TRUE(feed(reader.engine, record));
  EXPECT_EQ(reader.engine.in_flight().size(), 0U);
  reader.engine.expire(kMonday + kDay);
  EXPECT_TRUE(baseline_of(reader.engine, "acme", "alice@example.com")->tools.empty());
  EXPECT_EQ(reader.engine.counts().applied_verdicts[2][3], 1U);
  EXPECT_EQ(reader.engine.counts().blocked, 0U) << "counts of this process only";
}

TEST(Tools, BeyondTheLimitShareOneName) {
  Lab lab;
  for (std::size_t i = 0; i < Engine::kMostTools + 10; ++i)
    lab.run({.user = "u" + std::to_string(i % 50)}, "tool" + std::to_string(i),
            kMonday + static_cast<double>(i));
  EXPECT_EQ(lab.engine.counts().tools_refused, 10U);
  EXPECT_EQ(lab.engine.tools().size(), Engine::kMostTools + 1);
  EXPECT_EQ(lab.check({}, "yet another", kMonday + 1e6).tool->name, "(more tools)");
  EXPECT_EQ(lab.check({}, "tool5", kMonday + 1e6 + 1).tool->name, "tool5");
}

TEST(Tools, OfTwoServersAreTwo) {
  Lab lab;
  const CallerPtr alice = lab.caller({});
  EXPECT_NE(lab.engine.check(lab.policy, alice, "one", "query", {}, kMonday).tool,
            lab.engine.check(lab.policy, alice, "two", "query", {}, kMonday + 1).tool);
}

}  // namespace
}  // namespace tool_firewall
