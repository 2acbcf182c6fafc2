// SPDX-License-Identifier: Apache-2.0
#include "behavior/principals.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "journal/snapshot.h"
#include "lab.h"

namespace tool_firewall {
namespace {

constexpr Principals::Sizes kSizes = {8, 64, 64};
const Hasher kHasher(kKey);

PrincipalPtr meet(Principals& principals, const std::string& tenant, const std::string& user,
                  std::uint64_t calls = 0) {
  bool fresh = false;
  const PrincipalPtr one = principals.principal(principals.tenant(tenant), user, fresh);
  one->calls += calls;
  one->used |= calls > 0;
  return one;
}

TEST(Principals, FindsOrMakes) {
  Principals principals(kSizes, 10, kHasher);
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
  Principals principals(kSizes, 10, kHasher);
  EXPECT_NE(meet(principals, "acme", "alice"), meet(principals, "other", "alice"));
  EXPECT_NE(&principals.group(principals.tenant("acme"), "g"),
            &principals.group(principals.tenant("other"), "g"));
  EXPECT_EQ(principals.size(), 2U);
}

TEST(Principals, NewcomersPushOutTheOldestNewcomer) {
  Principals principals(kSizes, 3, kHasher);
  for (const char* user : {"a", "b", "c", "d", "e"}) meet(principals, "acme", user, 1);
  EXPECT_EQ(principals.find("acme", "a"), nullptr);
  EXPECT_EQ(principals.find("acme", "b"), nullptr);
  EXPECT_NE(principals.find("acme", "c"), nullptr);
  EXPECT_EQ(principals.size(), 3U);
  EXPECT_EQ(principals.evicted(), 2U);
}

TEST(Principals, SevenCallsAreANewcomerAndEightAreNot) {
  Principals principals(kSizes, 2, kHasher);
  meet(principals, "acme", "eight", 8);
  meet(principals, "acme", "seven", 7);
  meet(principals, "acme", "next", 1);
  EXPECT_NE(principals.find("acme", "eight"), nullptr);
  EXPECT_EQ(principals.find("acme", "seven"), nullptr);
}

TEST(Principals, AFloodOfNewcomersNeverTouchesTheEstablished) {
  Principals principals(kSizes, 50, kHasher);
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
  Principals principals(kSizes, 3, kHasher);
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
  Principals principals(kSizes, 1, kHasher);
  const PrincipalPtr before = meet(principals, "acme", "a", 3);
  meet(principals, "acme", "b", 1);
  const PrincipalPtr after = meet(principals, "acme", "a");
  EXPECT_TRUE(before->evicted);
  EXPECT_NE(before, after);
  EXPECT_EQ(after->calls, 0U);
}

TEST(Principals, TooManyGroupsShareTheTenant) {
  Principals principals(kSizes, 10, kHasher);
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

// Whether what is counted is what is there.
void expect_counted(Principals& principals) {
  const std::size_t counted = principals.bytes();
  principals.trim();
  EXPECT_EQ(principals.bytes(), counted);
}

PrincipalPtr call(Principals& principals, const std::string& tenant, const std::string& user, int calls = 1) {
  PrincipalPtr one = meet(principals, tenant, user);
  for (int i = 0; i < calls; ++i) {
    ++one->calls;
    one->used = true;
    principals.settle(*one);
  }
  return one;
}

constexpr std::size_t kMebibyte = 1 << 20;

TEST(Memory, AFloodStaysWithinItsBound) {
  struct Row {
    const char* name;
    int tenants, calls;
  };
  for (const Row& row :
       {Row{"newcomers", 1, 1}, Row{"newcomers of many tenants", 500, 1}, Row{"tenants", 1'000'000, 1},
        Row{"established", 1, 9}, Row{"established of many tenants", 500, 9},
        Row{"established tenants", 1'000'000, 9}}) {
    Principals principals(kSizes, 100'000, kHasher, kMebibyte);
    for (int i = 0; i < 20'000; ++i)
      call(principals, "t" + std::to_string(i % row.tenants), "u" + std::to_string(i), row.calls);
    EXPECT_LE(principals.bytes(), kMebibyte + 20'000) << row.name;
    EXPECT_GE(principals.bytes(), kMebibyte * 9 / 10) << row.name << ": the room is used";
    EXPECT_GT(principals.evicted_for_memory(), 10'000U) << row.name;
    EXPECT_EQ(principals.evicted(), principals.evicted_for_memory()) << row.name;
    EXPECT_EQ(principals.size() + principals.evicted(), 20'000U) << row.name;
    expect_counted(principals);
  }
}

TEST(Memory, TheEstablishedOfASmallerTenantAreSafe) {
  for (const int calls : {1, 9}) {
    Principals principals(kSizes, 100'000, kHasher, kMebibyte);
    for (int i = 0; i < 50; ++i) call(principals, "small", "u" + std::to_string(i), 8);
    for (int i = 0; i < 20'000; ++i) call(principals, "flood", "u" + std::to_string(i), calls);
    for (int i = 0; i < 50; ++i)
      EXPECT_NE(principals.find("small", "u" + std::to_string(i)), nullptr) << calls << " calls each, " << i;
    EXPECT_EQ(principals.find("flood", "u0"), nullptr);
    EXPECT_NE(principals.find("flood", "u19999"), nullptr);
  }
}

TEST(Memory, NewcomersOfTheLargestCrowdGoFirst) {
  Principals principals(kSizes, 100'000, kHasher, kMebibyte);
  for (int i = 0; i < 20; ++i) call(principals, "small", "u" + std::to_string(i), 1);
  for (int i = 0; i < 300; ++i) call(principals, "large", "u" + std::to_string(i), 8);
  for (int i = 0; i < 20'000; ++i) call(principals, "flood", "u" + std::to_string(i), 1);
  for (int i = 0; i < 20; ++i) EXPECT_NE(principals.find("small", "u" + std::to_string(i)), nullptr) << i;
  for (int i = 0; i < 300; ++i) EXPECT_NE(principals.find("large", "u" + std::to_string(i)), nullptr) << i;
}

TEST(Memory, ATenantGoesWithItsLastPrincipalAndIsSafeToHold) {
  Principals principals(kSizes, 100'000, kHasher, kMebibyte);
  const PrincipalPtr held = call(principals, "held", "alice");
  Peers& group = principals.group(*held->home, "g");
  for (int i = 0; i < 20'000; ++i) call(principals, "flood" + std::to_string(i), "u");
  ASSERT_TRUE(held->evicted);
  EXPECT_EQ(principals.find("held", "alice"), nullptr);
  EXPECT_FALSE(principals.tenants().contains("held"));
  // A call of theirs that ends only now teaches levels nobody else sees.
  const std::size_t before = principals.bytes();
  for (std::uint64_t i = 1; i < 1000; ++i) group.counts.add(i << 32, 1);
  principals.settle(*held->home, group);
  principals.settle(*held);
  EXPECT_EQ(principals.bytes(), before);
  const PrincipalPtr again = call(principals, "held", "alice");
  EXPECT_NE(again, held);
  EXPECT_NE(again->home, held->home);
  expect_counted(principals);
}

TEST(Memory, TheOnlyTenantMayLoseEverybodyAndComeBack) {
  Principals principals(kSizes, 100'000, kHasher, 1);
  TenantState& tenant = principals.tenant("acme");
  bool fresh = false;
  for (int i = 0; i < 100; ++i) {
    const PrincipalPtr one = principals.principal(principals.tenant("acme"), "u" + std::to_string(i), fresh);
    ASSERT_TRUE(fresh);
    ASSERT_TRUE(principals.tenants().contains("acme")) << i;
    ASSERT_FALSE(one->evicted);
  }
  EXPECT_LE(principals.size(), 2U);
  EXPECT_EQ(tenant.peers.name, "acme");
}

TEST(Memory, TablesBeyondTheirShareStopGrowing) {
  Principals principals(kSizes, 100'000, kHasher, kMebibyte);
  const PrincipalPtr small = call(principals, "small", "alice");
  const PrincipalPtr large = call(principals, "large", "bob");
  std::mt19937_64 random(3);
  for (int i = 0; i < 200'000; ++i) {
    large->home->peers.counts.add(random(), 1);
    principals.settle(*large->home, large->home->peers);
  }
  EXPECT_GT(principals.tables_stopped(), 0U);
  EXPECT_LE(principals.bytes(), 2 * kMebibyte);
  const std::size_t before = small->home->peers.counts.bytes();
  for (int i = 0; i < 500; ++i) {
    small->home->peers.counts.add(random(), 1);
    principals.settle(*small->home, small->home->peers);
  }
  EXPECT_GT(small->home->peers.counts.bytes(), before) << "somebody else's table does not stop it";
}

// What evicting costs must not grow with the number of tenants.
TEST(Memory, ManyTenantsCostNoMoreThanOne) {
  const auto seconds = [](int tenants) {
    Principals principals(kSizes, 100'000, kHasher, 16 * kMebibyte);
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 30'000; ++i)
      call(principals, "t" + std::to_string(i % tenants), "u" + std::to_string(i));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  EXPECT_LT(seconds(1'000'000), 20 * seconds(1) + 1);
}

TEST(Memory, AFloodInOtherTenantsChangesNoScore) {
  EngineSettings tight, roomy;
  tight.model.memory = 4 * kMebibyte;
  Lab with(tight), without(roomy);
  std::mt19937 random(15);
  double now = kMonday;
  int compared = 0;
  for (int i = 0; i < 20'000; ++i) {
    now += 20;
    if (i >= 200 && i % 10 != 0) {
      const std::string name = std::to_string(i);
      with.run(
          {.user = "u" + name, .tenant = i % 2 == 0 ? "flood" : "t" + name, .group = i % 3 == 0 ? "g" : ""},
          "query", now);
      with.callers.clear();
      continue;
    }
    const Who old{.user = "old" + std::to_string(i / 10 % 10), .group = i % 4 == 0 ? "g" : ""};
    const std::string tool = random() % 50 == 0 ? "rare" : random() % 3 == 0 ? "export" : "query";
    ASSERT_EQ(with.run(old, tool, now).risk, without.run(old, tool, now).risk) << i;
    ++compared;
  }
  EXPECT_GT(compared, 2000);
  EXPECT_GT(with.engine.model().principals().evicted_for_memory(), 10'000U);
  EXPECT_LE(with.engine.model().principals().bytes(), 3 * kMebibyte + 20'000);
}

// Calls still run of people whose tenant was forgotten: they end well, and a snapshot leaves them out.
TEST(Memory, RunningCallsOfAForgottenTenantEndWell) {
  EngineSettings settings;
  settings.model.memory = kMebibyte;
  Lab lab(settings), fresh(settings);
  std::vector<std::uint64_t> running;
  double now = kMonday;
  for (int i = 0; i < 2000; ++i) {
    const std::string name = std::to_string(i);
    running.push_back(
        lab.check({.user = "u", .tenant = "t" + name, .group = i % 2 == 0 ? "g" : ""}, "query", now += .1)
            .ticket);
    if (i % 3 == 0) lab.callers.clear();
  }
  ASSERT_LT(lab.engine.model().principals().tenants().size(), 500U);
  ASSERT_EQ(lab.engine.in_flight().size(), 2000U);
  restore_snapshot(fresh.engine, take_snapshot(lab.engine, "label"));
  EXPECT_LT(fresh.engine.in_flight().size(), 500U);
  EXPECT_GT(fresh.engine.in_flight().size(), 0U);
  EXPECT_EQ(fresh.engine.model().principals().size(), lab.engine.model().principals().size());
  EXPECT_EQ(fresh.engine.model().principals().bytes(), lab.engine.model().principals().bytes());
  fresh.engine.expire(now + 1000);
  for (const std::uint64_t ticket : running)
    EXPECT_TRUE(lab.engine.observe(ticket, Outcome::kOk, kNoCost, now).known);
  lab.run({.tenant = "t0"}, "query", now);
}

}  // namespace
}  // namespace tool_firewall
