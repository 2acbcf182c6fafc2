// SPDX-License-Identifier: Apache-2.0
#include "journal/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "lab.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tool_firewall {
namespace {

void fill(Circumstances& record) {
  record.mode = Mode::kBlock;
  record.snoozed = true;
  record.incident = 0xabcdef;
  record.tenant = "acme";
  record.user = "Zo\xc3\xab@example.com";
  record.agent = "agent \"7\"";
  record.group = "";
  record.session = std::string("a\0b", 3);
  record.token = "t";
  record.server = "upstream";
  record.tool = "\xed\xa0\x80 lone";
  record.previous = "query";
  record.reasons = {{3, .001F, {12.5, 3, {1, 2, 3, 4}}}, {0, 1, {0, 0, {}}}};
}

void expect_same(const Circumstances& after, const Circumstances& before) {
  EXPECT_EQ(after.mode, before.mode);
  EXPECT_EQ(after.snoozed, before.snoozed);
  EXPECT_EQ(after.incident, before.incident);
  EXPECT_EQ(after.tenant, before.tenant);
  EXPECT_EQ(after.user, before.user);
  EXPECT_EQ(after.agent, before.agent);
  EXPECT_EQ(after.group, before.group);
  EXPECT_EQ(after.session, before.session);
  EXPECT_EQ(after.token, before.token);
  EXPECT_EQ(after.server, before.server);
  EXPECT_EQ(after.tool, before.tool);
  EXPECT_EQ(after.previous, before.previous);
  ASSERT_EQ(after.reasons.size(), before.reasons.size());
  for (std::size_t i = 0; i < after.reasons.size(); ++i) {
    EXPECT_EQ(after.reasons[i].signal, before.reasons[i].signal);
    EXPECT_EQ(after.reasons[i].p, before.reasons[i].p);
    EXPECT_EQ(after.reasons[i].numbers.value, before.reasons[i].numbers.value);
    EXPECT_EQ(after.reasons[i].numbers.baseline, before.reasons[i].numbers.baseline);
    EXPECT_EQ(after.reasons[i].numbers.detail, before.reasons[i].numbers.detail);
  }
}

CallRecord full_call() {
  CallRecord record;
  fill(record);
  record.id = {0x1122334455667788, 42, kMonday + .25};
  record.blocked = true;
  record.decision = Decision::kDeny;
  record.inspection = Inspection::kTooDeep;
  record.risk = .6180339887498949;
  record.arguments = 0xfedcba9876543210;
  record.facts = {{.place = 1, .value = 2, .kind = ArgumentKind::kAddress, .second = false},
                  {.place = 3, .value = ~std::uint64_t{0}, .kind = ArgumentKind::kDomain, .second = true},
                  {.place = 0, .value = 0, .kind = ArgumentKind::kMagnitude, .second = false}};
  record.destinations = {"example.com", "",
                         "b\xc3\xbc"
                         "cher.example"};
  return record;
}

// What only the end of a call showed.
OutcomeRecord full_outcome() {
  OutcomeRecord record = ended({0x1122334455667788, 42, kMonday + 2}, Outcome::kToolError);
  record.cost = 17.25;
  record.risk = .75;
  record.decision = Decision::kAudit;
  fill(record.found);
  return record;
}

std::vector<Record> every_kind() {
  CallRecord bare;
  bare.id = {1, 1, kMonday};
  return {
      full_call(), bare, ended({5, 6, kMonday}, Outcome::kTimeout),
      ControlRecord{{9, 1, kMonday}, "mode", "acme", "query", "alice", "block", "root", "an \"odd\" reason"},
      full_outcome()};
}

TEST(Record, ACallComesBackWhole) {
  const CallRecord before = full_call();
  const auto after = std::get<CallRecord>(decode(encode(before)));
  EXPECT_EQ(after.id.worker, before.id.worker);
  EXPECT_EQ(after.id.seq, before.id.seq);
  EXPECT_EQ(after.id.ts, before.id.ts);
  EXPECT_EQ(after.blocked, before.blocked);
  EXPECT_EQ(after.decision, before.decision);
  EXPECT_EQ(after.inspection, before.inspection);
  EXPECT_EQ(after.risk, before.risk);
  EXPECT_EQ(after.arguments, before.arguments);
  expect_same(after, before);
  ASSERT_EQ(after.facts.size(), before.facts.size());
  for (std::size_t i = 0; i < after.facts.size(); ++i) {
    EXPECT_EQ(after.facts[i].place, before.facts[i].place) << i;
    EXPECT_EQ(after.facts[i].value, before.facts[i].value) << i;
    EXPECT_EQ(after.facts[i].kind, before.facts[i].kind) << i;
    EXPECT_EQ(after.facts[i].second, before.facts[i].second) << i;
  }
  EXPECT_EQ(after.destinations, before.destinations);
}

TEST(Record, ABareCallComesBackBare) {
  CallRecord bare;
  bare.id = {1, 1, kMonday};
  const auto after = std::get<CallRecord>(decode(encode(bare)));
  expect_same(after, bare);
  EXPECT_FALSE(after.blocked);
  EXPECT_TRUE(after.facts.empty());
  EXPECT_TRUE(after.destinations.empty());
}

TEST(Record, BlockedAndSnoozedAreTwoThings) {
  for (const bool blocked : {false, true}) {
    for (const bool snoozed : {false, true}) {
      CallRecord call;
      call.blocked = blocked;
      call.snoozed = snoozed;
      const auto after = std::get<CallRecord>(decode(encode(call)));
      EXPECT_EQ(after.blocked, blocked);
      EXPECT_EQ(after.snoozed, snoozed);
    }
  }
}

TEST(Record, OfTooManyFactsAndDestinationsTheFirstAreWritten) {
  CallRecord call;
  for (std::uint64_t i = 0; i < 300; ++i) {
    call.facts.push_back({.place = i, .value = i});
    call.destinations.push_back(std::to_string(i));
  }
  const auto after = std::get<CallRecord>(decode(encode(call)));
  ASSERT_EQ(after.facts.size(), ArgumentFacts::kMost);
  EXPECT_EQ(after.facts.back().place, ArgumentFacts::kMost - 1);
  EXPECT_EQ(after.destinations, (std::vector<std::string>{"0", "1", "2", "3"}));
}

TEST(Record, AFindingAfterTheCallComesBackWhole) {
  const OutcomeRecord before = full_outcome();
  const auto after = std::get<OutcomeRecord>(decode(encode(before)));
  EXPECT_EQ(after.outcome, Outcome::kToolError);
  EXPECT_EQ(after.cost, 17.25);
  EXPECT_EQ(after.risk, .75);
  EXPECT_EQ(after.decision, Decision::kAudit);
  expect_same(after.found, before.found);
}

TEST(Record, AnOutcomeThatFoundNothingSaysNothingOfWhom) {
  OutcomeRecord before = full_outcome();
  before.decision = Decision::kAllow;
  const std::string bytes = encode(before);
  EXPECT_EQ(bytes.find("acme"), std::string::npos);
  const auto after = std::get<OutcomeRecord>(decode(bytes));
  EXPECT_EQ(after.risk, .75);
  EXPECT_EQ(after.cost, 17.25);
  EXPECT_EQ(after.found.tenant, "");
}

TEST(Record, OutcomesAndControlsComeBackWhole) {
  for (const Outcome outcome :
       {Outcome::kOk, Outcome::kToolError, Outcome::kTimeout, Outcome::kUnreachable}) {
    const auto after = std::get<OutcomeRecord>(decode(encode(ended({5, 6, kMonday}, outcome))));
    EXPECT_EQ(after.outcome, outcome);
    EXPECT_EQ(after.id.worker, 5U);
    EXPECT_EQ(after.id.seq, 6U);
    EXPECT_TRUE(std::isnan(after.cost)) << "not known is not 0";
    EXPECT_EQ(after.decision, Decision::kAllow);
  }
  const auto control = std::get<ControlRecord>(decode(encode(every_kind()[3])));
  EXPECT_EQ(control.action, "mode");
  EXPECT_EQ(control.tenant, "acme");
  EXPECT_EQ(control.tool, "query");
  EXPECT_EQ(control.user, "alice");
  EXPECT_EQ(control.value, "block");
  EXPECT_EQ(control.by, "root");
  EXPECT_EQ(control.why, "an \"odd\" reason");
}

// With a checksum that fits the changed bytes: what is wrong is the content.
std::string signed_anew(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  const std::uint64_t sum = XXH3_64bits(bytes.data(), bytes.size());
  return bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);
}

