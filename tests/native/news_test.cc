// SPDX-License-Identifier: Apache-2.0
// The list of what is new, and what operators say of it.
#include "engine/news.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/report.h"
#include "journal/snapshot.h"
#include "lab.h"

namespace tool_firewall {
namespace {

struct NewsList : testing::Test {
  std::vector<NewsItem> news(const Lab& one) const { return news_of(one.engine, "acme", alice.user); }
  std::vector<NewsItem> news() const { return news(lab); }
  // The item of a tool itself; none has an empty id.
  static NewsItem of(const std::vector<NewsItem>& all, const std::string& tool,
                     const std::string& kind = "tool") {
    for (const NewsItem& item : all)
      if (item.tool == tool && item.kind == kind) return item;
    return {};
  }
  bool control(const std::string& action, const std::string& value, double ts) {
    return feed(lab.engine,
                encode(ControlRecord{{99, ++seq, ts}, action, "acme", "", alice.user, value, "root", "why"}));
  }
  bool knows(const std::string& tool) {
    const auto baseline = baseline_of(lab.engine, "acme", alice.user);
    return std::any_of(baseline->tools.begin(), baseline->tools.end(),
                       [&](const BaselineTool& one) { return one.name == tool; });
  }

  Lab lab;
  Who alice;
  std::uint64_t seq = 0;
  double now = lab.history(alice, {"query"}, 5, 10) + 23 * kHour;
};

TEST_F(NewsList, OfOrdinaryCallsNothingIsListed) {
  for (const NewsItem& item : news()) EXPECT_GE(item.risk, 1. / 3) << item.tool;
  const std::size_t before = news().size();
  lab.run(alice, "query", now);
  EXPECT_EQ(news().size(), before);
}

TEST_F(NewsList, AtHalfItIsHeldAndListedAfterwards) {
  const Verdict verdict = lab.run(alice, "remove", now);
  ASSERT_GE(verdict.risk, .5);
  const NewsItem item = of(news(), "remove");
  ASSERT_EQ(item.id.size(), 18U);
  EXPECT_EQ(item.id.substr(0, 2), "i-");
  EXPECT_EQ(item.state, "held");
  EXPECT_EQ(item.risk, verdict.risk);
  EXPECT_EQ(item.since, now);
  EXPECT_EQ(item.until, now + 48 * kHour);
  EXPECT_EQ(item.tenant, "acme");
  EXPECT_EQ(item.user, alice.user);
  EXPECT_EQ(of(news(), "remove", "step").from, verdict.previous == nullptr ? "" : verdict.previous->name);
  for (const int hours : {12, 24, 36, 49}) lab.run(alice, "query", now + hours * kHour);
  EXPECT_EQ(of(news(), "remove").state, "listed");
  EXPECT_EQ(of(news(), "remove").until, 0);
}

TEST_F(NewsList, FromAThirdOnItIsListedAndLearned) {
  // A lively user's new tools are notable, not more.
  Lab lively;
  double at = kMonday;
  Verdict found;
  for (int i = 0; i < 400 && !(found.risk >= 1. / 3 && found.risk < .5); ++i) {
    for (int k = 0; k < 7; ++k) lively.run(alice, "query", at += 600);
    found = lively.run(alice, "tool" + std::to_string(i), at += 600);
    if (found.risk >= .5) continue;
    const NewsItem item = of(news(lively), found.tool->name);
    EXPECT_EQ(item.state, found.risk >= 1. / 3 ? "listed" : "") << found.risk;
  }
  ASSERT_GE(found.risk, 1. / 3);
  ASSERT_LT(found.risk, .5);
  EXPECT_EQ(reason_of(lively.check(alice, found.tool->name, at += 600), "novelty") == nullptr ||
                lively.engine.model().principals().find("acme", alice.user)->counts.get(found.tool->cell) > 0,
            true)
      << "it is learned all the same";
}

TEST_F(NewsList, AnAcceptedItemIsOrdinaryFromNowOn) {
  lab.run(alice, "remove", now);
  ASSERT_GE(lab.run(alice, "remove", now + 60).risk, .5);
  const NewsItem item = of(news(), "remove");
  ASSERT_TRUE(control("accept", item.id, now + 70));
  EXPECT_EQ(of(news(), "remove").id, "") << "and off the list";
  EXPECT_EQ(of(news(), "remove", "step").state, "") << "with its steps";
  EXPECT_TRUE(knows("remove"));
  EXPECT_LT(lab.run(alice, "remove", now + 600).risk, .5);
}

TEST_F(NewsList, ARejectedOneLeavesAllCountsAndIsPinned) {
  lab.run(alice, "remove", now);
  const double later = now + 50 * kHour;
  for (int i = 0; i < 20; ++i) lab.run(alice, "remove", later + i * 600);  // its time was up
  ASSERT_TRUE(knows("remove"));
  const CallerPtr caller = lab.caller(alice);
  const Tool* tool = lab.run(alice, "remove", later + 30 * 600.).tool;
  const Levels levels{caller->principal.get(), caller->group_level, caller->tenant_level};
  ASSERT_GT(levels.tenant->counts.get(tool->cell), 0);
  ASSERT_TRUE(control("reject", of(news(), "remove").id, later + 20'000));
  EXPECT_FALSE(knows("remove"));
  EXPECT_EQ(levels.user->counts.get(tool->cell), 0);
  EXPECT_EQ(levels.tenant->counts.get(tool->cell), 0);
  EXPECT_EQ(of(news(), "remove").state, "rejected");
  for (const double days : {0.1, 3., 30., 300.}) {
    const Verdict verdict = lab.run(alice, "remove", later + 20'000 + days * kDay);
    EXPECT_GE(verdict.risk, .5) << days;
    EXPECT_FALSE(knows("remove")) << days;
  }
  EXPECT_EQ(of(news(), "remove").state, "rejected");
}

TEST_F(NewsList, WhatOthersDidOfARejectedOneStays) {
  const Who bob{.user = "bob"};
  lab.history(bob, {"remove"}, 5, 20);
  for (int i = 0; i < 10; ++i) lab.run(alice, "remove", now + i * 600);
  const PrincipalPtr principal = lab.engine.model().principals().find("acme", alice.user);
  const CallerPtr caller = lab.caller(bob);
  const Tool* tool = lab.check(bob, "remove", now + 6000).tool;
  const float of_alice = principal->counts.get(tool->cell);
  const float of_all = caller->tenant_level->counts.get(tool->cell);
  ASSERT_GT(of_alice, 0);
  principal->held.push_back(
      {.cell = tool->cell, .since = now, .risk = .4, .tool = tool, .state = HeldItem::State::kListed});
  ASSERT_TRUE(control("reject", of(news(), "remove").id, now + 6100));
  EXPECT_EQ(principal->counts.get(tool->cell), 0);
  EXPECT_NEAR(caller->tenant_level->counts.get(tool->cell), of_all - of_alice, of_all * 1e-4F);
  EXPECT_LT(lab.check(bob, "remove", now + 6200).risk, .5) << "it was rejected for alice";
  EXPECT_GE(lab.check(alice, "remove", now + 6300).risk, .5);
}

TEST_F(NewsList, AFindingNobodyWantsCanBeAcceptedAfterAll) {
  lab.run(alice, "remove", now);
  const std::string id = of(news(), "remove").id;
  ASSERT_TRUE(control("reject", id, now + 60));
  EXPECT_GE(lab.run(alice, "remove", now + 5 * kDay).risk, .5);
  ASSERT_TRUE(control("accept", id, now + 5 * kDay + 60));
  EXPECT_TRUE(knows("remove"));
  EXPECT_EQ(of(news(), "remove").id, "");
  EXPECT_LT(lab.run(alice, "remove", now + 5 * kDay + 700).risk, .5);
}

TEST_F(NewsList, NewDestinationsAreOnIt) {
  const Arguments usual = lab.arguments({{"to", "bob@example.com"}});
  for (int i = 0; i < 400; ++i) lab.run(alice, "send_mail", now += 600, usual);  // for three days
  const Verdict verdict =
      lab.run(alice, "send_mail", now += 600, lab.arguments({{"to", "eve@evil.example"}}));
  ASSERT_GE(verdict.risk, 1. / 3);
  NewsItem item;
  for (const NewsItem& one : news())
    if (one.kind == "argument" && one.since == now) item = one;
  EXPECT_EQ(item.what, "address");
  EXPECT_EQ(item.tool, "send_mail");
  ASSERT_TRUE(control("reject", item.id, now + 1));
  EXPECT_GE(lab.run(alice, "send_mail", now += 600, lab.arguments({{"to", "eve@evil.example"}})).risk, .5);
  EXPECT_LT(lab.run(alice, "send_mail", now += 600, usual).risk, .5);
  ASSERT_TRUE(control("accept", item.id, now + 1));
  EXPECT_LT(lab.run(alice, "send_mail", now += 600, lab.arguments({{"to", "eve@evil.example"}})).risk, .5);
}

TEST_F(NewsList, WordsAboutNothingKnownChangeNothing) {
  lab.run(alice, "remove", now);
  const std::size_t before = news().size();
  for (const char* id :
       {"i-0000000000000000", "i-ffffffffffffffff", "i-123", "remove", "", "i-000000000000000g"}) {
    EXPECT_TRUE(control("accept", id, now));
    EXPECT_TRUE(control("reject", id, now));
  }
  EXPECT_TRUE(feed(lab.engine,
                   encode(ControlRecord{
                       {99, ++seq, now}, "accept", "acme", "", "nobody", of(news(), "remove").id, "", ""})));
  EXPECT_TRUE(feed(
      lab.engine, encode(ControlRecord{
                      {99, ++seq, now}, "reject", "else", "", alice.user, of(news(), "remove").id, "", ""})));
  EXPECT_EQ(news().size(), before);
  EXPECT_EQ(of(news(), "remove").state, "held");
  EXPECT_EQ(lab.engine.model().principals().find("acme", "nobody"), nullptr);
}

TEST_F(NewsList, AcceptedBurstsAreFineFromThenOn) {
  const auto burst = [this](double from) {
    double most = 0;
    bool told = false;
    for (int i = 0; i < 40; ++i) {
      const Verdict verdict = lab.run(alice, "query", from + i);
      told |= reason_of(verdict, "burst") != nullptr;
      most = std::max(most, verdict.risk);
    }
    EXPECT_EQ(told, most >= .5);
    return told;
  };
  EXPECT_TRUE(burst(now));
  ASSERT_TRUE(control("reject", "burst", now + 100));
  EXPECT_TRUE(burst(now + 3 * kHour)) << "rejecting a habit says nothing new";
  ASSERT_TRUE(control("accept", "burst", now + 4 * kHour));
  EXPECT_EQ(lab.fact(alice, "exempt", now), 1);
  EXPECT_FALSE(burst(now + kDay - kHour));
}

TEST_F(NewsList, IsOfOneUserOrOfAll) {
  const Who bob{.user = "bob"}, eve{.user = "eve", .tenant = "other"};
  lab.history(bob, {"query"}, 5, 10);
  lab.history(eve, {"query"}, 5, 10);
  for (const Who& who : {alice, bob, eve}) lab.run(who, "remove", now);
  const auto users = [this](const char* tenant, const char* user) {
    std::set<std::string> out;
    for (const NewsItem& item : news_of(lab.engine, tenant, user)) out.insert(item.user);
    return out;
  };
  EXPECT_EQ(users("", "").count("eve"), 1U);
  EXPECT_EQ(users("acme", "").count("eve"), 0U);
  EXPECT_EQ(users("", "eve"), (std::set<std::string>{"eve"}));
  EXPECT_TRUE(users("nobody", "").empty());
}

TEST_F(NewsList, IsBoundedAndSaysWhatItDropped) {
  const PrincipalPtr principal = lab.engine.model().principals().find("acme", alice.user);
  const Tool* tool = lab.engine.tools()[0];
  principal->held.clear();
  for (std::uint64_t i = 0; i < kHeldPerUser; ++i)
    principal->held.push_back(
        {.cell = i + 1, .since = now, .risk = .6, .tool = tool, .state = HeldItem::State::kRejected});
  ASSERT_GE(lab.run(alice, "remove", now).risk, .5);
  EXPECT_GT(lab.engine.model().held_refused(), 0U);
  EXPECT_EQ(news().size(), kHeldPerUser);
  EXPECT_FALSE(knows("remove")) << "a full list is no way to become known";
}

TEST_F(NewsList, OutlivesASnapshotAndGoesOnTheSame) {
  lab.run(alice, "remove", now);
  lab.run(alice, "drop", now + 4000);
  ASSERT_TRUE(control("reject", of(news(), "remove").id, now + 5000));
  Lab restored;
  restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
  const std::vector<NewsItem> before = news(), after = news(restored);
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].id, before[i].id);
    EXPECT_EQ(after[i].state, before[i].state);
    EXPECT_EQ(after[i].risk, before[i].risk);
    EXPECT_EQ(after[i].until, before[i].until);
  }
  EXPECT_EQ(restored.engine.model().principals().bytes(), lab.engine.model().principals().bytes());
  const std::string accept = encode(ControlRecord{
      {99, ++seq, now + 6000}, "accept", "acme", "", alice.user, of(before, "drop").id, "root", ""});
  EXPECT_TRUE(feed(lab.engine, accept));
  EXPECT_TRUE(feed(restored.engine, accept));
  EXPECT_EQ(take_snapshot(restored.engine, "x"), take_snapshot(lab.engine, "x"));
}

TEST(NewsIds, AreSixteenHexDigits) {
  EXPECT_EQ(news_item("i-00000000000000ff"), 255U);
  EXPECT_EQ(news_item("i-ffffffffffffffff"), ~std::uint64_t{0});
  for (const char* id : {"", "i-", "i-ff", "j-00000000000000ff", "i-00000000000000fg", "i-0000000000000000ff",
                         "i- 0000000000000ff", "i-+0000000000000ff", "i--000000000000ff"})
    EXPECT_FALSE(news_item(id)) << id;
}

}  // namespace
}  // namespace tool_firewall
