// SPDX-License-Identifier: Apache-2.0
#include "engine/in_flight.h"

#include <utility>

namespace tool_firewall {

InFlight::Call& InFlight::next(std::optional<Call>& overflow) {
  if (size_ == kMost) overflow = release(oldest_);
  if (free_.empty()) {
    free_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  return slots_[free_.back()].call;
}

std::uint64_t InFlight::add(bool foreign) {
  const std::uint32_t at = free_.back();
  free_.pop_back();
  Slot& slot = slots_[at];
  slot.used = true;
  slot.foreign = foreign;
  slot.older = newest_;
  slot.newer = kNone;
  (newest_ == kNone ? oldest_ : slots_[newest_].newer) = at;
  newest_ = at;
  ++size_;
  if (foreign) foreign_[foreign_key(slot.call.id.worker, slot.call.id.seq)] = at;
  return (std::uint64_t{++slot.generation} << 32) | (at + 1);
}

InFlight::Call InFlight::release(std::uint32_t at) {
  Slot& slot = slots_[at];
  (slot.older == kNone ? oldest_ : slots_[slot.older].newer) = slot.newer;
  (slot.newer == kNone ? newest_ : slots_[slot.newer].older) = slot.older;
  if (slot.foreign) foreign_.erase(foreign_key(slot.call.id.worker, slot.call.id.seq));
  slot.used = false;
  free_.push_back(at);
  --size_;
  return std::move(slot.call);
}

std::optional<InFlight::Call> InFlight::take(std::uint64_t ticket) {
  const auto at = static_cast<std::uint32_t>(ticket) - 1;
  if (ticket == 0 || at >= slots_.size()) return std::nullopt;
  if (!slots_[at].used || slots_[at].generation != ticket >> 32) return std::nullopt;
  return release(at);
}

std::optional<InFlight::Call> InFlight::take(std::uint64_t worker, std::uint64_t seq) {
  const auto found = foreign_.find(foreign_key(worker, seq));
  if (found == foreign_.end()) return std::nullopt;
  const std::uint32_t at = found->second;
  if (slots_[at].call.id.worker != worker || slots_[at].call.id.seq != seq) return std::nullopt;
  return release(at);
}

std::optional<InFlight::Call> InFlight::take_done(double now) {
  if (oldest_ == kNone) return std::nullopt;
  const double age = now - slots_[oldest_].call.id.ts;
  // Also from far ahead of `now`: a clock was set back, and nothing behind it would ever end. Not from a
  // little ahead: `now` may be that of a record which another process could write only after an outage.
  if (age <= kDoneAfter && age >= -kFarAhead) return std::nullopt;
  return release(oldest_);
}

}  // namespace tool_firewall
