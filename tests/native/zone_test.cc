// SPDX-License-Identifier: Apache-2.0
#include "behavior/zone.h"

#include <gtest/gtest.h>

#include "lab.h"

namespace tool_firewall {
namespace {

// From the IANA data; the tests of the Python package compare its tables with zoneinfo.
const Zone kBerlin = {"Europe/Berlin", {{1'761'440'400, 3600}, {1'774'746'000, 7200}, {1'792'890'000, 3600}}};
const Zone kNewYork = {"America/New_York",
                       {{1'762'063'200, -18'000}, {1'772'953'200, -14'400}, {1'793'512'800, -18'000}}};
const Zone kUtc;

TEST(Zone, GivesTheLocalHour) {
  struct Row {
    const char* name;
    const Zone* zone;
    double utc;
    std::uint32_t hour;
    bool weekend;
  };
  const Row rows[] = {
      {"UTC, Monday 00:00", &kUtc, kMonday, 0, false},
      {"UTC, a second before is Sunday", &kUtc, kMonday - 1, 23, true},
      {"UTC, Friday 23:59:59", &kUtc, kMonday + 5 * kDay - 1, 23, false},
      {"UTC, Saturday 00:00", &kUtc, kMonday + 5 * kDay, 0, true},
      {"Berlin, winter", &kBerlin, kMonday + 9 * kHour, 10, false},
      {"Berlin, Monday 00:30 is Sunday in UTC", &kBerlin, kMonday - 30 * kMinute, 0, false},
      {"Berlin, a second before summer time", &kBerlin, 1'774'746'000 - 1, 1, true},
      {"Berlin, summer time: 02:00 does not exist", &kBerlin, 1'774'746'000, 3, true},
      {"Berlin, summer", &kBerlin, 1'774'746'000 + 36 * kHour, 15, false},
      {"Berlin, 02:59:59 the first time", &kBerlin, 1'792'890'000 - 1, 2, true},
      {"Berlin, 02:00 the second time", &kBerlin, 1'792'890'000, 2, true},
      {"Berlin, an hour later", &kBerlin, 1'792'890'000 + 3600, 3, true},
      {"New York, winter, still Sunday", &kNewYork, kMonday, 19, true},
      {"New York, a second before summer time", &kNewYork, 1'772'953'200 - 1, 1, true},
      {"New York, summer time", &kNewYork, 1'772'953'200, 3, true},
      {"New York, back in winter", &kNewYork, 1'793'512'800, 1, true},
      {"Berlin, before the first offset", &kBerlin, 1'761'440'400 - 3600, 1, true},
      {"1970-01-01 was a Thursday", &kUtc, 0, 0, false},
      {"1969-12-28 was a Sunday", &kUtc, -4 * kDay + 3600, 1, true},
      {"Berlin, long before the first offset", &kBerlin, 0, 1, false},
  };
  for (const Row& row : rows)
    EXPECT_EQ(row.zone->hour_bin(row.utc), row.hour + (row.weekend ? 24 : 0)) << row.name;
}

TEST(Zone, TheFirstOffsetAlsoHoldsBefore) {
  EXPECT_EQ(kBerlin.offset(-1e10), 3600);
  EXPECT_EQ(kBerlin.offset(1e11), 3600);
  EXPECT_EQ(kUtc.offset(kMonday), 0);
}

TEST(Zone, EveryTimeHasABin) {
  for (double t = -1e12; t <= 1e12; t += 1.23456789e9) {
    ASSERT_LT(kBerlin.hour_bin(t), Zone::kHourBins) << t;
    ASSERT_LT(kNewYork.hour_bin(t), Zone::kHourBins) << t;
  }
}

}  // namespace
}  // namespace tool_firewall
