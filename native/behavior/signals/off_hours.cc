// SPDX-License-Identifier: Apache-2.0
// off_hours (m3: hour): at what local hours this user starts sessions, weekdays and weekends apart. A kernel
// of (1/4, 1/2, 1/4) lets neighbouring hours help each other; n = 0 gives 1/48 for every hour.
#include <cmath>

#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::uint32_t kHours = 24;

constexpr Channel kChannels[] = {
    {.name = "hour",
     .prior = {{2.138, 2.693, 5.481, 6.011, 6.223, 6.269, 6.314, 6.314, 7.070, 7.860, 8.314}},
     .weight = 1.6},
};

class OffHours final : public Signal {
 public:
  explicit OffHours(const Hasher& hasher) {
    row_ = hasher.pair(static_cast<std::uint64_t>(KeyKind::kHourRow), 0);
    for (std::uint32_t bin = 0; bin < Zone::kHourBins; ++bin)
      cells_[bin] = hasher.pair(static_cast<std::uint64_t>(KeyKind::kHour), bin);
  }

  std::string_view name() const override { return "off_hours"; }
  std::span<const Channel> channels() const override { return kChannels; }

  void measure(const Sight& sight, std::span<double> raw) override {
    const CountTable& counts = sight.levels.user->counts;
    const std::uint32_t day = sight.hour_bin / kHours * kHours;
    const std::uint32_t hour = sight.hour_bin % kHours;
    const auto starts = [&](std::uint32_t at) {
      return counts.get(cells_[day + at % kHours]) / sight.weight;
    };
    total_ = counts.get(row_) / sight.weight;
    near_ = .5 * starts(hour) + .25 * starts(hour + 1) + .25 * starts(hour + kHours - 1);
    raw[0] = -std::log((near_ + 1. / kHours) / (total_ + 2));
  }

  Numbers numbers(const Sight& sight) const override {
    return {near_,
            total_ / Zone::kHourBins,
            {static_cast<float>(sight.hour_bin), static_cast<float>(total_), 0, 0}};
  }

  void learn(const Ran& ran) override {
    if (!ran.starts_session) return;
    CountTable& counts = ran.levels.user->counts;
    counts.add(cells_[ran.hour_bin], static_cast<float>(ran.weight));
    counts.add(row_, static_cast<float>(ran.weight));
  }

  std::string explain(const Numbers& n, const Names&) const override {
    const auto bin = static_cast<unsigned>(n.detail[0]);
    return phrase("about %s of the user's %s sessions start around %02u:00 on %s", quantity(n.value).c_str(),
                  quantity(n.detail[1]).c_str(), bin % kHours, bin < kHours ? "weekdays" : "weekends");
  }

 private:
  std::uint64_t row_;
  std::array<std::uint64_t, Zone::kHourBins> cells_{};
  double total_ = 0;
  double near_ = 0;
};

}  // namespace

SignalPtr make_off_hours(const SignalSettings& settings) {
  return std::make_unique<OffHours>(*settings.hasher);
}

}  // namespace tool_firewall
