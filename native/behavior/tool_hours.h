// SPDX-License-Identifier: Apache-2.0
// How often a tool was called in this hour, and in the same hour of the two weeks before: Tuesday 14:00 is
// compared with Tuesdays at 14:00, in UTC.
//
// Two cells of the tenant's table per tool, hour of the week and week modulo 3: how many calls, with the week
// they belong to, and what they cost. So a week overwrites the one three weeks before.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "behavior/levels.h"
#include "behavior/usage.h"

namespace tool_firewall {

class ToolHours {
 public:
  static constexpr double kHour = 3600;  // s
  static constexpr std::int64_t kHoursPerWeek = 168;
  static constexpr std::int64_t kWeeks = 3;         // this one and two before
  static constexpr std::int64_t kSinceMonday = 72;  // 1970 began on a Thursday

  struct Usual {
    double calls = 0;
    double cost = 0;
    int weeks = 0;  // they are the mean of; 0: cold
  };

  ToolHours(const Hasher& hasher, const Tool& tool, double now)
      : hasher_(hasher),
        tool_(tool),
        hour_(static_cast<std::int64_t>(std::floor(now / kHour)) + kSinceMonday) {}

  int hour_of_week() const {
    const std::int64_t hours = hour_ % kHoursPerWeek;
    return static_cast<int>(hours < 0 ? hours + kHoursPerWeek : hours);
  }

  double calls(const ShardedCountTable& counts, int weeks_back = 0) const {
    const std::uint32_t calls = counts.bits(key(weeks_back, kCalls));
    return calls >> kShift == tag(weeks_back) ? static_cast<double>(calls & kMask) : 0;
  }

  // `first`: when the tenant was first seen, s.
  Usual usual(const ShardedCountTable& counts, double first) const {
    const auto since = hour_ - kSinceMonday - static_cast<std::int64_t>(std::floor(first / kHour));
    Usual usual;
    usual.weeks = static_cast<int>(std::clamp<std::int64_t>(since / kHoursPerWeek, 0, kWeeks - 1));
    for (int back = 1; back <= usual.weeks; ++back) {
      const double calls_then = calls(counts, back);
      usual.calls += calls_then / usual.weeks;
      if (calls_then > 0) usual.cost += cost(counts, back) / usual.weeks;
    }
    return usual;
  }

  void add_call(ShardedCountTable& counts) const {
    bool same = true;
    counts.change_bits(key(0, kCalls), [&](std::uint32_t before) {
      same = before >> kShift == tag(0);
      return tag(0) << kShift | std::min((same ? before & kMask : 0) + 1, kMask);
    });
    if (!same) counts.set_bits(key(0, kCost), kNoCost);
  }

  // Gives what the hour has cost before and with it; nothing when the call's hour is over.
  struct Spent {
    double before = 0;
    double after = 0;
  };
  Spent add_cost(ShardedCountTable& counts, double cost) const {
    Spent spent;
    if (counts.bits(key(0, kCalls)) >> kShift != tag(0)) return spent;
    counts.change_bits(key(0, kCost), [&](std::uint32_t before) {
      spent.before = before == kNoCost ? 0 : static_cast<double>(std::bit_cast<float>(before));
      const auto sum = static_cast<float>(spent.before + cost);
      spent.after = static_cast<double>(sum);
      return std::max(kNoCost, std::bit_cast<std::uint32_t>(sum));
    });
    return spent;
  }

 private:
  enum What : std::uint64_t { kCalls, kCost };
  static constexpr std::uint32_t kShift = 25;
  static constexpr std::uint32_t kMask = (1U << kShift) - 1;
  static constexpr std::uint32_t kNoCost = 1;  // bits of the smallest float there is: cells are never 0

  std::int64_t week(int back) const {
    return static_cast<std::int64_t>(std::floor(static_cast<double>(hour_) / kHoursPerWeek)) - back;
  }
  std::uint32_t tag(int back) const { return static_cast<std::uint32_t>(week(back) & 31); }
  std::uint64_t key(int back, What what) const {
    const std::int64_t slot = ((week(back) % kWeeks) + kWeeks) % kWeeks;
    return hasher_.pair(static_cast<std::uint64_t>(KeyKind::kToolHour), tool_.id,
                        static_cast<std::uint64_t>((hour_of_week() * kWeeks + slot) * 2) + what);
  }
  double cost(const ShardedCountTable& counts, int back) const {
    const std::uint32_t cost = counts.bits(key(back, kCost));
    return cost == kNoCost ? 0 : static_cast<double>(std::bit_cast<float>(cost));
  }

  const Hasher& hasher_;
  const Tool& tool_;
  std::int64_t hour_;
};

// When an hour's count or spend is a spike: over an absolute floor, and over three times what is usual or six
// standard deviations. Between weeks the same hour varies by a quarter, and counts vary by their root.
class Spike {
 public:
  static constexpr double kRatio = 3;
  static constexpr double kDeviations = 6;
  static constexpr double kBetweenWeeks = .25;

  // `unit`: 1 for calls; of money the usual price of a call.
  Spike(double usual, double unit, bool cold, double floor) : usual_(usual), at_(floor) {
    if (cold) return;
    deviation_ = std::max(unit, std::sqrt(unit * usual + std::pow(kBetweenWeeks * usual, 2)));
    at_ = std::max(floor, std::min(kRatio * usual, usual + kDeviations * deviation_));
  }

  // 0 while there is nothing to compare with.
  double z(double value) const { return deviation_ > 0 ? (value - usual_) / deviation_ : 0; }

  // Whether the step from `before` to `after` is one to tell of: over the limit, or over twice, four times
  // ... of it. So one incident is told a few times and not with every call.
  bool tells(double before, double after) const {
    if (!(at_ > 0) || after < at_) return false;
    return before < at_ || std::floor(std::log2(after / at_)) > std::floor(std::log2(before / at_));
  }

 private:
  double usual_;
  double deviation_ = 0;
  double at_;
};

}  // namespace tool_firewall
