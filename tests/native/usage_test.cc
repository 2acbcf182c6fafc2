// SPDX-License-Identifier: Apache-2.0
#include "behavior/usage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "lab.h"

namespace tool_firewall {
namespace {

class UsageTest : public testing::Test {
 protected:
  Item item(const Tool* tool, const Session& session, std::size_t which) {
    return usage_of(hasher, *tool, session, levels).items.at(which);
  }
  Hasher hasher{kKey};
  Tool query{hasher, "", "query"};
  Tool remove{hasher, "", "remove"};
  Principal user{"acme", "alice", 0};
  Peers group{"analysts", 0, 0};
  Peers tenant{"acme", 0, 0};
  Levels levels{&user, &group, &tenant};
};

TEST_F(UsageTest, ListsTheToolTheStepAndTheSkips) {
  Session session;
  Usage usage = usage_of(hasher, query, session, levels);
  EXPECT_EQ(usage.count, 2U);
  EXPECT_TRUE(usage.skips().empty());
  session.previous = &remove;
  session.earlier = {&query, &remove};
  session.earlier_count = 2;
  usage = usage_of(hasher, query, session, levels);
  ASSERT_EQ(usage.count, 4U);
  EXPECT_EQ(usage.tool().kind, ItemKind::kTool);
  EXPECT_EQ(usage.step().kind, ItemKind::kStep);
  EXPECT_EQ(usage.step().from, &remove);
  EXPECT_EQ(usage.skips()[0].from, &query);
  EXPECT_EQ(usage.skips()[1].from, &remove);
  std::set<std::uint64_t> keys;
  for (std::size_t i = 0; i < usage.count; ++i) {
    EXPECT_TRUE(keys.insert(usage.items[i].row).second);
    EXPECT_TRUE(keys.insert(usage.items[i].cell).second) << "a step and a skip between the same tools differ";
  }
}

TEST_F(UsageTest, CountsAtAllThreeLevelsAndSaysWhereItWasNew) {
  const Session session;
  const ItemKey key = item(&query, session, 0);
  News news = learn_item(key, levels, 1);
  EXPECT_TRUE(news.user && news.group && news.tenant);
  news = learn_item(key, levels, 2);
  EXPECT_FALSE(news.user || news.group || news.tenant);
  Principal other{"acme", "bob", 0};
  news = learn_item(key, {&other, &group, &tenant}, 4);
  EXPECT_TRUE(news.user);
  EXPECT_FALSE(news.group || news.tenant);
  Peers other_group{"writers", 0, 0};
  news = learn_item(key, {&other, &other_group, &tenant}, 4);
  EXPECT_FALSE(news.user || news.group || news.tenant) << "known to the user: new nowhere that matters";
  const Item seen = item(&query, session, 0);
  EXPECT_EQ(seen.level(Level::kUser).count, 3);
  EXPECT_EQ(seen.level(Level::kUser).total, 3);
  EXPECT_EQ(seen.level(Level::kUser).types, 1);
  EXPECT_EQ(seen.level(Level::kGroup).count, 7);
  EXPECT_EQ(seen.level(Level::kTenant).count, 11);
}

TEST_F(UsageTest, ATenantThatIsItsOwnPeerGroupCountsOnce) {
  levels.group = &tenant;
  learn_item(item(&query, {}, 0), levels, 1);
  const Item seen = item(&query, {}, 0);
  EXPECT_EQ(seen.level(Level::kTenant).count, 1);
  EXPECT_EQ(seen.level(Level::kGroup).count, 1);
}

TEST_F(UsageTest, CountsTheTypesOfARow) {
  for (int i = 0; i < 3; ++i) learn_item(item(&query, {}, 0), levels, 1);
  learn_item(item(&remove, {}, 0), levels, 1);
  const Item seen = item(&remove, {}, 0);
  EXPECT_EQ(seen.level(Level::kUser).types, 2);
  EXPECT_EQ(seen.level(Level::kUser).total, 4);
  EXPECT_EQ(seen.level(Level::kUser).count, 1);
}

TEST(WittenBell, GivesProbabilitiesByHand) {
  struct Row {
    const char* name;
    Tally user, group, tenant;
    double weight, base, expected;
  };
  // Without a base the tenant says count / (total + types), or types / (total + types) for what it never saw.
  const Row rows[] = {
      {"an empty world: one unseen type in one", {}, {}, {}, 1, 0, 1},
      {"only the base", {}, {}, {}, 1, .25, .25},
      {"known to the tenant alone", {}, {}, {3, 8, 2}, 1, 0, 3. / 10},
      {"new to the tenant", {}, {}, {0, 8, 2}, 1, 0, 2. / 10},
      {"known to all", {5, 10, 2}, {6, 20, 4}, {10, 30, 5}, 1, 0, (5 + 2 * ((6 + 4 * (10. / 35)) / 24)) / 12},
      {"with a base",
       {5, 10, 2},
       {6, 20, 4},
       {10, 30, 5},
       1,
       .1,
       (5 + 2 * ((6 + 4 * ((10 + 5 * .1) / 35)) / 24)) / 12},
      {"new to the user", {0, 10, 2}, {6, 20, 4}, {10, 30, 5}, 1, 0, (2 * ((6 + 4 * (10. / 35)) / 24)) / 12},
      {"sums are divided by the weight of now",
       {10, 20, 2},
       {12, 40, 4},
       {20, 60, 5},
       2,
       0,
       (5 + 2 * ((6 + 4 * (10. / 35)) / 24)) / 12},
      {"types were evicted: taken as one", {4, 8, 0}, {}, {}, 1, .5, (4 + .5) / 9},
      {"the row was evicted, its cell was not", {500, 1, 1}, {}, {}, 1, .5, 1},
      {"hopeless", {0, 1e6F, 1}, {0, 1e6F, 1}, {0, 1e6F, 1}, 1, 1e-6, 1e-12},
  };
  for (const Row& row : rows) {
    Item item;
    item.at = {row.user, row.group, row.tenant};
    EXPECT_NEAR(witten_bell(item, row.weight, row.base), row.expected, 1e-9 * row.expected) << row.name;
  }
}

TEST(WittenBell, ARowSumsToOneOverItsTypesAndTheNew) {
  // In one level: the shares of all types plus the share of something new make one.
  for (const int types : {1, 3, 20}) {
    double sum = 0;
    const auto total = static_cast<float>(types * (types + 1) / 2);
    for (int i = 1; i <= types; ++i) {
      Item item;
      item.at[2] = {static_cast<float>(i), total, static_cast<float>(types)};
      sum += witten_bell(item, 1, 0);
    }
    Item fresh;
    fresh.at[2] = {0, total, static_cast<float>(types)};
    EXPECT_NEAR(sum + witten_bell(fresh, 1, 0), 1, 1e-6) << types;
  }
}

TEST(WittenBell, IsAProbabilityWhateverTheTalliesSay) {
  std::mt19937 random(13);
  const auto any = [&] { return random() % 3 == 0 ? 0.F : static_cast<float>(random() % 1'000'000) / 100; };
  for (int i = 0; i < 50'000; ++i) {
    Item item;
    for (Tally& tally : item.at) tally = {any(), any(), any()};
    const double p =
        witten_bell(item, std::exp2(static_cast<double>(random() % 40) - 20), random() % 2 == 0 ? 0 : .01);
    ASSERT_GT(p, 0);
    ASSERT_LE(p, 1);
  }
}

}  // namespace
}  // namespace tool_firewall
