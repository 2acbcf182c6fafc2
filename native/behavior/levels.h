// SPDX-License-Identifier: Apache-2.0
// Who is compared with whom: a principal (tenant + user), its peer group, its tenant.
//
// Each holds a table of decayed counts, which any signal may use under its own key kind, and a block of bytes
// in which each signal has its own plain struct. Fresh bytes are zero, and all-zero must be a signal's valid
// first state: so a new signal needs no change here, and a snapshot is a copy of bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "behavior/calibration.h"
#include "behavior/count_table.h"
#include "behavior/share_table.h"
#include "behavior/zone.h"
#include "text/argument_kind.h"
#include "text/hash.h"

namespace tool_firewall {

inline constexpr std::size_t kMostSignals = 32;
inline constexpr std::size_t kMostChannels = 16;
inline constexpr std::size_t kEarlierTools = 6;
inline constexpr std::size_t kSessionsPerUser = 64;
inline constexpr std::size_t kHeldPerUser = 256;
inline constexpr std::uint32_t kCellsPerUser = 8192;
inline constexpr std::uint32_t kCellsPerPeers = 1U << 21;

// Zeroed bytes, aligned as operator new aligns.
using StateBlock = std::unique_ptr<std::byte[]>;
inline StateBlock make_state(std::size_t bytes) { return std::make_unique<std::byte[]>(bytes); }

// Bytes of a signal's struct, or of those of all signals, in
struct StateSize {
  std::size_t user = 0;     // Principal::state
  std::size_t peers = 0;    // Peers::state
  std::size_t session = 0;  // Session::state
};

// What can be new: a tool, a step from the previous tool to it, a skip from an earlier tool of the session to
// it, an identity among its arguments.
enum class ItemKind : std::uint8_t { kTool, kStep, kSkip, kArgument };

// A tool of one server. Owned by the engine, which never frees it; compared by address.
struct Tool {
  Tool(const Hasher& hasher, std::string_view its_server, std::string_view its_name);
  std::string server;  // the gateway's id of the upstream server, "" when unknown
  std::string name;
  std::uint64_t id;  // keyed hash of both
  bool sends;        // egress.h

  // Keys in the count tables that depend on this tool alone (usage.h), so that a call need not make them.
  std::uint64_t cell;                // of the tool among all tools
  std::uint64_t step_row, skip_row;  // of what follows it
};

// A tenant, or a peer group inside one.
struct Peers {
  Peers(std::string its_name, std::size_t channels, std::size_t state_bytes)
      : name(std::move(its_name)),
        counts(kCellsPerPeers),
        calibrators(channels),
        state(make_state(state_bytes)) {}
  std::string name;
  std::uint32_t epoch = 0;  // of Decay, for `counts`
  std::size_t bytes = 0;    // of memory, as last counted (principals.h)
  ShardedCountTable counts;
  ShareTable shares;  // by argument
  Calibrators calibrators;
  StateBlock state;
};

// One conversation as far as it can be told: calls of one principal under one token, 30 minutes idle at the
// most.
struct Session {
  std::uint64_t id = 0;
  double last = 0;  // s
  const Tool* previous = nullptr;
  std::uint32_t earlier_count = 0;
  std::array<const Tool*, kEarlierTools> earlier{};  // distinct tools in the order first used
  std::array<double, kMostChannels> rare_at{};       // when each channel was last rare, s (calibration.h)
  StateBlock state;                                  // what the signals keep of it

  // Begins it anew, with all-zero state of `bytes`, in the same memory when it has some.
  void begin(std::uint64_t its_id, std::size_t bytes) {
    StateBlock block = state != nullptr ? std::move(state) : make_state(bytes);
    std::fill_n(block.get(), bytes, std::byte{});
    *this = Session{};
    id = its_id;
    state = std::move(block);
  }
};

// Something that was first seen in a call worth listing, until an operator has said what to think of it. From
// a call of high risk it is *held*: it stays new for a while, so that one warned call does not make the next
// one ordinary. After that it is learned and only listed. What an operator rejected stays new for ever.
struct HeldItem {
  enum class State : std::uint8_t { kHeld, kListed, kRejected };

  std::uint64_t cell = 0;  // its key in the count tables
  double since = 0;        // s
  double risk = 0;         // of that call
  const Tool* tool = nullptr;
  const Tool* from = nullptr;  // of a step or skip; nullptr at the start of a session
  ItemKind kind = ItemKind::kTool;
  State state = State::kHeld;
  ArgumentKind argument = ArgumentKind::kValue;

  // Whether it is new still. A hold from far in the future comes from a clock that was set back since.
  bool lasts(double now, double new_for) const {
    return state == State::kRejected || (state == State::kHeld && std::abs(now - since) < new_for);
  }
};

struct TenantState;

struct Principal {
  Principal(std::string its_tenant, std::string its_user, std::size_t state_bytes)
      : tenant(std::move(its_tenant)),
        user(std::move(its_user)),
        counts(kCellsPerUser),
        state(make_state(state_bytes)) {}
  std::string tenant;
  std::string user;
  std::string group;          // of the last call, as configured
  std::string learned_group;  // engine/learned_groups.h; "" for none
  std::uint64_t id = 0;
  const Zone* zone = nullptr;
  std::uint32_t epoch = 0;
  bool evicted = false;               // no longer in the engine; whoever still holds it must look it up again
  bool used = false;                  // since the last look of the eviction
  bool newcomer = true;               // counted as one by its tenant (principals.h)
  std::size_t fixed_bytes = 0;        // of memory, without what grows
  std::size_t bytes = 0;              // in all, as last counted
  std::shared_ptr<TenantState> home;  // keeps its levels alive for whoever still holds it
  std::uint64_t calls = 0;
  double first = 0;  // s
  double last = 0;   // s
  CountTable counts;
  StateBlock state;
  std::vector<std::unique_ptr<Session>> sessions;  // at most kSessionsPerUser
  std::vector<HeldItem> held;                      // at most kHeldPerUser
};

// The three levels of one call. Without a configured group the tenant is the peer group, and both point to
// it.
struct Levels {
  Principal* user = nullptr;
  Peers* group = nullptr;
  Peers* tenant = nullptr;
};

}  // namespace tool_firewall
