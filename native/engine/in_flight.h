// SPDX-License-Identifier: Apache-2.0
// Calls that were checked and have not ended: what learn() will need, until the post hook comes or five
// minutes pass.
//
// A ticket is a slot and a generation, so an old or foreign ticket is recognised. Calls of other processes
// are found by their record id instead. When all slots are taken the oldest call counts as done early.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "behavior/model.h"
#include "journal/record.h"

namespace tool_firewall {

class InFlight {
 public:
  static constexpr std::size_t kMost = 1U << 15;
  static constexpr double kDoneAfter = 300;   // s
  static constexpr double kFarAhead = 86400;  // s

  struct Call {
    Scored scored;
    RecordId id;
    // What an Aftermath needs, of calls of this process.
    std::shared_ptr<const Caller> caller;
    const Tool* previous = nullptr;
    std::uint64_t incident = 0;
    double threshold = 1;
    Decision decision = Decision::kAllow;
    Mode mode = Mode::kLearning;
    bool snoozed = false;
  };

  // A place for the next call, to be filled in by the caller; valid until the next use of this object.
  // Nothing happens to it until add(). When all places are taken, the oldest call is moved into `overflow`
  // first.
  Call& next(std::optional<Call>& overflow);

  // Puts the call in next() in, and gives its ticket.
  std::uint64_t add(bool foreign);

  // Takes a call out; nothing when the ticket or id is not (or no longer) here.
  std::optional<Call> take(std::uint64_t ticket);
  std::optional<Call> take(std::uint64_t worker, std::uint64_t seq);

  // The oldest call, when it was checked more than kDoneAfter before or, after a clock was set back,
  // kFarAhead after `now`.
  std::optional<Call> take_done(double now);

  std::size_t size() const { return size_; }

  // Every call, oldest first.
  template <class Visit>
  void each(const Visit& visit) const {
    for (std::uint32_t at = oldest_; at != kNone; at = slots_[at].newer) visit(slots_[at].call);
  }

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;
  struct Slot {
    Call call;
    std::uint32_t generation = 0;
    std::uint32_t older = kNone;
    std::uint32_t newer = kNone;
    bool used = false;
    bool foreign = false;
  };
  Call release(std::uint32_t slot);
  static std::uint64_t foreign_key(std::uint64_t worker, std::uint64_t seq) {
    return worker ^ (seq * 0x9E3779B97F4A7C15ULL);
  }

  std::deque<Slot> slots_;  // grows without moving
  std::vector<std::uint32_t> free_;
  std::unordered_map<std::uint64_t, std::uint32_t> foreign_;
  std::uint32_t oldest_ = kNone;
  std::uint32_t newest_ = kNone;
  std::size_t size_ = 0;
};

}  // namespace tool_firewall
