// SPDX-License-Identifier: Apache-2.0
// The engine: one call in, one verdict out. Start reading here.
//
//   check()    before the call: score it, decide, count what counts at once, queue a record
//   observe()  after it: learn from it, queue a record
//   apply()    the same for records of other processes and of earlier runs
//
// Knows no Python, no gateway, no storage and no clock: times are arguments (s since the epoch, UTC). Not
// thread-safe: the caller keeps calls apart (the bindings hold the GIL). Throws std::invalid_argument while
// being built from wrong settings; check() and observe() throw nothing but std::bad_alloc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "behavior/model.h"
#include "engine/call.h"
#include "engine/in_flight.h"
#include "engine/modes.h"
#include "engine/snoozes.h"
#include "engine/verdict.h"
#include "journal/pack.h"
#include "journal/record.h"
#include "journal/seal.h"
#include "text/hash.h"

namespace tool_firewall {

struct EngineSettings {
  ModelSettings model;
  std::uint64_t worker = 0;  // marks this process's records
  // Risks from which calls are acted on, before what a plugin instance says; by tool, user, tenant.
  std::map<std::string, double, std::less<>> tenant_thresholds, tool_thresholds, user_thresholds;
  double learning_days = 0;         // learning mode turns into warn by itself after so long; 0: never
  bool journaling = false;          // keep records for drain()
  bool learn_groups = false;        // peer groups by tool use, for users that are in none
  bool record_destinations = true;  // hosts in clear in the records
  std::string default_zone = "UTC";
  std::map<std::string, Zone> zones;                // by name; "UTC" need not be given
  std::map<std::string, std::string> tenant_zones;  // tenant -> zone name
  std::map<std::string, std::string> user_zones;    // user -> zone name
};

class Engine {
 public:
  static constexpr std::size_t kMostQueued = 1U
                                             << 17;  // records; beyond, the oldest ordinary ones are dropped
  static constexpr std::size_t kMostTools = 1U << 16;
  static constexpr std::size_t kMostWorkers = 1U << 14;  // whose last number is remembered
  static constexpr std::array<double, 9> kRiskBuckets = {.05, .1, .2, 1. / 3, .5, .6, .667, .8, 1};

  struct Counts {
    std::array<std::array<std::uint64_t, 4>, 3> verdicts{};          // [decision][mode], of this process
    std::array<std::array<std::uint64_t, 4>, 3> applied_verdicts{};  // of the records it applied
    std::array<std::uint64_t, 4> outcomes{};
    std::array<std::uint64_t, 3> after{};  // [decision], of what only the end of a call showed
    std::array<std::uint64_t, kRiskBuckets.size()> risk{};  // not cumulative
    double risk_sum = 0;
    std::uint64_t blocked = 0;
    std::uint64_t uninspectable = 0;
    std::uint64_t assumed_done = 0;   // no post hook within five minutes
    std::uint64_t crowded_out = 0;    // counted as done early because too many calls were running
    std::uint64_t unpaired = 0;       // post hooks without a call
    std::uint64_t dropped = 0;        // ordinary records lost because the queue was full
    std::uint64_t findings_lost = 0;  // and, when that was not enough, findings
    std::uint64_t unreadable = 0;     // records apply() could not read
    std::uint64_t repeated = 0;       // records apply() had seen before
    std::uint64_t applied = 0;
    std::uint64_t tools_refused = 0;
  };

  // `secret`: the installation's key, at least 32 bytes.
  Engine(const EngineSettings& settings, std::span<const unsigned char> secret);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Completes a caller whose texts are set.
  void resolve(Caller& caller);

  Verdict check(const InstancePolicy& policy, const CallerPtr& caller, std::string_view server,
                std::string_view tool, const Arguments& arguments, double now);

  // `cost`: of this call, NaN when not known. An unknown ticket is counted.
  Aftermath observe(std::uint64_t ticket, Outcome outcome, double cost, double now);

  // Ends calls that have been running for five minutes by `now`.
  void expire(double now);

  // Takes up to `limit` records out of the queue, oldest first. Never more than one record is given twice:
  // what could not be stored is for the caller to keep.
  std::vector<Pack> drain(std::size_t limit);

  // Queues a control record of this worker about itself: "gap", "clock" (record.h).
  void note(std::string action, std::string value, double now);

