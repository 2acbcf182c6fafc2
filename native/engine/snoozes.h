// SPDX-License-Identifier: Apache-2.0
// Scopes for which an operator asked for quiet until some time: their calls are scored, recorded and learned
// from as always, but behaviour neither warns about nor stops them.
//
// A snooze can be prolonged, up to seven days after the first of an unbroken chain: longer silence is a
// policy, not a snooze. A chain breaks when a snooze runs out or is cleared.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "engine/scopes.h"

namespace tool_firewall {

struct Snooze {
  Scope scope;
  double until = 0;  // s
  double first = 0;  // s, when the chain began
  std::string by, why;
};

class Snoozes : public Scopes<Snooze> {
 public:
  static constexpr double kMost = 7 * 86400.0;      // s
  static constexpr std::size_t kMostScopes = 4096;  // beyond, only those that ran out make room

  // Begins or prolongs at `now`; `until` is clamped, and one that is not ahead clears.
  void set(Snooze snooze, double now) {
    const Snooze* before = at(snooze.scope);
    snooze.first = before != nullptr && before->until > now ? before->first : now;
    snooze.until = std::min(snooze.until, snooze.first + kMost);
    if (!(snooze.until > now)) {
      clear(snooze.scope);
      return;
    }
    erase_if([&](const Snooze& other) { return other.until <= now; });
    if (before == nullptr && size() >= kMostScopes) return;
    Scopes::set(std::move(snooze));
  }

  // As it was saved.
  void restore(Snooze snooze) { Scopes::set(std::move(snooze)); }

  bool active(std::string_view tenant, std::string_view tool, std::string_view user, double now) const {
    return !empty() &&
           find(tenant, tool, user, [now](const Snooze& one) { return one.until > now; }) != nullptr;
  }
};

}  // namespace tool_firewall
