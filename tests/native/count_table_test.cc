// SPDX-License-Identifier: Apache-2.0
#include "behavior/count_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tool_firewall {
namespace {

using Cell = CountTable::Cell;

// What a count table should hold, kept in the plainest way.
struct Model {
  std::unordered_map<std::uint64_t, float> decayed, plain;
  void add(std::uint64_t key, float amount, Cell kind) {
    (kind == Cell::kPlain ? plain : decayed)[key] += amount;
  }
  void rescale(float factor, float floor) {
    for (auto& [key, count] : decayed) count *= factor;
    std::erase_if(decayed, [&](const auto& entry) { return entry.second < floor; });
  }
  float get(std::uint64_t key, Cell kind) const {
    const auto& of = kind == Cell::kPlain ? plain : decayed;
    const auto found = of.find(key);
    return found == of.end() ? 0 : found->second;
  }
  std::size_t size() const { return decayed.size() + plain.size(); }
};

template <class Table>
void agree_on_random_operations(Table& table, unsigned seed) {
  std::mt19937_64 random(seed);
  Model model;
  std::vector<std::uint64_t> keys(3000);
  for (auto& key : keys) key = random();
  for (int step = 0; step < 40'000; ++step) {
    const std::uint64_t key = keys[random() % keys.size()];
    const Cell kind = random() % 4 == 0 ? Cell::kPlain : Cell::kDecayed;
    const auto amount = static_cast<float>(1 + random() % 8);
    if (step % 9000 == 8999) {
      table.rescale(.25F, 1.5F);
      model.rescale(.25F, 1.5F);
    }
    ASSERT_EQ(table.add(key, amount, kind), model.get(key, kind) == 0) << "step " << step;
    model.add(key, amount, kind);
    ASSERT_EQ(table.get(key, kind), model.get(key, kind)) << "step " << step;
  }
  EXPECT_EQ(table.size(), model.size());
  EXPECT_EQ(table.evicted(), 0U);
  for (const std::uint64_t key : keys) {
    ASSERT_EQ(table.get(key), model.get(key, Cell::kDecayed));
    ASSERT_EQ(table.get(key, Cell::kPlain), model.get(key, Cell::kPlain));
    ASSERT_EQ(table.row(key).total, model.get(key, Cell::kDecayed));
    ASSERT_EQ(table.row(key).types, model.get(key, Cell::kPlain));
  }
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(table.get(random()), 0) << "an absent key";
}

TEST(CountTable, AgreesWithAMapOnRandomOperations) {
  for (const unsigned seed : {1U, 2U, 3U}) {
    CountTable table(1U << 16);
    agree_on_random_operations(table, seed);
  }
}

TEST(CountTable, ShardedAgreesWithAMapOnRandomOperations) {
  for (const unsigned seed : {4U, 5U}) {
    ShardedCountTable table(1U << 20);
    agree_on_random_operations(table, seed);
  }
}

TEST(CountTable, StartsEmptyAndTakesNoMemory) {
  const CountTable table(8192);
  EXPECT_EQ(table.bytes(), 0U);
  EXPECT_EQ(table.size(), 0U);
  for (const std::uint64_t key : {0ULL, 1ULL, ~0ULL}) EXPECT_EQ(table.get(key), 0);
}

TEST(CountTable, KeyZeroIsAKeyLikeAnyOther) {
  CountTable table(100);
  table.add(0, 3);
  EXPECT_EQ(table.get(0), 3);
  EXPECT_EQ(table.get(std::uint64_t{7} << 32), 0);
}

TEST(CountTable, GrowsWithoutLosingACountOrWastingHalf) {
  std::mt19937_64 random(9);
  CountTable table(1U << 16);
  std::vector<std::uint64_t> keys;
  for (std::uint32_t i = 1; i <= 20'000; ++i) {
    keys.push_back(random());
    table.add(keys.back(), static_cast<float>(i));
    if (i < 100) continue;
    ASSERT_LE(static_cast<double>(table.bytes()), 2 * 64. / 6 * i)
        << "more than half of the cells are free at " << i;
  }
  EXPECT_EQ(table.size(), 20'000U);
  for (std::size_t i = 0; i < keys.size(); ++i) ASSERT_EQ(table.get(keys[i]), static_cast<float>(i + 1));
}

TEST(CountTable, AtTheCapTheSmallestGoAndTheLargeStay) {
  std::mt19937_64 random(10);
  CountTable table(600);
  std::vector<std::uint64_t> large, rows;
  for (int i = 0; i < 20; ++i) {
    large.push_back(random());
    table.add(large.back(), 1e6F);
    rows.push_back(random());
    table.add(rows.back(), 1, Cell::kPlain);
  }
  EXPECT_EQ(table.evicted(), 0U);
  for (int i = 0; i < 5000; ++i) table.add(random(), 1);
  EXPECT_LE(table.size(), 600U);
  EXPECT_GT(table.size(), 400U);
  // Every insert found a free cell below the fill limit or was counted.
  EXPECT_GE(table.evicted(), 5040U - 600U);
  EXPECT_LE(table.evicted(), 5040U - 400U);
  for (const std::uint64_t key : large) EXPECT_EQ(table.get(key), 1e6F);
  for (const std::uint64_t key : rows)
    EXPECT_EQ(table.get(key, Cell::kPlain), 1) << "plain cells are never replaced";
}

TEST(CountTable, AFloodLeavesFreeCellsSoThatLookupsStayShort) {
  std::mt19937_64 random(14);
  CountTable table(8192);
  for (int i = 0; i < 200'000; ++i) table.add(random(), 1);
  EXPECT_LE(table.size(), 8192 * 92 / 100) << "a lookup of an absent key ends at the first free cell";
}

TEST(CountTable, AtTheCapExistingCellsStillCount) {
  CountTable table(6);
  for (std::uint64_t key = 1; key <= 50; ++key) table.add(key * 0x9E3779B97F4A7C15ULL, 1);
  std::uint64_t kept = 0;
  for (std::uint64_t key = 1; key <= 50; ++key)
    if (table.get(key * 0x9E3779B97F4A7C15ULL) > 0) kept = key * 0x9E3779B97F4A7C15ULL;
  ASSERT_NE(kept, 0U);
  EXPECT_FALSE(table.add(kept, 2));
  EXPECT_EQ(table.get(kept), 3);
}

TEST(CountTable, AFullTableOfPlainCellsRefusesQuietly) {
  CountTable table(6);
  for (std::uint64_t key = 1; key <= 40; ++key) table.add(key * 0x9E3779B97F4A7C15ULL, 1, Cell::kPlain);
  EXPECT_EQ(table.size(), 6U);
  table.add(77, 5);
  EXPECT_EQ(table.get(77), 0);
  EXPECT_EQ(table.size(), 6U);
}

TEST(CountTable, RescaleFadesDecayedCellsAndDropsTheForgotten) {
  CountTable table(1000);
  for (std::uint64_t i = 1; i <= 100; ++i) {
    table.add(i << 40 | i, static_cast<float>(i));
    table.add(i << 40 | i, 7, Cell::kPlain);
  }
  table.rescale(.5F, 10);  // 1..19 end below 10
  for (std::uint64_t i = 1; i <= 100; ++i) {
    EXPECT_EQ(table.get(i << 40 | i), i < 20 ? 0 : static_cast<float>(i) / 2) << i;
    EXPECT_EQ(table.get(i << 40 | i, Cell::kPlain), 7) << i;
  }
  EXPECT_EQ(table.size(), 81U + 100U);
  table.rescale(0, 1e-6F);
  EXPECT_EQ(table.size(), 100U) << "only the plain ones are left";
}

TEST(CountTable, RescaleOfNothingIsNothing) {
  CountTable table(1000);
  table.rescale(.5F, 1);
  EXPECT_EQ(table.size(), 0U);
  EXPECT_EQ(table.bytes(), 0U);
}

}  // namespace
}  // namespace tool_firewall
