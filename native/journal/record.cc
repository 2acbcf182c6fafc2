// SPDX-License-Identifier: Apache-2.0
#include "journal/record.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tool_firewall {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written in host order");

enum class Kind : std::uint8_t { kCall = 1, kOutcome, kControl };

constexpr std::uint8_t kFirstVersion = 1;
constexpr std::uint8_t kSecondVersion = 2;
constexpr std::size_t kClassAt = 2;
constexpr std::size_t kSumBytes = sizeof(std::uint64_t);
constexpr std::uint8_t kSecond = 0x80;  // beside the kind of a fact

// Where the worker stands in a record of this version.
std::size_t worker_at(std::string_view bytes) {
  if (bytes.empty()) throw RecordError("record: cut short");
  switch (static_cast<std::uint8_t>(bytes.front())) {
    case kFirstVersion:
      return 2;
    case kSecondVersion:
    case kRecordVersion:
      return 4;
    default:
      throw RecordError("record: unknown version");
  }
}

std::uint64_t sum_of(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

class Writer {
 public:
  Writer(Kind kind, RecordClass worth, const RecordId& id) {
    number(kRecordVersion);
    number(kind);
    number(worth);
    number(std::uint8_t{0});
    number(id.worker);
    number(id.seq);
    number(id.ts);
  }
  template <class T>
  void number(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void text(std::string_view value) {
    const auto size = static_cast<std::uint16_t>(
        std::min<std::size_t>(value.size(), std::numeric_limits<std::uint16_t>::max()));
    number(size);
    bytes_.append(value.data(), size);
  }
  std::string take() {
    number(sum_of(bytes_));
    return std::move(bytes_);
  }

 private:
  std::string bytes_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  template <class T>
  T number() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  // An enum written as one byte; `last` is the largest value this version knows.
  template <class T>
  T choice(T last) {
    const auto value = number<std::uint8_t>();
    if (value > static_cast<std::uint8_t>(last)) throw RecordError("record: value out of range");
    return static_cast<T>(value);
  }
  std::string text() { return std::string(take(number<std::uint16_t>())); }
  void skip(std::size_t size) { take(size); }
  void end() const {
    if (at_ != bytes_.size()) throw RecordError("record: trailing bytes");
  }

 private:
  std::string_view take(std::size_t size) {
    if (bytes_.size() - at_ < size) throw RecordError("record: cut short");
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  std::string_view bytes_;
  std::size_t at_ = 0;
};

RecordClass class_of(Decision decision) {
  return decision == Decision::kAllow ? RecordClass::kOrdinary : RecordClass::kFinding;
}

enum CallFlag : std::uint8_t { kBlocked = 1, kSnoozed = 2 };

std::uint8_t flags(bool blocked, bool snoozed) {
  return static_cast<std::uint8_t>((blocked ? kBlocked : 0) | (snoozed ? kSnoozed : 0));
}

void write_names(Writer& out, const Circumstances& c) {
  for (const std::string* text :
       {&c.tenant, &c.user, &c.agent, &c.group, &c.session, &c.token, &c.server, &c.tool, &c.previous})
    out.text(*text);
}

void write_reasons(Writer& out, const Circumstances& c) {
  out.number(static_cast<std::uint8_t>(c.reasons.size()));
  for (const Reason& reason : c.reasons) {
    out.number(reason.signal);
    out.number(reason.p);
    out.number(reason.numbers.value);
    out.number(reason.numbers.baseline);
    out.number(reason.numbers.detail);
  }
}

std::string write(const CallRecord& r) {
  Writer out(Kind::kCall, class_of(r.decision), r.id);
  out.number(flags(r.blocked, r.snoozed));
  out.number(r.decision);
  out.number(r.mode);
  out.number(r.inspection);
  out.number(r.risk);
  out.number(r.arguments);
  out.number(r.incident);
  write_names(out, r);
  write_reasons(out, r);
  const std::size_t facts = std::min(r.facts.size(), ArgumentFacts::kMost);
  out.number(static_cast<std::uint8_t>(facts));
  for (std::size_t i = 0; i < facts; ++i) {
    const ArgumentFact& fact = r.facts[i];
    out.number(static_cast<std::uint8_t>(static_cast<unsigned>(fact.kind) | (fact.second ? kSecond : 0U)));
    out.number(fact.place);
    out.number(fact.value);
  }
  const std::size_t destinations = std::min(r.destinations.size(), kMostDestinations);
  out.number(static_cast<std::uint8_t>(destinations));
  for (std::size_t i = 0; i < destinations; ++i) out.text(r.destinations[i]);
  return out.take();
}

std::string write(const OutcomeRecord& r) {
  Writer out(Kind::kOutcome, class_of(r.decision), r.id);
  out.number(r.outcome);
  out.number(r.cost);
  out.number(r.risk);
  out.number(r.decision);
  if (r.decision == Decision::kAllow) return out.take();
  out.number(flags(false, r.found.snoozed));
  out.number(r.found.mode);
  out.number(r.found.incident);
  write_names(out, r.found);
  write_reasons(out, r.found);
  return out.take();
}

std::string write(const ControlRecord& r) {
  Writer out(Kind::kControl, RecordClass::kControl, r.id);
  for (const std::string* text : {&r.action, &r.tenant, &r.tool, &r.user, &r.value, &r.by, &r.why})
    out.text(*text);
  return out.take();
}

void read_names(Reader& in, Circumstances& c) {
  for (std::string* text :
       {&c.tenant, &c.user, &c.agent, &c.group, &c.session, &c.token, &c.server, &c.tool, &c.previous})
    *text = in.text();
}

void read_reasons(Reader& in, Circumstances& c) {
  c.reasons.resize(in.number<std::uint8_t>());
  for (Reason& reason : c.reasons) {
    reason.signal = in.number<std::uint8_t>();
    reason.p = in.number<float>();
    reason.numbers.value = in.number<double>();
    reason.numbers.baseline = in.number<double>();
    reason.numbers.detail = in.number<decltype(reason.numbers.detail)>();
  }
}

ArgumentFact read_fact(Reader& in) {
  ArgumentFact fact;
  const auto kind = in.number<std::uint8_t>();
  if ((kind & ~kSecond) > static_cast<unsigned>(kLastArgumentKind))
    throw RecordError("record: value out of range");
  fact.kind = static_cast<ArgumentKind>(kind & ~kSecond);
  fact.second = (kind & kSecond) != 0;
  fact.place = in.number<std::uint64_t>();
  fact.value = in.number<std::uint64_t>();
  return fact;
}

CallRecord read_call(Reader& in, const RecordId& id, std::uint8_t version) {
  CallRecord r;
  r.id = id;
  const auto flags = in.number<std::uint8_t>();
  r.blocked = version <= kSecondVersion ? flags != 0 : (flags & kBlocked) != 0;
  r.snoozed = version > kSecondVersion && (flags & kSnoozed) != 0;
  r.decision = in.choice(Decision::kDeny);
  r.mode = in.choice(Mode::kBlock);
  r.inspection = in.choice(Inspection::kWrongType);
  r.risk = in.number<double>();
  r.arguments = in.number<std::uint64_t>();
  r.incident = in.number<std::uint64_t>();
  read_names(in, r);
  read_reasons(in, r);
  if (version <= kSecondVersion) return r;
  r.facts.resize(in.number<std::uint8_t>());
  if (r.facts.size() > ArgumentFacts::kMost) throw RecordError("record: too many arguments");
  for (ArgumentFact& fact : r.facts) fact = read_fact(in);
  r.destinations.resize(in.number<std::uint8_t>());
  if (r.destinations.size() > kMostDestinations) throw RecordError("record: too many destinations");
  for (std::string& host : r.destinations) host = in.text();
  return r;
}

OutcomeRecord read_outcome(Reader& in, const RecordId& id, std::uint8_t version) {
  OutcomeRecord r;
  r.id = id;
  r.outcome = in.choice(Outcome::kUnreachable);
  if (version <= kSecondVersion) return r;
  r.cost = in.number<double>();
  r.risk = in.number<double>();
  r.decision = in.choice(Decision::kDeny);
  if (r.decision == Decision::kAllow) return r;
  r.found.snoozed = (in.number<std::uint8_t>() & kSnoozed) != 0;
  r.found.mode = in.choice(Mode::kBlock);
  r.found.incident = in.number<std::uint64_t>();
  read_names(in, r.found);
  read_reasons(in, r.found);
  return r;
}

ControlRecord read_control(Reader& in, const RecordId& id) {
  ControlRecord r;
  r.id = id;
  for (std::string* text : {&r.action, &r.tenant, &r.tool, &r.user, &r.value, &r.by, &r.why})
    *text = in.text();
  return r;
}

}  // namespace

std::string encode(const Record& record) {
  return std::visit([](const auto& r) { return write(r); }, record);
}

Record decode(std::string_view bytes) {
  const std::size_t header = worker_at(bytes);
  const auto version = static_cast<std::uint8_t>(bytes.front());
  if (version != kFirstVersion) {
    if (bytes.size() < header + kSumBytes) throw RecordError("record: cut short");
    std::uint64_t sum = 0;
    std::memcpy(&sum, bytes.data() + bytes.size() - kSumBytes, kSumBytes);
    bytes.remove_suffix(kSumBytes);
    if (sum != sum_of(bytes)) throw RecordError("record: damaged, its checksum does not match");
  }
  Reader in(bytes);
  in.skip(1);
  const auto kind = in.number<std::uint8_t>();
  in.skip(header - 2);
  RecordId id;
  id.worker = in.number<std::uint64_t>();
  id.seq = in.number<std::uint64_t>();
  id.ts = in.number<double>();
  if (!(id.ts > -kMostTime && id.ts < kMostTime)) throw RecordError("record: impossible time");
  Record record;
  switch (static_cast<Kind>(kind)) {
    case Kind::kCall:
      record = read_call(in, id, version);
      break;
    case Kind::kOutcome:
      record = read_outcome(in, id, version);
      break;
    case Kind::kControl:
      record = read_control(in, id);
      break;
    default:
      throw RecordError("record: unknown kind");
  }
  in.end();
  return record;
}

std::uint64_t worker_of(std::string_view bytes) {
  Reader in(bytes);
  in.skip(worker_at(bytes));
  return in.number<std::uint64_t>();
}

RecordClass class_of(std::string_view bytes) {
  if (worker_at(bytes) > kClassAt) {
    Reader in(bytes);
    in.skip(kClassAt);
    return in.choice(RecordClass::kControl);
  }
  const Record record = decode(bytes);
  if (const auto* call = std::get_if<CallRecord>(&record)) return class_of(call->decision);  // version 1
  return std::holds_alternative<ControlRecord>(record) ? RecordClass::kControl : RecordClass::kOrdinary;
}

}  // namespace tool_firewall