// What the first release wrote.
std::string version_one(std::string_view kind_and_id, std::string_view fields) {
  return std::string("\1") + std::string(kind_and_id) + std::string(fields);
}

// What the second did.
std::string version_two(std::string_view kind_and_class, std::string_view fields) {
  std::string bytes("\2");
  bytes.append(kind_and_class).append(1, '\0');
  bytes.append("\1\2\3\4\5\6\7\10\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\100", 24).append(fields);
  return signed_anew(bytes.append(8, '\0'));
}

constexpr std::string_view kOutcomeId("\2\1\2\3\4\5\6\7\10\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\100", 25);

// The fields of a call in both: blocked, decision, mode, inspection, risk 2, arguments, incident, nine texts,
// one reason.
std::string call_fields() {
  std::string fields("\1\2\3\1\0\0\0\0\0\0\0\100\7\0\0\0\0\0\0\0\11\0\0\0\0\0\0\0", 28);
  for (const char* text : {"acme", "alice", "", "g", "s", "", "up", "query", "login"})
    fields.append(1, static_cast<char>(std::strlen(text))).append(1, '\0').append(text);
  fields.append("\1\4", 2).append(std::string_view("\0\0\200\77", 4));  // signal 4 with p 1
  return fields.append(2 * 8 + 4 * 4, '\0');
}

