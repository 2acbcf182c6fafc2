// SPDX-License-Identifier: Apache-2.0
// Events from a JSON Lines file (plain or gzip) through an engine, one score line an event.
//
// Event: {event_id, ts, tenant, user, agent, session, tool, args, ok, cost, duration}; ts in seconds since
// the epoch, UTC, ascending. event_id, ts, user and tool are required. The agent is taken as the peer group.
// A call ends `duration` seconds after it began, among the calls that follow.
// What `export` wrote also has group (the peer group), token, server, and instead of args their digest and
// facts.
// Score: {event_id, risk, risk_pre, verdict, signals: [{name, p, value, baseline, explanation}]}.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "engine/engine.h"

namespace tool_firewall {

struct ReplayResult {
  std::uint64_t events = 0;
  std::uint64_t skipped = 0;                // bad lines, with skip_bad
  std::array<std::uint64_t, 3> verdicts{};  // by Decision
};

struct ReplayError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct ReplayJob {
  std::string source;
  std::string target;  // gzip when it ends in .gz
  bool skip_bad = false;
};

// Called now and then with (bytes read of the source file, its size, events so far).
using ReplayProgress = std::function<void(std::uint64_t, std::uint64_t, std::uint64_t)>;

// Throws ReplayError naming the file, or the line as "line 17: ...".
ReplayResult replay(Engine& engine, const InstancePolicy& policy, const ReplayJob& job,
                    const ReplayProgress& progress);

}  // namespace tool_firewall
