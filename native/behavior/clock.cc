// SPDX-License-Identifier: Apache-2.0
#include "behavior/clock.h"

namespace tool_firewall {

Moment Clock::weigh(double ts, Origin origin) {
  const bool live = origin == Origin::kLive;
  if (!state_.started) {
    state_.started = true;
    state_.live = live;
    state_.newest = ts;
    return {ts, ts, false};
  }
  const double off = ts - state_.newest;
  if (!live && off < 0) return {ts, off < -kFar ? state_.newest : ts, off < -kSkew};
  if (!live && state_.live) {  // newer than all that was seen: it may be a wrong clock's
    if (off <= kFar) return {ts, ts, false};
    ++state_.ahead;
    return {ts, state_.newest, false};
  }
  if (live && !state_.live) {  // after history alone, any live call knows better
    state_.live = true;
    if (std::abs(off) > kFar) return believe(ts);
  }
  if (std::abs(off) > kFar) return weigh_strange(ts);
  disprove();
  state_.newest = std::max(state_.newest, ts);
  return {ts, ts, false};
}

Moment Clock::weigh_strange(double ts) {
  const double off = ts - state_.newest;
  ++(off > 0 ? state_.ahead : state_.behind);
  // A run goes on with time, by steps no longer than the one that began it: where a call comes once a week,
  // it takes weeks.
  const double reach = std::max(kFar, std::abs(state_.run_first - state_.newest));
  const bool goes_on = state_.run > 0 && (off > 0) == (state_.run_first > state_.newest) &&
                       ts >= state_.run_last - kFar && ts <= state_.run_last + reach;
  if (!goes_on) {
    state_.run = 0;
    state_.run_first = ts;
  }
  ++state_.run;
  state_.run_last = ts;
  const bool wrong = state_.wrong_by != 0 && std::abs(off - state_.wrong_by) <= kFar;
  if (!wrong) return state_.run >= kEnough ? believe(ts) : Moment{ts, state_.newest, false};
  if (++state_.votes >= kEnoughDisproved) return believe(ts);
  // The newest time believed is at most the true one, so the smallest distance seen is the nearest to the
  // truth.
  state_.wrong_by = std::min(state_.wrong_by, off);
  return {ts - state_.wrong_by, state_.newest, false};
}

// A believable call came: what was strange was wrong.
void Clock::disprove() {
  if (state_.run > 0) {
    const double off = state_.run_last - state_.newest;
    if (state_.wrong_by == 0 || std::abs(off - state_.wrong_by) > kFar) {
      state_.wrong_by = off;
      state_.votes = 0;
    }
    state_.run = 0;
  }
  state_.votes -= std::min(state_.votes, 2U);
}

Moment Clock::believe(double ts) {
  from_ = state_.newest;
  jumped_ = true;
  ++state_.moved;
  state_.newest = ts;
  state_.run = 0;
  state_.votes = 0;
  state_.wrong_by = 0;
  return {ts, ts, false};
}

}  // namespace tool_firewall
