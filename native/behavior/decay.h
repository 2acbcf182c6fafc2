// SPDX-License-Identifier: Apache-2.0
// Forward decay (Cormode, Shkapenyuk, Srivastava, Xu, ICDE 2009): an event at time t weighs 2^((t -
// landmark)/H) for ever, and a reader divides sums by the weight of now. Nothing has to be touched as time
// passes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "behavior/state_io.h"

namespace tool_firewall {

class Decay {
 public:
  static constexpr double kSpan = 20;  // half-lives between two landmarks; 2^20 keeps floats exact enough
  static constexpr float kForgotten = 1e-6F;  // what is left of one event after kSpan half-lives

  static constexpr double kMostUnseen = 2;     // half-lives that a time nobody saw may let pass
  static constexpr double kMostDoubtful = .5;  // half-lives that one doubtful call may lie off

  explicit Decay(double half_life_s) : half_life_(half_life_s) {}

  // The time weight() takes, for a time of the clocks (s). They differ once clocks have jumped.
  double faded(double now) const { return now - shift_; }

  // The same for a call of which it is not clear whether its time is right (clock.h): it weighs as its own
  // time says as long as that is within reason. `newest`: the latest time believed.
  double faded(double own, double newest) const {
    return faded(std::clamp(own, newest - kMostDoubtful * half_life_, newest + kMostDoubtful * half_life_));
  }

  // The clocks were believed to show `from` and are now believed to show `to` (s). Nobody saw the time
  // between, so it fades counts by no more than kMostUnseen half-lives: a wrong clock that is believed must
  // not wipe out what everybody has learned. Backward, counts keep their worth, or all new calls would weigh
  // nothing beside them; a step of up to one half-life needs no help, and can be taken back without a trace.
  void jump(double from, double to) {
    const double before = faded(from);
    shift_ = to - std::clamp(to, before - half_life_, before + kMostUnseen * half_life_);
  }

  // Weight of an event at `now` (s, faded()). Moves the landmark, and with it epoch(), when needed. The first
  // call chooses it among fixed times, so that it does not matter who called first: one tenant must not be
  // able to tell from the last bits of its scores that another is there.
  double weight(double now) {
    if (started_ && now == last_time_) return last_weight_;
    if (!started_) {
      landmark_ = std::floor(now / (kSpan * half_life_)) * kSpan * half_life_;
      started_ = true;
    }
    // What lies far back must not weigh nothing at all: everything is divided by weights.
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

  // For snapshots. The half-life is a setting, and written because sums mean nothing without it.
  template <class Self, class Io>
  static void fields(Self& self, Io& io) {
    io(self.half_life_, self.newest_, self.last_time_, self.last_weight_, self.landmark_, self.shift_,
       self.started_, self.epoch_);
  }

  // Goes on from `old`, which may have another half-life: counts keep what they were worth at the newest time
  // and fade with the new one from there. Returns what tables of old's epoch must be multiplied by.
  double follow(const Decay& old) {
    if (old.half_life_ == half_life_ || !old.started_ || old.newest_ <= 0) {
      const double own = half_life_;
      *this = old;
      half_life_ = own;
      return 1;
    }
    shift_ = old.shift_;
    return weight(old.landmark_ + std::log2(old.newest_) * old.half_life_) / old.newest_;
  }

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
  double shift_ = 0;  // s, of faded()
  bool started_ = false;
  std::uint32_t epoch_ = 0;
};

}  // namespace tool_firewall
