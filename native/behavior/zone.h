// SPDX-License-Identifier: Apache-2.0
// Local hours without a time-zone library: the caller hands in the UTC offsets and from when each holds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tool_firewall {

struct Zone {
  std::string name = "UTC";
  std::vector<std::pair<double, std::int32_t>>
      offsets;  // (valid from, s since the epoch; offset east of UTC, s), ascending

  // Seconds to add to UTC at `now`; the first entry also holds before its time.
  std::int32_t offset(double now) const {
    if (offsets.empty()) return 0;
    const auto after = std::upper_bound(offsets.begin(), offsets.end(), now,
                                        [](double t, const auto& entry) { return t < entry.first; });
    return after == offsets.begin() ? after->second : std::prev(after)->second;
  }

  static constexpr std::uint32_t kHourBins = 48;  // 0..23 Monday to Friday, 24..47 Saturday and Sunday

  struct Local {
    std::uint32_t hour_bin = 0;
    std::int32_t day = 0;  // since 1970-01-01, of the local calendar
  };

  Local local(double now) const {
    const double here = now + offset(now);
    const auto hours = static_cast<std::int64_t>(std::floor(here / 3600));
    const auto days = static_cast<std::int64_t>(std::floor(here / 86400));
    const std::int64_t hour = ((hours % 24) + 24) % 24;
    return {static_cast<std::uint32_t>(hour + (is_weekend(days) ? 24 : 0)), static_cast<std::int32_t>(days)};
  }

  std::uint32_t hour_bin(double now) const { return local(now).hour_bin; }

  static bool is_weekend(std::int64_t day) {
    return (((day + 3) % 7) + 7) % 7 >= 5;  // 1970-01-01 was a Thursday; 0 is Monday
  }
};

}  // namespace tool_firewall
