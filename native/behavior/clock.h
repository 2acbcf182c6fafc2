// SPDX-License-Identifier: Apache-2.0
// Which time to believe when clocks disagree.
//
// Calls bring their own times: from several hosts, from clocks that were set, from history that was imported.
// A step of up to a day either way is taken as it is. A call further off than that from the newest time
// believed is *strange*: it may come from a wrong clock, or be the first after a long pause. Until that is
// clear,
//
//   what belongs to everybody (landmarks of weights, running calls, how long is learned)   stays at the
//   newest
//                                                                                          time believed,
//   what belongs to its user (session, rates, bursts, hours, holds)                        uses the call's
//   own
//                                                                                          time.
//
// kEnough strange calls in a row, near each other, are believed. When a believable call comes before that,
// the strange ones came from a wrong clock: its offset is remembered, and further calls at that offset get
// their time corrected, so that a burst over several workers stays one burst. To be believed after all they
// must be more than two in three of all calls for a while.
//
// Imported history is meant to be old. It counts with its age, and is `past`: it moves no session and no rate
// of now. It never speaks against a live call.
//
// A function of the sequence of calls and nothing else: replaying a journal gives the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace tool_firewall {

// What one call's time means; all in s.
struct Moment {
  double own = 0;        // for what belongs to its user
  double everybody = 0;  // for what is shared
  bool past = false;     // imported, and older than what was seen live: it teaches counts and nothing else
};

class Clock {
 public:
  static constexpr double kFar = 86400;  // s
  static constexpr double kSkew = 60;    // s two clocks may differ without anybody noticing
  static constexpr std::uint32_t kEnough = 16;
  static constexpr std::uint32_t kEnoughDisproved = 1024;

  enum class Origin : std::uint8_t { kLive, kImported };

  // All there is to keep in a snapshot.
  struct State {
    double newest = 0;     // the latest time believed
    double run_first = 0;  // times of the strange calls in a row
    double run_last = 0;
    double wrong_by = 0;      // what was added to the time by a clock found wrong, 0: none
    std::uint32_t run = 0;    // strange calls in a row
    std::uint32_t votes = 0;  // for the clock found wrong: +1 with each of its calls, -2 with each other one
    bool started = false;
    bool live = false;                    // a live call was believed
    std::uint64_t ahead = 0, behind = 0;  // strange calls
    std::uint64_t moved = 0;              // times that strange calls were believed
  };

  // The time of a call. When it makes the clock believe another time, jumped() tells from where.
  Moment read(double ts, Origin origin) {
    if (origin == Origin::kLive && std::abs(ts - state_.newest) <= kFar && state_.live && state_.run == 0 &&
        state_.votes == 0) [[likely]] {
      state_.newest = std::max(state_.newest, ts);
      return {ts, ts, false};
    }
    return weigh(ts, origin);
  }

  // Whether the last read() jumped, and from which time. Clears it.
  bool jumped(double& from) {
    if (!jumped_) return false;
    from = from_;
    jumped_ = false;
    return true;
  }

  // A time of something that is not a call (an end, a tick), within reason.
  double settled(double ts) const {
    return !state_.started || std::abs(ts - state_.newest) <= kFar ? ts : state_.newest;
  }

  double newest() const { return state_.newest; }
  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  Moment weigh(double ts, Origin origin);
  Moment weigh_strange(double ts);
  void disprove();
  Moment believe(double ts);

  State state_;
  double from_ = 0;
  bool jumped_ = false;
};

}  // namespace tool_firewall
