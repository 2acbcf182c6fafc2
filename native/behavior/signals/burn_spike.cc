// SPDX-License-Identifier: Apache-2.0
// burn_spike: a tool costs far more in this hour than in the same hour of the weeks before, for everybody of
// a tenant together. As rate_spike, on money.
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

class BurnSpike final : public Signal {
 public:
  BurnSpike(const Hasher& hasher, double floor) : hasher_(hasher), floor_cost_(floor) {}

  std::string_view name() const override { return "burn_spike"; }
  StateSize state() const override { return {0, sizeof(PeersFirst), 0}; }

  void measure(const Sight&, std::span<double>) override { spiking_ = false; }

  bool measure_after(const Ran& ran, std::span<double>) override {
    spiking_ = false;
    if (std::isnan(ran.cost)) return false;
    auto& first = of<PeersFirst>(*ran.levels.tenant).first;
    if (first <= 0 || ran.ended < first) first = ran.ended;
    const ToolHours hours(hasher_, *ran.tool, ran.now);
    ShardedCountTable& counts = ran.levels.tenant->counts;
    const ToolHours::Spent spent = hours.add_cost(counts, ran.cost);
    spent_ = spent.after;
    if (spent_ < floor_cost_) return false;
    const ToolHours::Usual usual = hours.usual(counts, first);
    const double price = usual.calls > 0 ? usual.cost / usual.calls : ran.cost;
    const Spike spike(usual.cost, price, usual.weeks == 0, floor_cost_);
    spiking_ = spike.tells(spent.before, spent_);
    usual_ = usual.cost;
    weeks_ = usual.weeks;
    z_ = spike.z(spent_);
    hour_ = hours.hour_of_week();
    return spiking_;
  }

  double floor_after() const override { return spiking_ ? kNotable : 0; }

  Numbers numbers(const Sight&) const override { return {}; }
  Numbers numbers_after() const override {
    return {
        spent_, usual_, {static_cast<float>(z_), static_cast<float>(hour_), static_cast<float>(weeks_), 0}};
  }

  double z_score(const Numbers& n) const override { return static_cast<double>(n.detail[0]); }

  std::string explain(const Numbers& n, const Names& names) const override {
    const std::string now =
        phrase("%.*s cost %s in this hour (%s)", static_cast<int>(names.tool.size()), names.tool.data(),
               amount(n.value).c_str(), hour_of_week(whole(static_cast<double>(n.detail[1]), 167)).c_str());
    if (n.detail[2] <= 0) return now + "; there is no week to compare it with yet";
    return now + phrase("; usual is %s (z %s)", amount(n.baseline).c_str(),
                        quantity(static_cast<double>(n.detail[0])).c_str());
  }

 private:
  const Hasher& hasher_;
  double floor_cost_;
  bool spiking_ = false;
  double spent_ = 0;
  double usual_ = 0;
  double z_ = 0;
  int weeks_ = 0;
  int hour_ = 0;
};

}  // namespace

SignalPtr make_burn_spike(const SignalSettings& settings) {
  return std::make_unique<BurnSpike>(*settings.hasher, settings.burn_spike_floor);
}

}  // namespace tool_firewall
