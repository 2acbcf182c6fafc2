// SPDX-License-Identifier: Apache-2.0
// rate_spike: a tool is called far more often in this hour than in the same hour of the weeks before, by
// everybody of a tenant together. Until there is a week to compare with, an absolute floor decides alone.
//
// It says so once, and again with every doubling: the call that crosses is listed, none is stopped for it.
#include <cmath>

#include "behavior/fusion.h"
#include "behavior/signal.h"
#include "behavior/tool_hours.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

struct PeersFirst {
  double first;  // s, of a tenant
};

class RateSpike final : public Signal {
 public:
  RateSpike(const Hasher& hasher, double floor) : hasher_(hasher), floor_calls_(floor) {}

  std::string_view name() const override { return "rate_spike"; }
  StateSize state() const override { return {0, sizeof(PeersFirst), 0}; }

  void measure(const Sight& sight, std::span<double>) override {
    spiking_ = false;
    const ToolHours hours(hasher_, *sight.tool, sight.now);
    const ShardedCountTable& counts = sight.levels.tenant->counts;
    calls_ = hours.calls(counts) + 1;
    // Nearly every call ends here.
    if (calls_ < floor_calls_) return;
    const ToolHours::Usual usual = hours.usual(counts, of<PeersFirst>(*sight.levels.tenant).first);
    const Spike spike(usual.calls, 1, usual.weeks == 0, floor_calls_);
    spiking_ = spike.tells(calls_ - 1, calls_);
    usual_ = usual.calls;
    weeks_ = usual.weeks;
    z_ = spike.z(calls_);
    hour_ = hours.hour_of_week();
  }

  double floor() const override { return spiking_ ? kNotable : 0; }

  Numbers numbers(const Sight&) const override {
    return {
        calls_, usual_, {static_cast<float>(z_), static_cast<float>(hour_), static_cast<float>(weeks_), 0}};
  }

  void count(const Sight& sight, bool) override {
    auto& first = of<PeersFirst>(*sight.levels.tenant).first;
    if (first <= 0 || sight.everybody < first) first = sight.everybody;
    ToolHours(hasher_, *sight.tool, sight.now).add_call(sight.levels.tenant->counts);
  }

  double z_score(const Numbers& n) const override { return static_cast<double>(n.detail[0]); }

  std::string explain(const Numbers& n, const Names& names) const override {
    const std::string now = phrase(
        "%.*s was called %s times in this hour (%s)", static_cast<int>(names.tool.size()), names.tool.data(),
        quantity(n.value).c_str(), hour_of_week(whole(static_cast<double>(n.detail[1]), 167)).c_str());
    if (n.detail[2] <= 0) return now + "; there is no week to compare it with yet";
    return now + phrase("; usual is %s (z %s)", quantity(n.baseline).c_str(),
                        quantity(static_cast<double>(n.detail[0])).c_str());
  }

 private:
  const Hasher& hasher_;
  double floor_calls_;
  bool spiking_ = false;
  double calls_ = 0;
  double usual_ = 0;
  double z_ = 0;
  int weeks_ = 0;
  int hour_ = 0;
};

}  // namespace

SignalPtr make_rate_spike(const SignalSettings& settings) {
  return std::make_unique<RateSpike>(*settings.hasher, settings.rate_spike_floor);
}

}  // namespace tool_firewall
