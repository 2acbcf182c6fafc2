// SPDX-License-Identifier: Apache-2.0
// The one interface a signal implements.
//
// A signal measures how unlike the past one call is. It does not decide: its raw scores are calibrated
// (calibration.h), fused with those of the others into one risk (fusion.h), and the mode says what happens.
// So a new signal cannot change what an old one reports. A signal is one file in signals/ and one line in
// signals.def.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "behavior/clock.h"
#include "behavior/levels.h"
#include "behavior/usage.h"

namespace tool_firewall {

// One calibrated number. Its share in the fused sum is weight * (l - .8) where l = -ln p is over 1.6 and
// counted up to 5.5; as a specialist it can carry the risk alone with alone_* times its uncapped l. One that
// needs the end of the call is measured again then, and only then teaches its calibrators.
struct Channel {
  std::string_view name;
  Prior prior;
  double weight = 0;        // 0: not in the sum
  double alone_group = 0;   // times l within the peer group; 0: never alone
  double alone_tenant = 0;  // times l within the tenant
  double supported = 0;     // as a specialist: how much of the sum comes on top; for one channel at most
  double strength = 1;      // how much more than usual the prior counts, and the tenant for the group
  bool after = false;       // measured by Signal::measure_after() too
};

// Everything the signals may look at for one call. Valid during the call only.
struct Sight {
  double now = 0;        // s, UTC
  double everybody = 0;  // s, UTC, see clock.h; for what is shared
  double weight = 1;     // forward-decay weight of an event now
  Zone::Local local;     // hour and day on the user's clock
  const Tool* tool = nullptr;
  Levels levels;
  Session* session = nullptr;
  Usage usage;
  ArgumentKeys arguments;
  std::uint64_t digest = 0;                 // of tool and arguments, 0 when those are unknown
  std::array<std::uint64_t, 2> identity{};  // agent and token, 0 when unknown
};

// The later of two times of calls, which arrive a little out of order from several processes. A time further
// before `last` means that a clock had run ahead: then `now` holds, or nothing would fade until `last` comes
// again.
inline double later(double last, double now) { return now < last - Clock::kSkew ? now : std::max(last, now); }

// What a signal wants to tell people: two numbers everybody understands and up to four for its sentence.
// These are recorded, so that the sentence can be made again later from the journal alone.
struct Numbers {
  double value = 0;
  double baseline = 0;
  std::array<float, 4> detail{};
};

// A call that ran, or counts as done. Valid during measure_after() and learn() only.
struct Ran {
  double now = 0;     // when it was checked, s
  double ended = -1;  // when it ended, s; negative when its end was not seen
  double weight = 1;  // forward-decay weight of that time
  bool starts_session = false;
  bool ok = true;         // no error of the tool
  std::uint8_t mark = 0;  // of this signal
  bool past = false;      // history that was imported beside live calls
  Zone::Local local;
  double cost = std::numeric_limits<double>::quiet_NaN();  // NaN: not known
  const Tool* tool = nullptr;
  Session* session = nullptr;  // nullptr when it is gone
  Levels levels;
  Learned learned;  // not yet in measure_after()
  const ArgumentKeys* arguments = nullptr;
  std::uint32_t held = 0;  // bits: which of them stay new
  std::uint64_t digest = 0;
  std::array<std::uint64_t, 2> identity{};
};

// The texts a sentence may use.
struct Names {
  std::string_view user;
  std::string_view tool;
  std::string_view previous;     // "" at the start of a session
  std::string_view destination;  // the first host among the arguments, "" for none or unknown
};

// One learned number, e.g. {"usual_60s", 2.5}.
struct Fact {
  std::string name;
  double value = 0;
};

struct SignalSettings {
  const Hasher* hasher = nullptr;  // for keys in the count tables; must outlive the signals
  double burst_window = 60;        // s
  std::uint32_t burst_threshold = 20;
  double new_for = 0;             // s, see HeldItem
  double rate_spike_floor = 100;  // calls of a tool in an hour
  double burn_spike_floor = 1;    // cost of a tool in an hour
  double session_budget = 0;      // cost of a session; 0: none
  double day_budget = 0;          // cost of a user's day; 0: none
};

// Not thread-safe: one engine calls one signal from one thread at a time, and measure(), floor(), numbers()
// and count() of one call follow each other directly, so a signal may keep what it computed in its members in
// between.
class Signal {
 public:
  virtual ~Signal() = default;

