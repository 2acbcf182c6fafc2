// SPDX-License-Identifier: Apache-2.0
// frequency (m3: rate): calls in the last 1, 10 and 60 minutes (exponentially decayed counts N), each ln N as
// a z-score against the user's own mean and variance, shrunk to the peer group with the weight of 15 calls.
// The largest counts.
#include <algorithm>
#include <array>
#include <cmath>

#include "behavior/moments.h"
#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::array<double, 3> kWindows = {60, 600, 3600};  // s, time constants of the decay
constexpr double kNoise = .25;
constexpr double kClip = 3;  // standard deviations one call may teach

struct UserRate {
  double last;  // s
  std::array<double, kWindows.size()> count;
  std::array<Moments, kWindows.size()> usual;
};

struct GroupRate {
  std::array<Moments, kWindows.size()> usual;
};

Expected shrunk(const Moments& user, const Moments& group) {
  const double mean = expected_mean(user, group);
  return {mean, std::sqrt(std::max(expected_variance(user, group, mean), kNoise * std::exp(-mean)))};
}

constexpr Channel kChannels[] = {
    {.name = "rate",
     .prior = {{.416, 1.089, 1.394, 1.636, 1.919, 2.120, 2.330, 2.607, 2.792, 2.967, 3.165}},
     .weight = 1.6},
};

class Frequency final : public Signal {
 public:
  std::string_view name() const override { return "frequency"; }
  std::span<const Channel> channels() const override { return kChannels; }
  StateSize state() const override { return {sizeof(UserRate), sizeof(GroupRate)}; }

  void measure(const Sight& sight, std::span<double> raw) override {
    const auto& user = of<UserRate>(*sight.levels.user);
    const auto& group = of<GroupRate>(*sight.levels.group);
    const double since = user.last > 0 ? std::max(0.0, sight.now - user.last) : 0;
    // The windows divide each other, so one exponential serves all three.
    const double hour = std::exp(-since / kWindows[2]);
    const double third = hour * hour * hour;
    const double ten_minutes = third * third;
    const double fourfold = (ten_minutes * ten_minutes) * (ten_minutes * ten_minutes);
    const std::array<double, kWindows.size()> left = {fourfold * fourfold * ten_minutes * ten_minutes,
                                                      ten_minutes, hour};
    double highest = 0;
    most_ = 0;
    for (std::size_t i = 0; i < kWindows.size(); ++i) {
      count_[i] = user.count[i] * left[i] + 1;
      log_[i] = std::log(count_[i]);
      expected_[i] = shrunk(user.usual[i], group.usual[i]);
      const double z = (log_[i] - expected_[i].mean) / expected_[i].deviation;
      if (z > highest) {
        highest = z;
        most_ = i;
      }
    }
    raw[0] = highest;
  }

  Numbers numbers(const Sight&) const override {
    return {count_[most_], std::exp(expected_[most_].mean), {static_cast<float>(kWindows[most_]), 0, 0, 0}};
  }

  void count(const Sight& sight, bool) override {
    auto& user = of<UserRate>(*sight.levels.user);
    auto& group = of<GroupRate>(*sight.levels.group);
    user.last = later(user.last, sight.now);
    user.count = count_;
    for (std::size_t i = 0; i < kWindows.size(); ++i) {
      const double reach = kClip * expected_[i].deviation;
      const double x = std::clamp(log_[i], expected_[i].mean - reach, expected_[i].mean + reach);
      user.usual[i].learn(x);
      group.usual[i].learn(x);
    }
  }

  std::vector<Fact> facts(const Levels& levels, double) const override {
    const auto& user = of<UserRate>(*levels.user);
    const auto& group = of<GroupRate>(*levels.group);
    std::vector<Fact> facts;
    for (std::size_t i = 0; i < kWindows.size(); ++i) {
      const Expected expected = shrunk(user.usual[i], group.usual[i]);
      facts.push_back({phrase("usual_%.0fs", kWindows[i]), std::exp(expected.mean)});
      facts.push_back(
          {phrase("high_%.0fs", kWindows[i]), std::exp(expected.mean + kClip * expected.deviation)});
    }
    return facts;
  }

  std::string explain(const Numbers& n, const Names&) const override {
    return phrase("%s calls in about %s; usual for this user is %s", quantity(n.value).c_str(),
                  n.detail[0] < 120    ? "one minute"
                  : n.detail[0] < 1200 ? "ten minutes"
                                       : "one hour",
                  quantity(n.baseline).c_str());
  }

 private:
  std::array<double, kWindows.size()> count_{};
  std::array<double, kWindows.size()> log_{};
  std::array<Expected, kWindows.size()> expected_{};
  std::size_t most_ = 0;
};

}  // namespace

SignalPtr make_frequency(const SignalSettings&) { return std::make_unique<Frequency>(); }

}  // namespace tool_firewall
