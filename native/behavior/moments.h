// SPDX-License-Identifier: Apache-2.0
// Mean and variance of what is usual, exact for the first kMemory values, exponentially weighted after that.
#pragma once

#include <algorithm>
#include <cmath>

namespace tool_firewall {

struct Moments {
  static constexpr double kMemory = 400;  // values

  double n, mean, variance;  // no initialisers: all zero is the first state

  void learn(double x) {
    n = std::min(n + 1, kMemory);
    const double d = x - mean;
    mean += d / n;
    variance += (d * (x - mean) - variance) / n;
  }
};

struct Expected {
  double mean, deviation;
};

// What to expect of a user: the own values, shrunk to those of the peer group with the weight of kShrink
// calls.
inline constexpr double kShrink = 15;
inline constexpr double kFirstVariance = .25;

inline double expected_mean(const Moments& user, const Moments& group) {
  return (user.n * user.mean + kShrink * group.mean) / (user.n + kShrink);
}
inline double expected_variance(const Moments& user, const Moments& group, double mean) {
  const double prior = group.n > 5 ? std::max(group.variance, kFirstVariance * .1) : kFirstVariance;
  const double off = user.mean - mean;
  return (user.n * (user.variance + off * off) + kShrink * prior) / (user.n + kShrink);
}

}  // namespace tool_firewall
