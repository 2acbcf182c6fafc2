// SPDX-License-Identifier: Apache-2.0
// off_hours: how far from the hours of a day at which this user was ever active, and whether on a weekend
// without ever having been.
//
// Days count, not calls: A[h] is on how many days (half-life 14 days) there was a call in local hour h, n how
// many days there were. With q = sum over all hours of 3^-distance A, the score is -ln((q + .05) / (n +
// .05)), less while there are under five days. Today does not count, so a night session stays as odd as it
// began; and odd hours of a day are learned a day later. A single odd call counts half, several of a session
// up to all. A clock that was wrong takes nothing along: what was known on this side of its jump holds again.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr int kHours = 24;
constexpr double kHalfLife = 14;  // days
constexpr double kEnoughDays = 5;
constexpr double kHourFloor = .05;  // days
constexpr double kWeekendFloor = .5;
constexpr double kOdd = 2;  // nats
constexpr int kMostDaysLookedAt = 60;

// 3^-distance, by hours apart on the clock.
constexpr std::array<double, kHours> kNear = [] {
  std::array<double, kHours> near{};
  for (int d = 0; d < kHours; ++d) {
    double value = 1;
    for (int i = 0; i < std::min(d, kHours - d); ++i) value /= 3;
    near[static_cast<std::size_t>(d)] = value;
  }
  return near;
}();

struct UserHours {
  std::int32_t day;  // local, the last with a call
  std::int32_t past_day;
  std::uint32_t started;    // 0 until the first call
  std::uint32_t mask;       // hours of that day with a call
  std::uint32_t odd;        // of these, the odd ones
  std::uint32_t held;       // odd ones of the day before
  std::uint32_t past_mask;  // of past_day
  float days;
  float weekends;      // weekend days with a call
  float all_weekends;  // weekend days there were
  std::array<float, kHours> active;
};

struct KeptHours {
  UserHours now;
  UserHours other;  // as it was before the last jump of more than a day, either way
};

struct SessionHours {
  std::uint32_t odd_calls;
};

float as_float(double value) { return static_cast<float>(value); }
double as_double(float value) { return static_cast<double>(value); }

constexpr Channel kChannels[] = {
    {.name = "hour",
     .prior = {{0, 0, .021, .102, .294, .546, .827, 1.439, 1.840, 2.120, 2.232}},
     .weight = .8,
     .alone_group = 2.0,
     // What counts is the odd session, and there are few: a handful in some thousand calls must not make the
     // next one ordinary.
     .strength = 8},
};

class OffHours final : public Signal {
 public:
  std::string_view name() const override { return "off_hours"; }
  std::span<const Channel> channels() const override { return kChannels; }
  StateSize state() const override { return {sizeof(KeptHours), 0, sizeof(SessionHours)}; }

  void measure(const Sight& sight, std::span<double> raw) override {
    const auto& kept = of<KeptHours>(*sight.levels.user);
    rolled_ = rolls(kept.now, sight.local.day);
    if (rolled_) advance(kept, sight.local.day);
    const UserHours& user = rolled_ ? today_.now : kept.now;
    hour_ = static_cast<int>(sight.local.hour_bin) % kHours;
    days_ = as_double(user.days);
    near_ = 0;
    for (int d = 0; d < kHours; ++d)
      near_ += kNear[static_cast<std::size_t>(d)] *
               as_double(user.active[static_cast<std::size_t>((hour_ + d) % kHours)]);
    const double trust = std::min(1., days_ / kEnoughDays);
    const double by_hour = trust * surprise(near_, days_, kHourFloor);
    weekends_ = as_double(user.weekends);
    const double by_weekend = sight.local.hour_bin >= kHours
                                  ? trust * surprise(weekends_, as_double(user.all_weekends), kWeekendFloor)
                                  : 0;
    odd_hour_ = by_hour > kOdd;
    of_weekend_ = by_weekend > by_hour;
    score_ = std::max(by_hour, by_weekend);
    const double calls = std::max(1., of<SessionHours>(*sight.session).odd_calls + (score_ > kOdd ? 1. : 0.));
    raw[0] = score_ * calls / (calls + 1);
  }

  std::uint8_t mark() const override { return odd_hour_ ? 1 : 0; }

  Numbers numbers(const Sight& sight) const override {
    return {of_weekend_ ? weekends_ : near_,
            days_,
            {static_cast<float>(hour_), of_weekend_ ? 1.0F : 0.0F,
             static_cast<float>(of<SessionHours>(*sight.session).odd_calls), 0}};
  }

  void count(const Sight& sight, bool) override {
    if (rolled_) of<KeptHours>(*sight.levels.user) = today_;
    if (score_ > kOdd) ++of<SessionHours>(*sight.session).odd_calls;
  }

  void learn(const Ran& ran) override {
    auto& kept = of<KeptHours>(*ran.levels.user);
    UserHours& user = kept.now;
    const std::uint32_t hour = 1U << (ran.local.hour_bin % kHours);
    if (ran.past && user.started != 0 && ran.local.day < user.day) {
      learn_past(user, ran.local.day, hour);
      return;
    }
    if (rolls(user, ran.local.day)) {
      advance(kept, ran.local.day);
      kept = today_;
    }
    user.mask |= hour;
    if (ran.mark != 0) user.odd |= hour;
  }

