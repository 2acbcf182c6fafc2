// SPDX-License-Identifier: Apache-2.0
#include "behavior/decay.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "behavior/count_table.h"
#include "lab.h"

namespace tool_firewall {
namespace {

constexpr double kHalfLife = 14 * kDay;

// Keeps a table the way the model does: brought to the epoch of now before each use.
struct Kept {
  Decay decay{kHalfLife};
  CountTable table{1000};
  std::uint32_t epoch = 0;
  double weight(double now) {
    const double weight = decay.weight(now);
    if (epoch != decay.epoch()) {
      table.rescale(decay.factor(epoch), Decay::kForgotten);
      epoch = decay.epoch();
    }
    return weight;
  }
};

// The landmark before kMonday: landmarks are whole multiples of twenty half-lives since 1970.
const double kLandmark = std::floor(kMonday / (20 * kHalfLife)) * 20 * kHalfLife;

TEST(Decay, WeighsByHalfLives) {
  Decay decay(kHalfLife);
  EXPECT_EQ(decay.weight(kLandmark), 1);
  EXPECT_DOUBLE_EQ(decay.weight(kLandmark + kHalfLife), 2);
  EXPECT_DOUBLE_EQ(decay.weight(kLandmark + 20 * kHalfLife), 1 << 20);
  EXPECT_DOUBLE_EQ(decay.weight(kLandmark - kHalfLife), .5)
      << "late records are worth what they would have been";
  EXPECT_EQ(decay.epoch(), 0U);
}

TEST(Decay, DoesNotDependOnWhoCameFirst) {
  for (const double first : {kLandmark, kMonday - 100 * kDay, kMonday - 3 * kHour, kMonday}) {
    Decay decay(kHalfLife), other(kHalfLife);
    decay.weight(first);
    decay.weight(kMonday);
    EXPECT_EQ(decay.weight(kMonday + kHour), other.weight(kMonday + kHour)) << kMonday - first;
  }
}

TEST(Decay, MovesItsLandmarkEveryTwentyHalfLives) {
  Decay decay(kHalfLife);
  decay.weight(kLandmark);
  EXPECT_DOUBLE_EQ(decay.weight(kLandmark + 21 * kHalfLife), 2);
  EXPECT_EQ(decay.epoch(), 1U);
  EXPECT_FLOAT_EQ(decay.factor(0), 0x1p-20F);
  EXPECT_EQ(decay.factor(1), 1);
  EXPECT_DOUBLE_EQ(decay.weight(kLandmark + 65 * kHalfLife), 32);
  EXPECT_EQ(decay.epoch(), 3U);
  EXPECT_FLOAT_EQ(decay.factor(1), 0x1p-40F);
}

TEST(Decay, CountsStayRightForYears) {
  std::mt19937 random(12);
  std::exponential_distribution<double> gaps(1 / (2 * kDay));
  Kept kept;
  std::vector<double> events;
  double now = kMonday;
  for (int i = 0; i < 3000; ++i) {  // about 16 years
    now += gaps(random);
    events.push_back(now);
    kept.table.add(42, static_cast<float>(kept.weight(now)));
    if (i % 97 != 0) continue;
    const double later = now + gaps(random);
    double expected = 0;
    for (const double event : events) expected += std::exp2((event - later) / kHalfLife);
    const double weight = kept.weight(later);
    ASSERT_NEAR(kept.table.get(42) / weight, expected, 1e-4 * expected) << "after " << i;
    now = later;
  }
  EXPECT_GT(kept.epoch, 15U);
}

TEST(Decay, AnEventThatRestsForYearsIsForgotten) {
  Kept kept;
  kept.table.add(1, static_cast<float>(kept.weight(kMonday)));
  kept.table.add(2, 1, CountTable::Cell::kPlain);
  kept.weight(kMonday + 10 * 365 * kDay);
  EXPECT_EQ(kept.table.get(1), 0);
  EXPECT_EQ(kept.table.get(2, CountTable::Cell::kPlain), 1);
}

TEST(Decay, AnyTimeHasAUsableWeight) {
  struct Row {
    const char* name;
    double time;
  };
  const Row rows[] = {{"1970", 0},
                      {"ten years back", kMonday - 3650 * kDay},
                      {"a century back", kMonday - 36500 * kDay},
                      {"long before 1970", -1e12},
                      {"ten years on", kMonday + 3650 * kDay},
                      {"year 33658", 1e12}};
  for (const double half_life : {kDay, kHalfLife, 365 * kDay}) {
    for (const Row& row : rows) {
      Decay decay(half_life);
      decay.weight(kMonday);
      const double weight = decay.weight(row.time);
      EXPECT_TRUE(std::isfinite(weight)) << row.name;
      EXPECT_GE(static_cast<float>(weight), std::numeric_limits<float>::min())
          << row.name << ", half-life " << half_life;
      EXPECT_LE(weight, 0x1p20) << row.name;
    }
  }
}

}  // namespace
}  // namespace tool_firewall