void expect_the_call(const Record& record) {
  const auto& call = std::get<CallRecord>(record);
  EXPECT_EQ(call.id.worker, 0x0807060504030201U);
  EXPECT_EQ(call.id.seq, 258U);
  EXPECT_TRUE(call.blocked);
  EXPECT_FALSE(call.snoozed);
  EXPECT_EQ(call.decision, Decision::kDeny);
  EXPECT_EQ(call.mode, Mode::kBlock);
  EXPECT_EQ(call.inspection, Inspection::kTooDeep);
  EXPECT_EQ(call.risk, 2);
  EXPECT_EQ(call.arguments, 7U);
  EXPECT_EQ(call.incident, 9U);
  EXPECT_EQ(call.tenant, "acme");
  EXPECT_EQ(call.previous, "login");
  ASSERT_EQ(call.reasons.size(), 1U);
  EXPECT_EQ(call.reasons[0].signal, 4);
  EXPECT_EQ(call.reasons[0].p, 1);
  EXPECT_TRUE(call.facts.empty());
  EXPECT_TRUE(call.destinations.empty());
}

TEST(Record, TheBytesAreThoseOfVersionThree) {
  OutcomeRecord outcome = ended({0x0807060504030201, 258, 2}, Outcome::kUnreachable);
  outcome.cost = 2;
  const std::string bytes = encode(outcome);
  const unsigned char expected[] = {3, 2, 0, 0, 1,    2, 3, 4, 5, 6, 7, 8,    2, 1, 0, 0,
                                    0, 0, 0, 0, 0,    0, 0, 0, 0, 0, 0, 0x40, 3, 0, 0, 0,
                                    0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0,    0, 0};
  EXPECT_EQ(bytes.substr(0, sizeof expected),
            std::string(reinterpret_cast<const char*>(expected), sizeof expected));
  EXPECT_EQ(bytes.size(), sizeof expected + 8) << "then the checksum";
  const std::string control = encode(ControlRecord{{0, 0, 0}, "mode", "", "", "", "", "", ""});
  EXPECT_EQ(control.substr(28, 18), std::string("\4\0mode\0\0\0\0\0\0\0\0\0\0\0\0", 18));
  CallRecord call;
  call.snoozed = true;
  call.facts = {{.place = 0x0102, .value = 0x0304, .kind = ArgumentKind::kDomain, .second = true}};
  call.destinations = {"h"};
  const std::string end = encode(call);
  EXPECT_EQ(end[28], 2) << "snoozed";
  EXPECT_EQ(end.substr(end.size() - 8 - 22, 22),
            std::string("\1\201\2\1\0\0\0\0\0\0\4\3\0\0\0\0\0\0\1\1\0h", 22));
}

TEST(Record, VersionOneIsStillRead) {
  const std::string outcome = version_one(kOutcomeId, std::string_view("\3", 1));
  const auto record = std::get<OutcomeRecord>(decode(outcome));
  EXPECT_EQ(record.id.worker, 0x0807060504030201U);
  EXPECT_EQ(record.id.seq, 258U);
  EXPECT_EQ(record.id.ts, 2);
  EXPECT_EQ(record.outcome, Outcome::kUnreachable);
  EXPECT_TRUE(std::isnan(record.cost));
  EXPECT_EQ(record.decision, Decision::kAllow);
  EXPECT_EQ(worker_of(outcome), 0x0807060504030201U);
  EXPECT_EQ(class_of(outcome), RecordClass::kOrdinary);
  std::string control(kOutcomeId);
  control.front() = 3;
  control = version_one(control, std::string_view("\4\0mode\0\0\0\0\0\0\5\0block\0\0\0\0", 23));
  EXPECT_EQ(std::get<ControlRecord>(decode(control)).value, "block");
  EXPECT_EQ(class_of(control), RecordClass::kControl);
  std::string call(kOutcomeId);
  call.front() = 1;
  call = version_one(call, call_fields());
  expect_the_call(decode(call));
  EXPECT_EQ(class_of(call), RecordClass::kFinding);
}