  // Applies a pack of the journal; returns how many of its records were new. Skipped are this worker's own,
  // those it has seen (a worker's calls and controls carry ascending numbers), and unreadable ones. The last
  // two are counted.
  std::size_t apply(std::string_view pack);

  // A digest of every pack apply() was ever given: equal wherever the same packs were read in the same order.
  // 0 after forget_digest(), for an engine that did not read from the beginning.
  std::uint64_t read_digest() const { return read_digest_; }
  void forget_digest() { read_digest_ = 0; }

  Mode mode_in_force(const InstancePolicy& policy, std::string_view tenant, std::string_view tool,
                     std::string_view user, double now) const;

  const Modes& modes() const { return modes_; }
  const Snoozes& snoozes() const { return snoozes_; }
  const Counts& counts() const { return counts_; }
  Model& model() { return model_; }
  const Model& model() const { return model_; }
  const InFlight& in_flight() const { return in_flight_; }
  const Hasher& hasher() const { return hasher_; }
  std::size_t queued() const { return ordinary_.size() + findings_.size(); }
  std::uint64_t calls() const { return calls_; }
  double first_call() const { return first_call_; }
  double last_call() const { return clock_.newest(); }
  const Clock& clock() const { return clock_; }

  // Every tool seen, in the order first seen.
  const std::vector<const Tool*>& tools() const { return tool_order_; }

 private:
  friend class SnapshotWriter;
  friend class SnapshotReader;

  struct QueuedCall {
    RecordId id;
    Verdict verdict;
    std::uint64_t arguments;
    std::vector<ArgumentFact> facts;
    std::vector<std::string> destinations;
    std::shared_ptr<const Caller> caller;
  };
  struct QueuedOutcome {
    RecordId id;
    Outcome outcome;
    double cost;
    double risk;
  };
  struct QueuedAftermath {
    QueuedOutcome outcome;
    Aftermath aftermath;
  };
  using Queueable = std::variant<QueuedCall, QueuedOutcome, QueuedAftermath, ControlRecord>;
  struct Queued {
    std::uint64_t order;
    Queueable what;
  };
  using Queue = std::deque<Queued>;

  void look_for_group(Caller& caller);
  const Tool& tool_named(std::string_view server, std::string_view name);
  const Zone& zone_of(std::string_view tenant, std::string_view user) const;
  void decide(const InstancePolicy& policy, const Caller& caller, std::string_view tool,
              const Arguments& arguments, double now, Verdict& verdict) const;
  double possible(double now) const;  // `now`, or the last time known when no clock says so
  Moment read_clock(double ts, Clock::Origin origin);
  void saw_call(const Moment& when);
  InFlight::Call& next_call(const RecordId& id);
  void push(bool finding, Queueable what);
  static std::string encode_queued(const Queued& queued);
  void learn(const InFlight::Call& call) { model_.end(call.scored, {}); }
  static Decision decision_of(double risk, double threshold);
  double threshold_for(const InstancePolicy& policy, const Caller& caller, std::string_view tool) const;
  bool apply_one(std::string_view record);
  bool seen(const RecordId& id);
  void apply_record(CallRecord& record);
  void apply_record(OutcomeRecord& record);
  void apply_record(ControlRecord& record);
  void set_mode(ControlRecord& record);
  void set_snooze(ControlRecord& record);
  void judge(const ControlRecord& record);

  EngineSettings settings_;
  Hasher hasher_;
  Seal seal_;
  Model model_;
  Modes modes_;
  Snoozes snoozes_;
  InFlight in_flight_;
  Counts counts_;
  Zone utc_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Tool>> tools_;
  std::vector<const Tool*> tool_order_;
  std::unordered_map<std::uint64_t, CallerPtr> applied_callers_;
  std::deque<std::uint64_t> applied_order_;  // its keys, oldest first
  Queue ordinary_;
  Queue findings_;  // whatever must not be lost; drain() merges both by order
  std::uint64_t order_ = 0;
  std::uint64_t seq_ = 0;
  struct Followed {
    std::uint64_t seq = 0;    // of its last call or control applied
    std::uint64_t order = 0;  // when that was, for forgetting the longest quiet
  };
  std::unordered_map<std::uint64_t, Followed> followed_;  // by worker
  std::uint64_t follow_order_ = 0;
  std::uint64_t read_digest_ = 1;
  std::uint64_t calls_ = 0;
  double first_call_ = 0;
  Clock clock_;
};

}  // namespace tool_firewall
