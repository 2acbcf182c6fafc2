// SPDX-License-Identifier: Apache-2.0
// burst: too many calls at once, a floor under the risk whatever the other signals say.
//
//   limit   more than burst_threshold calls within burst_window seconds, counted exactly: risk .5 or more.
//   Exempt are
//           principals who, unblocked, exceeded the limit on three different days before, and those of whom
//           an operator said that their bursts are fine: their record then is at least what was seen.
//   record  the decayed count of the last minute N60 is 15 or more and 2.5 times the user's own record M or
//   more:
//           risk .5 + .1 log2(N60 / 2.5 M). M starts at 3, fades with a half-life of 30 days and grows at
//           most threefold per 10 minutes; calls that were blocked do not raise it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>

#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr double kMinute = 60;
constexpr double kDay = 86400;
constexpr double kFirstRecord = 3;
constexpr double kRecordWindow = 600;  // s
constexpr double kRecordGrowth = 3;    // per window
constexpr double kRecordHalfLife = 30 * kDay;
constexpr double kLeast = 15;  // calls
constexpr double kOver = 2.5;  // times the record
constexpr double kHighest = .9;
constexpr double kExemptDays = 3;
constexpr double kAccepted = 1e9;  // in days_over: an operator said so

// `recent` has burst_threshold entries; the struct is only the head of its block.
struct BurstState {
  double last;  // s
  double minute;
  double minute_ran;  // of it, calls that were not blocked: only these can raise the record
  double record;      // 0 until the first window ends
  double window_start;
  double window_most;
  double days_over;
  double last_day_over;
  double burst_calls;  // since the count went over the limit
  std::uint32_t next;
  std::uint32_t filled;
  double recent[1];  // times of the last calls, a ring
};

class Burst final : public Signal {
 public:
  Burst(double window, std::uint32_t threshold) : window_(window), threshold_(threshold) {}

  std::string_view name() const override { return "burst"; }
  StateSize state() const override { return {sizeof(BurstState) + sizeof(double) * (threshold_ - 1), 0}; }

  void measure(const Sight& sight, std::span<double>) override {
    const auto& user = of<BurstState>(*sight.levels.user);
    const double since = user.last > 0 ? std::max(0.0, sight.now - user.last) : 0;
    const double fade = std::exp(-since / kMinute);
    minute_ = user.minute * fade + 1;
    minute_ran_ = user.minute_ran * fade;
    record_ = std::max(kFirstRecord, user.record);
    over_limit_ = user.filled == threshold_ && std::abs(sight.now - user.recent[user.next]) < window_;
    calls_ = over_limit_ ? threshold_ + user.burst_calls + 1 : 0;
    exempt_ = is_exempt(user, sight.now);

    floor_ = 0;
    if (minute_ >= kLeast && minute_ >= kOver * record_)
      floor_ = .5 + .1 * std::log2(minute_ / (kOver * record_));
    if (over_limit_ && !exempt_) floor_ = std::max(floor_, .5 + .1 * std::log2(calls_ / threshold_));
    floor_ = std::min(floor_, kHighest);
  }

  double floor() const override { return floor_; }

  Numbers numbers(const Sight&) const override {
    const bool limit = over_limit_ && !exempt_;
    return {limit ? calls_ : minute_,
            limit ? threshold_ : record_,
            {limit ? 1.0F : 0.0F, static_cast<float>(window_), static_cast<float>(record_), 0}};
  }

  void count(const Sight& sight, bool blocked) override {
    auto& user = of<BurstState>(*sight.levels.user);
    user.last = later(user.last, sight.now);
    user.minute = minute_;
    user.minute_ran = minute_ran_ + (blocked ? 0 : 1);
    user.recent[user.next] = sight.now;
    user.next = user.next + 1 == threshold_ ? 0 : user.next + 1;
    user.filled = std::min(threshold_, user.filled + 1);
    user.burst_calls = over_limit_ ? user.burst_calls + 1 : 0;
    if (blocked) return;
    if (over_limit_) remember_day(user, sight.now);
    if (user.window_start <= 0) user.window_start = sight.now;
    const double age = std::abs(sight.now - user.window_start);
    if (age > kRecordWindow) {
      user.record = std::max({kFirstRecord, record_ * std::exp2(-age / kRecordHalfLife),
                              std::min(user.window_most, kRecordGrowth * record_)});
      user.window_start = sight.now;
      user.window_most = 0;
    }
    user.window_most = std::max(user.window_most, user.minute_ran);
  }

