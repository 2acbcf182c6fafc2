// SPDX-License-Identifier: Apache-2.0
// From how rare each channel is to one risk. The sum lets weak signs add up; the specialists let one strong
// sign stand alone. The bands of the risk are shares of ordinary calls: 1/3 is 1 in 100, .5 is 1 in 1,000,
// .667 is 1 in 10,000.
#pragma once

#include <algorithm>
#include <span>

#include "behavior/signal.h"

namespace tool_firewall {

inline constexpr double kNotable = 1. / 3;  // listed from here on
inline constexpr double kHighRisk = .5;     // what is new in such a call stays new for a while

inline constexpr double kTruncated = 1.6;  // -ln p up to which a channel says nothing

// -ln p of one channel, within the peer group and within the tenant.
struct Rarity {
  double group = 0;
  double tenant = 0;
};

// From tails to rarity. 0 where nothing follows from it: a logarithm costs as much as three lookups.
Rarity rarity_of(const Channel& channel, double tail_in_group, double tail_in_tenant);

// What one channel adds to the fused sum.
double share(const Channel& channel, const Rarity& rarity);

// What one channel asserts by itself.
double alone(const Channel& channel, const Rarity& rarity);

// What the channels of a call say together.
struct Evidence {
  double sum = 0;
  double strongest = 0;  // what the strongest specialist asserts
  double supported = 0;  // what the supported one does
  double support = 0;    // and how much of the sum comes on top of it

  void hear(const Channel& channel, double adds, double asserts) {
    sum += adds;
    if (channel.supported > 0) {
      supported = asserts;
      support = channel.supported;
    } else {
      strongest = std::max(strongest, asserts);
    }
  }

  double total() const { return std::max({sum, strongest, supported > 0 ? supported + support * sum : 0}); }
};

// Fused evidence (a sum or the strongest specialist) to risk 0..1, piecewise linear.
double risk_of(double evidence);

}  // namespace tool_firewall