TEST(Record, VersionTwoIsStillRead) {
  const std::string outcome = version_two(std::string_view("\2\0", 2), std::string_view("\2", 1));
  const auto record = std::get<OutcomeRecord>(decode(outcome));
  EXPECT_EQ(record.id.worker, 0x0807060504030201U);
  EXPECT_EQ(record.outcome, Outcome::kTimeout);
  EXPECT_TRUE(std::isnan(record.cost));
  EXPECT_EQ(record.decision, Decision::kAllow);
  EXPECT_EQ(worker_of(outcome), 0x0807060504030201U);
  EXPECT_EQ(class_of(outcome), RecordClass::kOrdinary);
  const std::string control =
      version_two(std::string_view("\3\2", 2), std::string_view("\4\0mode\0\0\0\0\0\0\5\0block\0\0\0\0", 23));
  EXPECT_EQ(std::get<ControlRecord>(decode(control)).value, "block");
  EXPECT_EQ(class_of(control), RecordClass::kControl);
  const std::string call = version_two(std::string_view("\1\1", 2), call_fields());
  expect_the_call(decode(call));
  EXPECT_EQ(class_of(call), RecordClass::kFinding);
  EXPECT_THROW(decode(version_two(std::string_view("\1\1", 2), call_fields() + std::string(2, '\0'))),
               RecordError)
      << "what only version 3 has";
}

TEST(Record, AnEngineReadsAllVersions) {
  Lab lab;
  std::string first(kOutcomeId);
  first.front() = 1;
  first = version_one(first, call_fields());
  EXPECT_TRUE(feed(lab.engine, first));
  std::string second = version_two(std::string_view("\1\1", 2), call_fields());
  second[4] = 9;  // another worker
  EXPECT_TRUE(feed(lab.engine, signed_anew(second)));
  EXPECT_TRUE(feed(lab.engine, encode(full_call())));
  EXPECT_EQ(lab.engine.calls(), 3U);
  EXPECT_EQ(lab.engine.counts().unreadable, 0U);
}

TEST(Record, OfAnotherVersionIsRefused) {
  for (const char version : {'\0', '\4', '\177', '\377'}) {
    std::string bytes = encode(ended({1, 2, 3}));
    bytes[0] = version;
    bytes = signed_anew(bytes);
    EXPECT_THROW(decode(bytes), RecordError);
    EXPECT_THROW(worker_of(bytes), RecordError);
    EXPECT_THROW(class_of(bytes), RecordError);
  }
}

TEST(Record, EveryChangedBitIsNoticed) {
  for (const Record& record : every_kind()) {
    const std::string bytes = encode(record);
    for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
      std::string changed = bytes;
      changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
      EXPECT_THROW(decode(changed), RecordError) << bit;
    }
  }
}

TEST(Record, TheClassSaysWhatItIsWorth) {
  CallRecord call = full_call();
  EXPECT_EQ(class_of(encode(call)), RecordClass::kFinding);
  call.decision = Decision::kAudit;
  EXPECT_EQ(class_of(encode(call)), RecordClass::kFinding);
  call.decision = Decision::kAllow;
  EXPECT_EQ(class_of(encode(call)), RecordClass::kOrdinary);
  EXPECT_EQ(class_of(encode(every_kind()[2])), RecordClass::kOrdinary);
  EXPECT_EQ(class_of(encode(every_kind()[3])), RecordClass::kControl);
  OutcomeRecord outcome = full_outcome();
  EXPECT_EQ(class_of(encode(outcome)), RecordClass::kFinding) << "a finding after the call";
  outcome.decision = Decision::kDeny;
  EXPECT_EQ(class_of(encode(outcome)), RecordClass::kFinding);
  outcome.decision = Decision::kAllow;
  EXPECT_EQ(class_of(encode(outcome)), RecordClass::kOrdinary);
}

TEST(Record, WorkersAreReadWithoutTheRest) {
  for (const Record& record : every_kind()) {
    const std::uint64_t worker = std::visit([](const auto& r) { return r.id.worker; }, record);
    EXPECT_EQ(worker_of(encode(record)), worker);
  }
  EXPECT_THROW(worker_of(""), RecordError);
  EXPECT_THROW(worker_of("123456789"), RecordError);
}

TEST(Record, EveryTruncationIsRefused) {
  for (const Record& record : every_kind()) {
    const std::string bytes = encode(record);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      EXPECT_THROW(decode(std::string_view(bytes).substr(0, size)), RecordError) << size;
    EXPECT_THROW(decode(bytes + '\0'), RecordError) << "one byte more";
  }
}

