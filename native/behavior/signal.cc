// SPDX-License-Identifier: Apache-2.0
#include "behavior/signal.h"

namespace tool_firewall {

#define TOOL_FIREWALL_SIGNAL(name) SignalPtr make_##name(const SignalSettings& settings);
#include "behavior/signals.def"
#undef TOOL_FIREWALL_SIGNAL

std::vector<SignalPtr> make_signals(const SignalSettings& settings) {
  std::vector<SignalPtr> signals;
#define TOOL_FIREWALL_SIGNAL(name) signals.push_back(make_##name(settings));
#include "behavior/signals.def"
#undef TOOL_FIREWALL_SIGNAL
  return signals;
}

namespace {

// Sentences need no state, so one set made with an empty key serves every reader.
const std::vector<SignalPtr>& speakers() {
  static const Hasher hasher(std::array<unsigned char, 32>{});
  static const std::vector<SignalPtr> signals = make_signals({.hasher = &hasher});
  return signals;
}

}  // namespace

std::string_view signal_name(std::uint8_t position) {
  return position < speakers().size() ? speakers()[position]->name() : "";
}

std::string explain(std::uint8_t position, const Numbers& numbers, const Names& names) {
  if (position >= speakers().size()) return "a signal of a newer version";
  return speakers()[position]->explain(numbers, names);
}

double z_score(std::uint8_t position, const Numbers& numbers) {
  return position < speakers().size() ? speakers()[position]->z_score(numbers)
                                      : std::numeric_limits<double>::quiet_NaN();
}

std::uint64_t incident_of(std::uint8_t position, const Numbers& numbers) {
  return position < speakers().size() ? speakers()[position]->incident(numbers) : 0;
}

}  // namespace tool_firewall
