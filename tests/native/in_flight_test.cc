// SPDX-License-Identifier: Apache-2.0
#include "engine/in_flight.h"

#include <gtest/gtest.h>

#include <set>

#include "lab.h"

namespace tool_firewall {
namespace {

std::uint64_t put(InFlight& calls, std::uint64_t worker, std::uint64_t seq, double ts, bool foreign = false,
                  std::optional<InFlight::Call>* crowded_out = nullptr) {
  std::optional<InFlight::Call> overflow;
  calls.next(overflow).id = {worker, seq, ts};
  if (crowded_out != nullptr) *crowded_out = std::move(overflow);
  return calls.add(foreign);
}

TEST(InFlight, GivesEachCallBackOnce) {
  InFlight calls;
  const std::uint64_t a = put(calls, 1, 1, kMonday);
  const std::uint64_t b = put(calls, 1, 2, kMonday);
  EXPECT_NE(a, b);
  EXPECT_EQ(calls.size(), 2U);
  EXPECT_EQ(calls.take(b)->id.seq, 2U);
  EXPECT_FALSE(calls.take(b));
  EXPECT_EQ(calls.take(a)->id.seq, 1U);
  EXPECT_EQ(calls.size(), 0U);
}

TEST(InFlight, KnowsAnOldTicketOfAReusedPlace) {
  InFlight calls;
  std::set<std::uint64_t> tickets;
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    const std::uint64_t ticket = put(calls, 1, i, kMonday);
    EXPECT_NE(ticket, 0U);
    EXPECT_TRUE(tickets.insert(ticket).second);
    for (const std::uint64_t old : tickets) {
      if (old == ticket || i % 100 != 0) continue;
      ASSERT_FALSE(calls.take(old));
    }
    EXPECT_EQ(calls.take(ticket)->id.seq, i);
  }
}

TEST(InFlight, RefusesTicketsItNeverGave) {
  InFlight calls;
  for (const std::uint64_t ticket : {0ULL, 1ULL, ~0ULL, 1ULL << 32, (1ULL << 32) | 1})
    EXPECT_FALSE(calls.take(ticket));
  put(calls, 1, 1, kMonday);
  for (const std::uint64_t ticket : {0ULL, 1ULL, ~0ULL, 1ULL << 32, (2ULL << 32) | 1, (1ULL << 32) | 2})
    EXPECT_FALSE(calls.take(ticket)) << ticket;
  EXPECT_EQ(calls.size(), 1U);
}

TEST(InFlight, FindsForeignCallsByTheirRecord) {
  InFlight calls;
  put(calls, 7, 1, kMonday, true);
  put(calls, 8, 1, kMonday, true);
  put(calls, 7, 2, kMonday);
  EXPECT_FALSE(calls.take(7, 2)) << "an own call is not found by its record";
  EXPECT_FALSE(calls.take(9, 1));
  EXPECT_EQ(calls.take(8, 1)->id.worker, 8U);
  EXPECT_EQ(calls.take(7, 1)->id.worker, 7U);
  EXPECT_FALSE(calls.take(7, 1));
}

TEST(InFlight, CallsAreDoneAfterFiveMinutesInTheirOrder) {
  InFlight calls;
  for (std::uint64_t i = 0; i < 10; ++i) put(calls, 1, i, kMonday + static_cast<double>(i));
  EXPECT_FALSE(calls.take_done(kMonday + 300));
  EXPECT_EQ(calls.take_done(kMonday + 300.5)->id.seq, 0U);
  EXPECT_FALSE(calls.take_done(kMonday + 300.5));
  for (std::uint64_t i = 1; i < 10; ++i) EXPECT_EQ(calls.take_done(kMonday + 1000)->id.seq, i);
  EXPECT_FALSE(calls.take_done(kMonday + 1000));
}

TEST(InFlight, ACallFromAClockThatRanAheadEndsToo) {
  InFlight calls;
  put(calls, 1, 1, kMonday + 3650 * kDay);
  put(calls, 1, 2, kMonday);
  EXPECT_FALSE(calls.take_done(kMonday + 3650 * kDay)) << "by its own clock it is young";
  EXPECT_EQ(calls.take_done(kMonday + 1)->id.seq, 1U);
  EXPECT_FALSE(calls.take_done(kMonday + 1));
}

TEST(InFlight, AnOldTimeEndsNothing) {
  InFlight calls;
  put(calls, 1, 1, kMonday);
  for (const double ago : {1., 299., 301., kHour, 12 * kHour})
    EXPECT_FALSE(calls.take_done(kMonday - ago)) << ago;
}

TEST(InFlight, TheOldestMakesRoom) {
  InFlight calls;
  std::optional<InFlight::Call> crowded_out;
  std::uint64_t first = 0;
  for (std::uint64_t i = 0; i < InFlight::kMost; ++i) {
    const std::uint64_t ticket = put(calls, 1, i, kMonday, false, &crowded_out);
    if (i == 0) first = ticket;
    ASSERT_FALSE(crowded_out);
  }
  put(calls, 1, 99'999, kMonday, false, &crowded_out);
  ASSERT_TRUE(crowded_out);
  EXPECT_EQ(crowded_out->id.seq, 0U);
  EXPECT_FALSE(calls.take(first));
  EXPECT_EQ(calls.size(), InFlight::kMost);
}

}  // namespace
}  // namespace tool_firewall