TEST(Record, WhatANewerVersionWritesIsRefused) {
  struct Row {
    const char* name;
    std::size_t at;
    char value;
  };
  // u8 version, kind, class, zero, 24 bytes of id, u8 flags, decision, mode, inspection.
  for (const Row& row : {Row{"version", 0, 4}, Row{"kind", 1, 4}, Row{"kind 0", 1, 0}, Row{"decision", 29, 3},
                         Row{"mode", 30, 4}, Row{"inspection", 31, 4}}) {
    std::string bytes = encode(full_call());
    bytes[row.at] = row.value;
    EXPECT_THROW(decode(signed_anew(bytes)), RecordError) << row.name;
  }
  // u8 outcome, f64 cost, f64 risk, u8 decision, u8 flags, u8 mode.
  for (const Row& row : {Row{"outcome", 28, 4}, Row{"decision", 45, 3}, Row{"mode", 47, 4}}) {
    std::string bytes = encode(full_outcome());
    bytes[row.at] = row.value;
    EXPECT_THROW(decode(signed_anew(bytes)), RecordError) << row.name;
  }
}

TEST(Record, FactsThatAreNoneAreRefused) {
  CallRecord call;
  call.facts = {{.place = 1, .value = 2}};
  const std::string bytes = encode(call);
  // The end: u8 facts, 17 bytes of the fact, u8 destinations, checksum.
  const std::size_t count = bytes.size() - 8 - 19;
  ASSERT_EQ(bytes[count], 1);
  const auto with = [&](std::size_t at, char value) {
    std::string changed = bytes;
    changed[at] = value;
    return signed_anew(changed);
  };
  EXPECT_NO_THROW(decode(with(count + 1, static_cast<char>(kLastArgumentKind))));
  EXPECT_THROW(decode(with(count + 1, static_cast<char>(kLastArgumentKind) + 1)), RecordError) << "kind";
  EXPECT_THROW(decode(with(count, 2)), RecordError) << "more than there are";
  EXPECT_THROW(decode(with(count + 18, 1)), RecordError) << "a destination that is not there";
  std::string many = bytes.substr(0, count);
  many.append(1, static_cast<char>(ArgumentFacts::kMost + 1))
      .append((ArgumentFacts::kMost + 1) * 17 + 9, '\0');
  EXPECT_THROW(decode(signed_anew(many)), RecordError) << "more than are kept";
  std::string hosts = bytes.substr(0, count);
  hosts.append(1, '\0').append(1, static_cast<char>(kMostDestinations + 1));
  hosts.append((kMostDestinations + 1) * 2 + 8, '\0');
  EXPECT_THROW(decode(signed_anew(hosts)), RecordError) << "more destinations than are kept";
}

TEST(Record, ImpossibleTimesAreRefused) {
  for (const double ts : {1e12, -1e12, 1e300, HUGE_VAL, -HUGE_VAL, std::nan("")})
    EXPECT_THROW(decode(encode(ended({1, 1, ts}))), RecordError) << ts;
}

TEST(Record, LongTextIsCut) {
  CallRecord record;
  record.tool = std::string(70'000, 'x');
  record.previous = std::string(65'535, 'y');
  const auto after = std::get<CallRecord>(decode(encode(record)));
  EXPECT_EQ(after.tool, std::string(65'535, 'x'));
  EXPECT_EQ(after.previous, record.previous);
}

TEST(Record, DamagedBytesAreRefusedOrRead) {
  std::mt19937 random(16);
  const std::vector<Record> records = every_kind();
  Lab lab;
  int refused = 0;
  for (int i = 0; i < 30'000; ++i) {
    std::string bytes = encode(records[random() % records.size()]);
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips)
      bytes[random() % bytes.size()] ^= static_cast<char>(1U << (random() % 8));
    if (random() % 8 == 0) bytes.resize(random() % (bytes.size() + 1));
    if (bytes.size() > 8 && random() % 8 != 0) bytes = signed_anew(bytes);
    try {
      const Record record = decode(bytes);
      EXPECT_EQ(decode(encode(record)).index(), record.index());
    } catch (const RecordError&) {
      ++refused;
    }
    if (i % 10 == 0) feed(lab.engine, bytes);
  }
  EXPECT_GT(refused, 3000);
  EXPECT_GT(lab.engine.counts().unreadable, 300U);
  const double risk = lab.run({}, "query", kMonday).risk;
  EXPECT_TRUE(risk >= 0 && risk <= 1) << risk;
}

}  // namespace
}  // namespace tool_firewall