  void accept(Principal& principal, std::string_view what) override {
    if (what != name()) return;
    auto& user = of<BurstState>(principal);
    user.days_over = kAccepted;
    user.record = std::max({kFirstRecord, user.record, user.window_most, user.minute});
  }

  // What was learned outlives a change of the threshold, or everybody's record would start over and every
  // lively user stand out: the latest calls move into a ring of the new size.
  void adopt(std::span<const std::byte> saved, std::span<std::byte> own) const override {
    constexpr std::size_t kHead = offsetof(BurstState, recent);
    if (own.empty() || saved.size() <= kHead || (saved.size() - kHead) % sizeof(double) != 0) return;
    const std::span<const std::byte> ring = saved.subspan(kHead);
    const auto size = static_cast<std::uint32_t>(ring.size() / sizeof(double));
    BurstState old{};
    std::memcpy(&old, saved.data(), kHead);
    if (old.next >= size || old.filled > size) return;
    if (saved.size() == own.size()) {
      std::copy(saved.begin(), saved.end(), own.begin());
      return;
    }
    const std::uint32_t kept = std::min(old.filled, threshold_);
    std::uint32_t from = (old.next + size - kept) % size;
    old.next = kept == threshold_ ? 0 : kept;
    old.filled = kept;
    old.burst_calls = 0;
    std::memcpy(own.data(), &old, kHead);
    for (std::size_t to = kHead; to < kHead + kept * sizeof(double); to += sizeof(double)) {
      std::memcpy(&own[to], &ring[from * sizeof(double)], sizeof(double));
      from = from + 1 == size ? 0 : from + 1;
    }
  }

  std::vector<Fact> facts(const Levels& levels, double now) const override {
    const auto& user = of<BurstState>(*levels.user);
    return {{"record_60s", std::max(kFirstRecord, user.record)},
            {"days_over_limit", user.days_over < kAccepted ? user.days_over : 0},
            {"exempt", is_exempt(user, now) ? 1. : 0.}};
  }

  std::string explain(const Numbers& n, const Names&) const override {
    if (n.detail[0] > 0)
      return phrase("%s calls in one burst; the limit is %s in %s s", quantity(n.value).c_str(),
                    quantity(n.baseline).c_str(), quantity(n.detail[1]).c_str());
    return phrase("%s calls in about one minute; this user's record is %s", quantity(n.value).c_str(),
                  quantity(n.baseline).c_str());
  }

 private:
  // Three days with a burst, none of them today; lapses 30 days after the last.
  static bool is_exempt(const BurstState& user, double now) {
    if (user.days_over >= kAccepted) return true;
    const double today = std::floor(now / kDay);
    const double before = user.last_day_over >= today ? user.days_over - 1 : user.days_over;
    return before >= kExemptDays && today - user.last_day_over <= kRecordHalfLife / kDay;
  }

  static void remember_day(BurstState& user, double now) {
    if (user.days_over >= kAccepted) return;
    const double today = std::floor(now / kDay);
    if (user.days_over > 0 && today <= user.last_day_over) return;
    if (today - user.last_day_over > kRecordHalfLife / kDay) user.days_over = 0;
    user.days_over += 1;
    user.last_day_over = today;
  }

  double window_;
  std::uint32_t threshold_;
  double minute_ = 0;
  double minute_ran_ = 0;
  double record_ = kFirstRecord;
  double calls_ = 0;
  double floor_ = 0;
  bool over_limit_ = false;
  bool exempt_ = false;
};

}  // namespace

SignalPtr make_burst(const SignalSettings& settings) {
  return std::make_unique<Burst>(settings.burst_window, settings.burst_threshold);
}

}  // namespace tool_firewall
