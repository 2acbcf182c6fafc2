// SPDX-License-Identifier: Apache-2.0
#include "behavior/principals.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

constexpr Principals::Sizes kSizes = {8, 64, 64};

PrincipalPtr meet(Principals& principals, const std::string& tenant, const std::string& user,
                  std::uint64_t calls = 0) {
  bool fresh = false;
  const PrincipalPtr one = principals.principal(principals.tenant(tenant), user, fresh);
  one->calls += calls;
  one->used |= calls > 0;
  return one;
}

TEST(Principals, FindsOrMakes) {
  Principals principals(kSizes, 10);
  bool fresh = false;
  const PrincipalPtr alice = principals.principal(principals.tenant("acme"), "alice", fresh);
  EXPECT_TRUE(fresh);
  EXPECT_EQ(principals.principal(principals.tenant("acme"), "alice", fresh), alice);
  EXPECT_FALSE(fresh);
  EXPECT_EQ(principals.find("acme", "alice"), alice);
  EXPECT_EQ(principals.find("acme", "Alice"), nullptr) << "byte for byte";
  EXPECT_EQ(principals.find("other", "alice"), nullptr);
  EXPECT_EQ(principals.size(), 1U);
}

TEST(Principals, TheSameUserInTwoTenantsIsTwo) {
  Principals principals(kSizes, 10);
  EXPECT_NE(meet(principals, "acme", "alice"), meet(principals, "other", "alice"));
  EXPECT_NE(&principals.group(principals.tenant("acme"), "g"),
            &principals.group(principals.tenant("other"), "g"));
  EXPECT_EQ(principals.size(), 2U);
}

TEST(Principals, NewcomersPushOutTheOldestNewcomer) {
  Principals principals(kSizes, 3);
  for (const char* user : {"a", "b", "c", "d", "e"}) meet(principals, "acme", user, 1);
  EXPECT_EQ(principals.find("acme", "a"), nullptr);
  EXPECT_EQ(principals.find("acme", "b"), nullptr);
  EXPECT_NE(principals.find("acme", "c"), nullptr);
  EXPECT_EQ(principals.size(), 3U);
  EXPECT_EQ(principals.evicted(), 2U);
}

TEST(Principals, SevenCallsAreANewcomerAndEightAreNot) {
  Principals principals(kSizes, 2);
  meet(principals, "acme", "eight", 8);
  meet(principals, "acme", "seven", 7);
  meet(principals, "acme", "next", 1);
  EXPECT_NE(principals.find("acme", "eight"), nullptr);
  EXPECT_EQ(principals.find("acme", "seven"), nullptr);
}

TEST(Principals, AFloodOfNewcomersNeverTouchesTheEstablished) {
  Principals principals(kSizes, 50);
  std::vector<PrincipalPtr> established;
  for (int i = 0; i < 30; ++i) established.push_back(meet(principals, "acme", "old" + std::to_string(i), 8));
  for (int i = 0; i < 5000; ++i) meet(principals, "acme", "new" + std::to_string(i), 1 + i % 7);
  for (int i = 0; i < 5000; ++i) meet(principals, "other", "new" + std::to_string(i), 20);
  for (const PrincipalPtr& one : established) {
    EXPECT_FALSE(one->evicted);
    EXPECT_EQ(principals.find("acme", one->user), one);
  }
  EXPECT_EQ(principals.tenant("acme").principals.size(), 50U);
  EXPECT_EQ(principals.tenant("other").principals.size(), 50U) << "each tenant has its own room";
}

TEST(Principals, AmongTheEstablishedWhoeverRestedGoesFirst) {
  Principals principals(kSizes, 3);
  const PrincipalPtr a = meet(principals, "acme", "a", 8);
  const PrincipalPtr b = meet(principals, "acme", "b", 8);
  const PrincipalPtr c = meet(principals, "acme", "c", 8);
  const PrincipalPtr d =
      meet(principals, "acme", "d", 8);  // all were used: one round of grace, then the oldest goes
  EXPECT_TRUE(a->evicted);
  EXPECT_FALSE(b->evicted || c->evicted || d->evicted);
  b->used = true;  // b calls again; c has not called since the last look
  const PrincipalPtr e = meet(principals, "acme", "e", 8);
  EXPECT_TRUE(c->evicted);
  EXPECT_FALSE(b->evicted || d->evicted || e->evicted);
}

TEST(Principals, AnEvictedPrincipalComesBackAsANewOne) {
  Principals principals(kSizes, 1);
  const PrincipalPtr before = meet(principals, "acme", "a", 3);
  meet(principals, "acme", "b", 1);
  const PrincipalPtr after = meet(principals, "acme", "a");
  EXPECT_TRUE(before->evicted);
  EXPECT_NE(before, after);
  EXPECT_EQ(after->calls, 0U);
}

TEST(Principals, TooManyGroupsShareTheTenant) {
  Principals principals(kSizes, 10);
  TenantState& acme = principals.tenant("acme");
  EXPECT_EQ(&principals.group(acme, ""), &acme.peers);
  Peers* first = &principals.group(acme, "g0");
  for (int i = 1; i < 1024; ++i) EXPECT_NE(&principals.group(acme, "g" + std::to_string(i)), &acme.peers);
  EXPECT_EQ(&principals.group(acme, "one more"), &acme.peers);
  EXPECT_EQ(&principals.group(acme, "g0"), first);
  EXPECT_EQ(principals.groups_refused(), 1U);
}

// Newcomers come and go; the cap makes them come back as strangers, and nothing else.
TEST(Churn, ChangesNoScoreOfTheEstablished) {
  EngineSettings tight, roomy;
  tight.model.users_per_tenant = 20;
  roomy.model.users_per_tenant = 100'000;
  Lab with(tight), without(roomy);
  std::mt19937 random(15);
  double now = kMonday;
  int compared = 0;
  for (int i = 0; i < 4000; ++i) {
    now += 20;
    if (i >= 100 && i % 4 != 0) {
      const Who newcomer{.user = "new" + std::to_string(i), .session = "n"};
      with.run(newcomer, "query", now);
      without.run(newcomer, "query", now);
      continue;
    }
    const Who old{.user = "old" + std::to_string(i / 4 % 10)};
    const std::string tool = random() % 50 == 0 ? "rare" : random() % 3 == 0 ? "export" : "query";
    ASSERT_EQ(with.run(old, tool, now).risk, without.run(old, tool, now).risk) << i;
    ++compared;
  }
  EXPECT_GT(compared, 1000);
  EXPECT_GT(with.engine.model().principals().evicted(), 2500U);
  EXPECT_EQ(without.engine.model().principals().evicted(), 0U);
}

}  // namespace
}  // namespace tool_firewall
