// SPDX-License-Identifier: Apache-2.0
// What both directions of a snapshot share: its frame, its sections, and the fields that are written as they
// are. Pointers are written as positions in the order of writing; 0 is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "behavior/clock.h"
#include "behavior/levels.h"
#include "behavior/model.h"
#include "journal/record.h"

namespace tool_firewall::snapshot {

inline constexpr std::string_view kMagic{"\x89TFSNAP\n", 8};  // shows what takes it for text
inline constexpr std::uint32_t kByteOrder = 0x01020304;
inline constexpr std::size_t kFixedBytes = 16;  // magic, byte order, format, zero
inline constexpr std::size_t kSizeAt = 16;

// In the order in which they are written.
enum class Section : std::uint32_t {
  kSignals = 1,
  kTime,
  kTools,
  kTenants,
  kPrincipals,
  kInFlight,
  kModes,
  kFollowed,
  kTotals,
  kSnoozes,  // since format 2
};

// A changed clock needs its fields here, and a new format.
static_assert(sizeof(Clock::State) == 72);
template <class State, class Io>
void clock_fields(State& clock, Io& io) {
  io(clock.newest, clock.run_first, clock.run_last, clock.wrong_by, clock.run, clock.votes, clock.started,
     clock.live, clock.ahead, clock.behind, clock.moved);
}

template <class Id, class Io>
void id_fields(Id& id, Io& io) {
  io(id.worker, id.seq, id.ts);
}

template <class User, class Io>
void principal_fields(User& user, Io& io) {
  io(user.group, user.used, user.epoch, user.calls, user.first, user.last);
}

// Who adds a field to one of these must write it, too.
static_assert(sizeof(Session) == 8 * (5 + kEarlierTools + kMostChannels));
static_assert(sizeof(HeldItem) == 48 && sizeof(ItemKey) == 32);
static_assert(sizeof(ArgumentKey) == 24);
static_assert(sizeof(Scored) == 136 + sizeof(Evidence) + sizeof(Scored::items) + sizeof(ArgumentKeys));
template <class One, class Io>
void session_fields(One& session, Io& io) {
  io(session.id, session.last);
}

template <class One, class Io>
void held_fields(One& held, Io& io) {
  io(held.cell, held.since, held.risk);
}

template <class One, class Io>
void scored_fields(One& scored, Io& io) {
  io(scored.now, scored.faded, scored.risk, scored.starts_session, scored.local.hour_bin);
}

// Since format 2.
template <class One, class Io>
void scored_ending_fields(One& scored, Io& io) {
  io(scored.evidence.sum, scored.evidence.strongest, scored.evidence.supported, scored.evidence.support,
     scored.floor, scored.session, scored.digest, scored.marks, scored.identity, scored.past,
     scored.local.day);
}

}  // namespace tool_firewall::snapshot
