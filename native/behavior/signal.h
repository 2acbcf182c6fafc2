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
// counted up to 5.5; as a specialist it can carry the risk alone with alone_* times its uncapped l.
struct Channel {
  std::string_view name;
  Prior prior;
  double weight = 0;        // 0: not in the sum
  double alone_group = 0;   // times l within the peer group; 0: never alone
  double alone_tenant = 0;  // times l within the tenant
};

// Everything the signals may look at for one call. Valid during the call only.
struct Sight {
  double now = 0;     // s, UTC
  double weight = 1;  // forward-decay weight of an event now
  std::uint32_t hour_bin = 0;
  const Tool* tool = nullptr;
  Levels levels;
  const Session* session = nullptr;
  Usage usage;
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

// A call that ran, or counts as done. Valid during learn() only.
struct Ran {
  double now = 0;     // when it was checked, s
  double weight = 1;  // forward-decay weight of that time
  bool starts_session = false;
  std::uint32_t hour_bin = 0;
  Levels levels;
  Learned learned;
};

// The texts a sentence may use.
struct Names {
  std::string_view user;
  std::string_view tool;
  std::string_view previous;  // "" at the start of a session
};

// One learned number, e.g. {"usual_60s", 2.5}.
struct Fact {
  std::string name;
  double value = 0;
};

struct StateSize {
  std::size_t user = 0;   // bytes of this signal's struct in Principal::state
  std::size_t peers = 0;  // and in Peers::state
};

struct SignalSettings {
  const Hasher* hasher = nullptr;  // for keys in the count tables; must outlive make_signals() only
  double burst_window = 60;        // s
  std::uint32_t burst_threshold = 20;
  double new_for = 0;  // s, see HeldItem
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

  // A risk this signal insists on whatever the others say, 0 for none.
  virtual double floor() const { return 0; }

  // For people, after measure(). Only called when the signal has something to say.
  virtual Numbers numbers(const Sight& sight) const = 0;

  // Right after the verdict: what counts at once, blocked calls included (rates, bursts).
  virtual void count(const Sight& sight, bool blocked) {
    static_cast<void>(sight);
    static_cast<void>(blocked);
  }

  // After the call ran: what it teaches. Blocked calls never get here.
  virtual void learn(const Ran& ran) { static_cast<void>(ran); }

  // One sentence with its numbers, for administrators.
  virtual std::string explain(const Numbers& numbers, const Names& names) const = 0;

  // What it has learned of a principal, for `tool-firewall baseline show`. `now`: s.
  virtual std::vector<Fact> facts(const Levels& levels, double now) const {
    static_cast<void>(levels);
    static_cast<void>(now);
    return {};
  }

  // Takes over a struct of this signal, a user's or peers', from a snapshot; `own` is all zero. Its size may
  // be that of other settings or another version: by default, and whenever unsure, a signal then starts
  // empty. Whatever the bytes hold, nothing may break afterwards: indices are to be checked here.
  virtual void adopt(std::span<const std::byte> saved, std::span<std::byte> own) const {
    if (saved.size() == own.size()) std::copy(saved.begin(), saved.end(), own.begin());
  }

  std::span<std::byte> bytes_in(const Principal& user) const {
    return {user.state.get() + user_offset_, state().user};
  }
  std::span<std::byte> bytes_in(const Peers& peers) const {
    return {peers.state.get() + peers_offset_, state().peers};
  }

  void place(std::size_t user_offset, std::size_t peers_offset) {
    user_offset_ = user_offset;
    peers_offset_ = peers_offset;
  }

 protected:
  template <class State>
  State& of(Principal& user) const {
    return *reinterpret_cast<State*>(user.state.get() + user_offset_);
  }
  template <class State>
  State& of(Peers& peers) const {
    return *reinterpret_cast<State*>(peers.state.get() + peers_offset_);
  }

 private:
  std::size_t user_offset_ = 0;
  std::size_t peers_offset_ = 0;
};

using SignalPtr = std::unique_ptr<Signal>;

// Every signal of signals.def, in its order.
std::vector<SignalPtr> make_signals(const SignalSettings& settings);

// For readers of records: the name and the sentence of the signal at a position in signals.def; "" and a note
// for positions this version does not know.
std::string_view signal_name(std::uint8_t position);
std::string explain(std::uint8_t position, const Numbers& numbers, const Names& names);

}  // namespace tool_firewall
