// SPDX-License-Identifier: Apache-2.0
// Forward decay (Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009): an event at time t weighs 2^((t -
// landmark)/H) for ever, and a reader divides sums by the weight of now. Nothing has to be touched as time
// passes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace tool_firewall {

class Decay {
 public:
  static constexpr double kSpan = 20;  // half-lives between two landmarks; 2^20 keeps floats exact enough
  static constexpr float kForgotten = 1e-6F;  // what is left of one event after kSpan half-lives

  explicit Decay(double half_life_s) : half_life_(half_life_s) {}

  // Weight of an event at `now` (s). Moves the landmark, and with it epoch(), when needed. The first call
  // chooses it among fixed times, so that it does not matter who called first: one tenant must not be able to
  // tell from the last bits of its scores that another is there.
  double weight(double now) {
    if (started_ && now == last_time_) return last_weight_;
    if (!started_) {
      landmark_ = std::floor(now / (kSpan * half_life_)) * kSpan * half_life_;
      started_ = true;
    }
    // A clock that was set far back must not make weights vanish: everything is divided by them.
    const double age = std::max(-kSpan, (now - landmark_) / half_life_);
    if (age <= kSpan) return noted(now, std::exp2(age));
    const double spans = std::floor(age / kSpan);
    epoch_ += static_cast<std::uint32_t>(spans);
    landmark_ += spans * kSpan * half_life_;
    newest_ = 0;
    return noted(now, std::exp2(age - spans * kSpan));
  }

  // The largest weight given out in this epoch.
  double newest() const { return newest_; }

  // Tables written in an older epoch must be multiplied by factor(their epoch) before use.
  std::uint32_t epoch() const { return epoch_; }
  float factor(std::uint32_t from) const { return static_cast<float>(std::exp2(-kSpan * (epoch_ - from))); }

 private:
  double noted(double now, double weight) {
    newest_ = std::max(newest_, weight);
    last_time_ = now;
    return last_weight_ = weight;
  }

  double half_life_;
  double newest_ = 0;
  double last_time_ = 0;  // a call is often learned with the time it was checked at
  double last_weight_ = 1;
  double landmark_ = 0;
  bool started_ = false;
  std::uint32_t epoch_ = 0;
};

}  // namespace tool_firewall
