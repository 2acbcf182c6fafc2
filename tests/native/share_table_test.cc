// SPDX-License-Identifier: Apache-2.0
#include "behavior/share_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "journal/snapshot.h"

namespace tool_firewall {
namespace {

constexpr std::uint64_t kSpread = 0x9E3779B97F4A7C15ULL;

std::string written(const ShareTable& table) {
  StateWriter out;
  table.write(out);
  return out.bytes();
}

void read_into(ShareTable& table, std::string_view bytes) {
  StateReader in(bytes, kSnapshotFormat);
  table.read(in);
  in.end();
}

TEST(Share, ByHand) {
  Share share;
  EXPECT_EQ(share.value(), .5);
  for (int i = 0; i < 8; ++i) share.learn(i == 0, 400);
  EXPECT_NEAR(share.value(), 2. / 10, 1e-7);
  for (int i = 0; i < 5000; ++i) share.learn(true, 400);
  EXPECT_GT(share.value(), .99) << "old ones fade";
  EXPECT_LE(share.total, 401.5);
  for (int i = 0; i < 100'000; ++i) {
    share.learn(i % 10 == 0, 400);
    ASSERT_GE(share.value(), 0);
    ASSERT_LE(share.value(), 1);
  }
  EXPECT_NEAR(share.value(), .1, .03);
}

TEST(ShareTable, WhatNothingIsKnownOfIsTheBeginning) {
  ShareTable table;
  EXPECT_EQ(table.get(7).new_to_user.value(), .5);
  EXPECT_EQ(table.bytes(), 0U);
  table.at(7).new_to_user.learn(true, 400);
  EXPECT_EQ(table.get(8).new_to_user.value(), .5);
  EXPECT_NEAR(table.get(7).new_to_user.value(), 2. / 3, 1e-6);
}

TEST(ShareTable, GrowsAndKeepsEverything) {
  ShareTable table;
  constexpr std::uint64_t kKeys = 20'000;
  for (std::uint64_t key = 1; key <= kKeys; ++key)
    table.at(key * kSpread).new_to_user.total = static_cast<float>(key + 2);
  for (std::uint64_t key = 1; key <= kKeys; ++key)
    ASSERT_EQ(table.get(key * kSpread).new_to_user.total, static_cast<float>(key + 2)) << key;
  EXPECT_EQ(table.evicted(), 0U);
  EXPECT_GE(table.bytes(), kKeys * 32);
  EXPECT_LE(table.bytes(), 64 * 1024 * 32U);
}

TEST(ShareTable, KeysThatFallOnOnePlaceAreApart) {
  ShareTable table;
  for (std::uint64_t i = 0; i < 200; ++i) table.at(i << 32).new_to_user.total = static_cast<float>(i + 2);
  for (std::uint64_t i = 1; i < 200; ++i)
    EXPECT_EQ(table.get(i << 32).new_to_user.total, static_cast<float>(i + 2));
  table.at(0).new_to_group.total = 9;
  EXPECT_EQ(table.get(0).new_to_group.total, 9) << "0 is a key too";
}

TEST(ShareTable, AFullOneForgetsTheLeastTaught) {
  ShareTable table;
  // All in one shard: the upper six bits are zero.
  const auto key = [](std::uint64_t i) { return (i * kSpread) >> 6 | 1; };
  std::uint64_t added = 0;
  while (table.evicted() == 0) {
    table.at(key(added)).new_to_user.total = static_cast<float>(2 + (added * 7919) % 1000);
    ++added;
    ASSERT_LT(added, 2000U);
  }
  EXPECT_EQ(added, ShareTable::kMostPerShard / 8 * 7 + 1);
  EXPECT_NEAR(static_cast<double>(table.evicted()), static_cast<double>(added) / 4, 30);
  std::vector<float> kept, gone;
  for (std::uint64_t i = 0; i + 1 < added; ++i) {
    const float total = static_cast<float>(2 + (i * 7919) % 1000);
    (table.get(key(i)).new_to_user.total == total && total != 2 ? kept : gone).push_back(total);
  }
  EXPECT_GE(*std::min_element(kept.begin(), kept.end()), *std::max_element(gone.begin(), gone.end()));
  const std::size_t bytes = table.bytes();
  for (std::uint64_t i = 0; i < 100'000; ++i) table.at(key(i + 10'000));
  EXPECT_EQ(table.bytes(), bytes) << "and never grows beyond";
}

TEST(ShareTable, AFloodOfNewOnesKeepsWhatWasTaught) {
  ShareTable table;
  const auto key = [](std::uint64_t i) { return (i * kSpread) >> 6 | 1; };
  for (std::uint64_t i = 0; i < 100; ++i)
    for (int n = 0; n < 50; ++n) table.at(key(i)).new_to_user.learn(false, 400);
  for (std::uint64_t i = 1000; i < 50'000; ++i) table.at(key(i)).new_to_user.learn(true, 400);
  for (std::uint64_t i = 0; i < 100; ++i) EXPECT_LT(table.get(key(i)).new_to_user.value(), .05) << i;
}

TEST(ShareTable, ACopyIsTheSameAndGoesOnTheSame) {
  for (const std::uint64_t keys : {0, 1, 7, 8, 500, 100'000}) {
    ShareTable table, copy;
    for (std::uint64_t i = 0; i < keys; ++i) {
      table.at(i * kSpread).new_to_user.learn(i % 3 == 0, 400);
      table.at(i * kSpread).new_to_tenant.learn(i % 2 == 0, 200);
    }
    read_into(copy, written(table));
    EXPECT_EQ(written(copy), written(table)) << keys;
    EXPECT_EQ(copy.bytes(), table.bytes()) << keys;
    for (std::uint64_t i = 0; i < 3000; ++i) {
      table.at((i + 3) * 0xD1B54A32D192ED03ULL).new_to_group.learn(true, 200);
      copy.at((i + 3) * 0xD1B54A32D192ED03ULL).new_to_group.learn(true, 200);
    }
    EXPECT_EQ(written(copy), written(table)) << keys;
  }
}

TEST(ShareTable, DamagedBytesAreRefusedOrSafe) {
  ShareTable table;
  for (std::uint64_t i = 0; i < 300; ++i) table.at(i * kSpread).new_to_user.learn(i % 3 == 0, 400);
  const std::string good = written(table);
  std::mt19937 random(51);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = good;
    for (auto n = 1 + random() % 3; n > 0; --n) {
      const std::size_t at = random() % bytes.size();
      if (random() % 3 == 0)
        bytes[at] = static_cast<char>(0xff);
      else
        bytes[at] = static_cast<char>(bytes[at] ^ (1U << (random() % 8)));
    }
    if (random() % 10 == 0) bytes.resize(random() % bytes.size());
    ShareTable copy;
    try {
      read_into(copy, bytes);
    } catch (const SnapshotError&) {
      ++refused;
      continue;
    }
    for (std::uint64_t i = 0; i < 40; ++i) {
      const double value = copy.get(i * kSpread).new_to_user.value();
      ASSERT_TRUE(value > 0 && value <= 1) << value;
      copy.at(i * 12345 * kSpread).new_to_user.learn(true, 400);  // comes to an end
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(ShareTable, WhatNoTableHoldsIsRefused) {
  const auto bytes = [](std::uint32_t places, std::uint32_t size, const std::vector<std::uint32_t>& at,
                        float hits, float total, std::uint64_t key = 5) {
    StateWriter out;
    out(places, size);
    for (const std::uint32_t place : at) out(place, key, hits, total, hits, total, hits, total);
    for (std::size_t i = 1; i < ShareTable::kShards; ++i) out(std::uint32_t{0}, std::uint32_t{0});
    return out.bytes();
  };
  const auto refused = [&](const std::string& content) {
    ShareTable table;
    try {
      read_into(table, content);
    } catch (const SnapshotError&) {
      return true;
    }
    return false;
  };
  EXPECT_FALSE(refused(bytes(8, 1, {5}, 1, 2)));
  EXPECT_TRUE(refused(bytes(9, 1, {5}, 1, 2))) << "no power of two";
  EXPECT_TRUE(refused(bytes(4, 1, {3}, 1, 2))) << "too small";
  EXPECT_TRUE(refused(bytes(2048, 1, {5}, 1, 2))) << "too large";
  EXPECT_TRUE(refused(bytes(8, 8, {0, 1, 2, 3, 4, 5, 6, 7}, 1, 2))) << "too full: a look would never end";
  EXPECT_TRUE(refused(bytes(8, 1, {8}, 1, 2))) << "outside";
  EXPECT_TRUE(refused(bytes(8, 2, {5, 5}, 1, 2))) << "twice in one place";
  EXPECT_TRUE(refused(bytes(8, 1, {5}, 0, 2))) << "a share of nothing is a logarithm of nothing";
  EXPECT_TRUE(refused(bytes(8, 1, {5}, 3, 2))) << "more than all";
  EXPECT_TRUE(refused(bytes(8, 1, {5}, 1, 1e7F)));
  EXPECT_TRUE(refused(bytes(8, 1, {5}, std::nanf(""), 2)));
  EXPECT_TRUE(refused(bytes(8, 1, {5}, 1, 2, 0))) << "no key";
}

}  // namespace
}  // namespace tool_firewall
