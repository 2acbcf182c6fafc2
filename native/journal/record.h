// SPDX-License-Identifier: Apache-2.0
// Journal records and their encoding.
//
// A record is what one process tells the others and its own next start: a call was checked, it came to an
// end, an operator changed something. Feeding the records of a journal to a fresh engine in order gives the
// same state and the same scores. Records hold names, numbers and keyed digests; never argument values,
// tokens or results.
//
// Encoding (version 3, little endian): u8 version, u8 kind, u8 class, u8 zero, u64 worker, u64 seq, f64 ts,
// then the fields of the kind in the order of the structs below, then u64 XXH3 of all bytes before it,
// because neither SQLite nor Redis would notice a changed bit. Text is u16 length + bytes (UTF-8, lone
// surrogates kept); longer text is cut. Older versions are still read: 1 had neither class nor checksum, 2
// knew nothing of arguments, costs and what showed after a call. A reader refuses versions and kinds it does
// not know.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/verdict.h"
#include "text/argument_reader.h"

namespace tool_firewall {

inline constexpr std::uint8_t kRecordVersion = 3;

// Times beyond +-kMostTime (s) are refused: no clock shows them, and arithmetic with them ends in infinities.
inline constexpr double kMostTime = 1e12;

struct RecordError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a record is worth: how long it is kept, and whether it may be dropped when nothing can be stored.
enum class RecordClass : std::uint8_t {
  kOrdinary,  // allowed calls, outcomes
  kFinding,   // calls that were listed, warned about or stopped, and what showed after a call
  kControl,   // changes by an operator, and what the firewall says about itself
};

// Which record this is: `worker` names a process by a random number, `seq` counts its records from 1.
struct RecordId {
  std::uint64_t worker = 0;
  std::uint64_t seq = 0;
  double ts = 0;  // s since the epoch, UTC
};

// Who called what, and what was found.
struct Circumstances {
  Mode mode = Mode::kLearning;
  bool snoozed = false;        // an operator had asked for quiet
  std::uint64_t incident = 0;  // named in texts and logs; 0 for imported history
  std::string tenant, user, agent, group, session, token, server, tool, previous;
  std::vector<Reason> reasons;
};

struct CallRecord : Circumstances {
  RecordId id;
  bool blocked = false;
  Decision decision = Decision::kAllow;
  Inspection inspection = Inspection::kInspected;
  double risk = 0;
  std::uint64_t arguments = 0;            // keyed digest
  std::vector<ArgumentFact> facts;        // keyed digests, at most ArgumentFacts::kMost
  std::vector<std::string> destinations;  // hosts named in the arguments, at most kMostDestinations
};

// What became of the call with the same worker and seq.
struct OutcomeRecord {
  RecordId id;
  Outcome outcome = Outcome::kOk;
  double cost = std::numeric_limits<double>::quiet_NaN();  // in whatever unit costs have; NaN: not known
  double risk = 0;                                         // with all that is known now
  Decision decision = Decision::kAllow;  // what that says; with anything else, `found` says of what
  Circumstances found;
};

// A change by an operator:
//   mode            of a scope; value: the mode, "" to clear
//   snooze          a scope; value: until when (s), "" to clear
//   accept, reject  something new of one user, or accept "burst"; value: which (news.h)
//   suppress        for readers of findings; the engine ignores it
// Or what a worker says about the journal itself: "gap", value records were lost; "clock", its clock jumped
// by value seconds.
struct ControlRecord {
  RecordId id;
  std::string action, tenant, tool, user, value, by, why;
};

using Record = std::variant<CallRecord, OutcomeRecord, ControlRecord>;

std::string encode(const Record& record);

// Throws RecordError.
Record decode(std::string_view bytes);

// Without decoding the rest of a record; both throw RecordError.
std::uint64_t worker_of(std::string_view bytes);
RecordClass class_of(std::string_view bytes);

}  // namespace tool_firewall
