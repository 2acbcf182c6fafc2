// SPDX-License-Identifier: Apache-2.0
// From a raw score to how rare it is: a prior table, then what the tenant and the peer group really showed.
//
//   l0 = prior(-ln survival of the raw score)            from labelled traffic of other installations
//   q_t = (S_t + 1000 e^-l0) / (N_t + 1000)              tenant: S_t of N_t scores were larger
//   q_g = (S_g +  300 q_t)  / (N_g +  300)               peer group, shrunk to the tenant
//
// So a score has a meaning from the first call on, and local traffic takes over as it comes.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "behavior/state_io.h"

namespace tool_firewall {

// Raw scores at fixed survival levels of ordinary calls.
struct Prior {
  static constexpr std::array<double, 11> kSurvival = {.5,   .2,   .1,   .05,   .02,  .01,
                                                       .005, .002, .001, .0005, .0002};
  std::array<double, 11> raw;  // ascending

  // -ln survival: linear between the points, beyond the last with the slope of the last four, at most 20.
  double surprise(double score) const;
};

// Histogram of prior surprises, 81 bins of 1/4 nat, kept as "how many are above bin i" so that reading is
// O(1).
class Calibrator {
 public:
  static constexpr int kBins = 81;
  static constexpr double kBinsPerNat = 4;
  static constexpr float kFull = 8000;  // samples; then everything is halved, so old traffic fades

  // Share of samples above `prior_surprise`, shrunk with `strength` samples towards `parent`. In (0, 1].
  double tail(double prior_surprise, double parent, double strength) const;
  void learn(double prior_surprise);
  float samples() const { return samples_; }

  template <class Self, class Io>
  static void fields(Self& self, Io& io) {
    io(self.samples_, self.above_);
  }

 private:
  static int bin(double prior_surprise);
  std::array<float, kBins> above_{};
  float samples_ = 0;
};

// The pull of the prior on the tenant and of the tenant on the peer group, in samples.
inline constexpr double kPriorStrength = 1000;
inline constexpr double kTenantStrength = 300;

// A score this rare (1 in 100) enters a calibrator once per session and 10 minutes, or one loop of 150 calls
// would teach that loops are ordinary.
inline constexpr double kRareSurprise = 4.6;
inline constexpr double kRareOnce = 600;    // s
inline constexpr float kRareSamples = 300;  // from this many samples on

// The calibrators of one tenant or peer group, one a channel.
//
// What is rare in a call of high risk teaches an hour late. In a small tenant a single such score would
// otherwise make the next one look ordinary: one refused call would open the door for a second, different
// one. Much longer than an hour would make the first days of a new tenant noisy.
class Calibrators {
 public:
  static constexpr std::size_t kMostWaiting = 1U << 16;  // beyond, the oldest teaches early
  static constexpr double kLate = 3600;                  // s

  explicit Calibrators(std::size_t channels) : channels_(channels) {}

  std::size_t bytes() const {
    return channels_.capacity() * sizeof(Calibrator) + waiting_.size() * sizeof(Waiting);
  }

  const Calibrator& of(std::size_t channel) const { return channels_[channel]; }
  void learn(std::size_t channel, double prior_surprise) { channels_[channel].learn(prior_surprise); }
  void learn_later(std::size_t channel, double prior_surprise, double now);

  // Teaches what has waited long enough by `now` (s), and what came from a clock that ran ahead: it must not
  // hold up the others until its time comes again.
  void catch_up(double now) {
    while (!waiting_.empty() && std::abs(now - waiting_.front().since) >= kLate) take_oldest();
  }

  std::size_t waiting() const { return waiting_.size(); }

  // For snapshots. `places`: where each channel of the snapshot is now, nothing when it is gone.
  using Places = std::span<const std::optional<std::size_t>>;
  void write(StateWriter& out) const;
  void read(StateReader& in, Places places);

 private:
  struct Waiting {
    double since;  // s
    double prior_surprise;
    std::size_t channel;
  };
  void take_oldest();
  std::vector<Calibrator> channels_;
  std::deque<Waiting> waiting_;
};

}  // namespace tool_firewall