  std::vector<Fact> facts(const Levels& levels, double) const override {
    const UserHours& user = of<KeptHours>(*levels.user).now;
    // For people, today counts.
    std::vector<Fact> facts = {
        {"days", as_double(user.days) + user.started},
        {"weekend_days", as_double(user.weekends) + (Zone::is_weekend(user.day) ? user.started : 0)}};
    for (int hour = 0; hour < kHours; ++hour)
      facts.push_back({phrase("hour_%02d", hour),
                       as_double(user.active[static_cast<std::size_t>(hour)]) + ((user.mask >> hour) & 1U)});
    return facts;
  }

  std::string explain(const Numbers& n, const Names&) const override {
    if (n.detail[1] > 0)
      return phrase("this user works on weekends on %s of about %s days", quantity(n.value).c_str(),
                    quantity(n.baseline).c_str());
    const auto hour = whole(static_cast<double>(n.detail[0]), kHours - 1);
    if (n.detail[2] > 0)
      return phrase(
          "around %02d:00 this user was active on about %s of %s days; call %s at such an hour in this "
          "session",
          hour, quantity(n.value).c_str(), quantity(n.baseline).c_str(),
          quantity(static_cast<double>(n.detail[2]) + 1).c_str());
    return phrase("around %02d:00 this user was active on about %s of %s days", hour,
                  quantity(n.value).c_str(), quantity(n.baseline).c_str());
  }

  // Bits are looked at as positions in arrays.
  void adopt(std::span<const std::byte> saved, std::span<std::byte> own) const override {
    if (saved.size() != own.size()) return;
    if (saved.size() == sizeof(KeptHours)) {
      KeptHours kept;
      std::memcpy(&kept, saved.data(), sizeof kept);
      if (!sane(kept.now) || !sane(kept.other)) return;
    }
    std::copy(saved.begin(), saved.end(), own.begin());
  }

 private:
  static double surprise(double days, double of_days, double floor) {
    return days >= of_days ? 0 : -std::log((days + floor) / (of_days + floor));
  }

  static bool sane(const UserHours& hours) {
    const auto is_sane = [](float days) { return days >= 0 && days < 1e6F; };
    return is_sane(hours.days) && is_sane(hours.weekends) && is_sane(hours.all_weekends) &&
           std::all_of(hours.active.begin(), hours.active.end(), is_sane);
  }

  // Whether another day begins: calls come a little out of order, but a day before the last one is not that.
  static bool rolls(const UserHours& user, std::int32_t day) {
    return user.started == 0 || day > user.day || std::int64_t{day} < std::int64_t{user.day} - 1;
  }

  // What is known at the beginning of `day`, into today_.
  void advance(const KeptHours& kept, std::int32_t day) {
    const UserHours& now = kept.now;
    const UserHours& other = kept.other;
    today_ = kept;
    const bool jumps = std::abs(std::int64_t{day} - now.day) > 1;
    if (now.started != 0 && jumps) {
      today_.other = now;
      const bool is_nearer = other.started != 0 && other.day <= day && (day < now.day || other.day > now.day);
      if (is_nearer) today_.now = other;
      if (today_.now.day > day) today_.now.day = day;
    }
    if (today_.now.started == 0 || day > today_.now.day) begin(today_.now, day);
  }

  static void begin(UserHours& hours, std::int32_t day) {
    const UserHours user = hours;
    hours.day = day;
    hours.started = 1;
    hours.mask = hours.odd = hours.held = 0;
    if (user.started == 0) return;
    const std::int64_t passed = std::int64_t{day} - user.day;
    const double fade = std::exp2(-static_cast<double>(passed) / kHalfLife);
    std::uint32_t learned = (user.mask & ~user.odd) | user.held;
    for (int hour = 0; hour < kHours; ++hour) {
      float& active = hours.active[static_cast<std::size_t>(hour)];
      active = as_float((as_double(active) + ((learned >> hour) & 1U)) * fade);
      if (passed > 1 && ((user.odd >> hour) & 1U) != 0) active = as_float(as_double(active) + fade);
    }
    if (passed <= 1) hours.held = user.odd;
    hours.days = as_float((as_double(user.days) + 1) * fade);
    std::int64_t weekend_days = 0;
    for (std::int64_t at = user.day;
         at < std::min<std::int64_t>(day, std::int64_t{user.day} + kMostDaysLookedAt); ++at)
      weekend_days += Zone::is_weekend(at) ? 1 : 0;
    hours.all_weekends = as_float(as_double(user.all_weekends) * fade + static_cast<double>(weekend_days));
    hours.weekends = as_float((as_double(user.weekends) + (Zone::is_weekend(user.day) ? 1 : 0)) * fade);
  }

  // History comes in its own order, day by day.
  static void learn_past(UserHours& user, std::int32_t day, std::uint32_t hour) {
    const double fade = std::exp2(-(static_cast<double>(user.day) - day) / kHalfLife);
    if (day != user.past_day) {
      user.past_day = day;
      user.past_mask = 0;
      user.days = as_float(as_double(user.days) + fade);
      if (Zone::is_weekend(day)) {
        user.weekends = as_float(as_double(user.weekends) + fade);
        user.all_weekends = as_float(as_double(user.all_weekends) + fade);
      }
    }
    if ((user.past_mask & hour) != 0) return;
    user.past_mask |= hour;
    float& active = user.active[static_cast<std::size_t>(std::countr_zero(hour))];
    active = as_float(as_double(active) + fade);
  }

  KeptHours today_{};
  bool rolled_ = false;
  bool odd_hour_ = false;
  bool of_weekend_ = false;
  int hour_ = 0;
  double near_ = 0;
  double days_ = 0;
  double weekends_ = 0;
  double score_ = 0;
};

}  // namespace

SignalPtr make_off_hours(const SignalSettings&) { return std::make_unique<OffHours>(); }

}  // namespace tool_firewall