  virtual std::string_view name() const = 0;
  virtual std::span<const Channel> channels() const { return {}; }
  virtual StateSize state() const { return {}; }

  // Before the call: writes one raw score a channel (higher is stranger; any scale). Changes no state.
  virtual void measure(const Sight& sight, std::span<double> raw) = 0;

  // A number up to 3 to keep with the call until it has ended.
  virtual std::uint8_t mark() const { return 0; }

  // A risk this signal insists on whatever the others say, 0 for none.
  virtual double floor() const { return 0; }

  // For people, after measure(). Only called when the signal has something to say.
  virtual Numbers numbers(const Sight& sight) const = 0;

  // When the call has ended, before learn(): the raw scores of this signal's channels with all that is known
  // then; false when that is nothing new. What it learns for itself it may learn here.
  virtual bool measure_after(const Ran& ran, std::span<double> raw) {
    static_cast<void>(ran);
    static_cast<void>(raw);
    return false;
  }

  // As floor(), after measure_after().
  virtual double floor_after() const { return 0; }

  // As numbers(), after measure_after().
  virtual Numbers numbers_after() const { return {}; }

  // Right after the verdict: what counts at once, blocked calls included (rates, bursts).
  virtual void count(const Sight& sight, bool blocked) {
    static_cast<void>(sight);
    static_cast<void>(blocked);
  }

  // After the call ran: what it teaches. Blocked calls never get here.
  virtual void learn(const Ran& ran) { static_cast<void>(ran); }

  // An operator said that what this user does is fine: "burst", "cost".
  virtual void accept(Principal& user, std::string_view what) {
    static_cast<void>(user);
    static_cast<void>(what);
  }

  // For findings, from numbers alone: by how many standard deviations the value is off, NaN where that is not
  // what it measures; and what tells this incident from others of the same user and tool, 0 for nothing.
  virtual double z_score(const Numbers& numbers) const {
    static_cast<void>(numbers);
    return std::numeric_limits<double>::quiet_NaN();
  }
  virtual std::uint64_t incident(const Numbers& numbers) const {
    static_cast<void>(numbers);
    return 0;
  }

  // One sentence with its numbers, for administrators.
  virtual std::string explain(const Numbers& numbers, const Names& names) const = 0;

  // What it has learned of a principal, for `tool-firewall baseline show`. `now`: s.
  virtual std::vector<Fact> facts(const Levels& levels, double now) const {
    static_cast<void>(levels);
    static_cast<void>(now);
    return {};
  }

  // Takes over a struct of this signal, a user's, peers' or a session's, from a snapshot; `own` is all zero.
  // Its size may be that of other settings or another version: by default, and whenever unsure, a signal then
  // starts empty. Whatever the bytes hold, nothing may break afterwards: indices are to be checked here.
  virtual void adopt(std::span<const std::byte> saved, std::span<std::byte> own) const {
    if (saved.size() == own.size()) std::copy(saved.begin(), saved.end(), own.begin());
  }

  std::span<std::byte> bytes_in(const Principal& user) const {
    return {user.state.get() + offsets_.user, state().user};
  }
  std::span<std::byte> bytes_in(const Peers& peers) const {
    return {peers.state.get() + offsets_.peers, state().peers};
  }

  std::span<std::byte> bytes_in(const Session& session) const {
    return {session.state.get() + offsets_.session, state().session};
  }

  void place(const StateSize& offsets) { offsets_ = offsets; }

 protected:
  template <class State>
  State& of(Principal& user) const {
    return *reinterpret_cast<State*>(user.state.get() + offsets_.user);
  }
  template <class State>
  State& of(Peers& peers) const {
    return *reinterpret_cast<State*>(peers.state.get() + offsets_.peers);
  }
  template <class State>
  State& of(const Session& session) const {
    return *reinterpret_cast<State*>(session.state.get() + offsets_.session);
  }

 private:
  StateSize offsets_;
};

using SignalPtr = std::unique_ptr<Signal>;

// Every signal of signals.def, in its order.
std::vector<SignalPtr> make_signals(const SignalSettings& settings);

// For readers of records: the name and the sentence of the signal at a position in signals.def; "" and a note
// for positions this version does not know.
std::string_view signal_name(std::uint8_t position);
std::string explain(std::uint8_t position, const Numbers& numbers, const Names& names);
double z_score(std::uint8_t position, const Numbers& numbers);
std::uint64_t incident_of(std::uint8_t position, const Numbers& numbers);

}  // namespace tool_firewall
