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

CallRecord full_call() {
  return {.id = {0x1122334455667788, 42, kMonday + .25},
          .blocked = true,
          .decision = Decision::kDeny,
          .mode = Mode::kBlock,
          .inspection = Inspection::kTooDeep,
          .risk = .6180339887498949,
          .arguments = 0xfedcba9876543210,
          .incident = 0xabcdef,
          .tenant = "acme",
          .user = "Zo\xc3\xab@example.com",
          .agent = "agent \"7\"",
          .group = "",
          .session = std::string("a\0b", 3),
          .token = "t",
          .server = "upstream",
          .tool = "\xed\xa0\x80 lone",
          .previous = "query",
          .reasons = {{3, .001F, {12.5, 3, {1, 2, 3, 4}}}, {0, 1, {0, 0, {}}}}};
}

std::vector<Record> every_kind() {
  CallRecord bare;
  bare.id = {1, 1, kMonday};
  return {
      full_call(), bare, OutcomeRecord{{5, 6, kMonday}, Outcome::kTimeout},
      ControlRecord{{9, 1, kMonday}, "mode", "acme", "query", "alice", "block", "root", "an \"odd\" reason"}};
}

TEST(Record, ACallComesBackWhole) {
  const CallRecord before = full_call();
  const auto after = std::get<CallRecord>(decode(encode(before)));
  EXPECT_EQ(after.id.worker, before.id.worker);
  EXPECT_EQ(after.id.seq, before.id.seq);
  EXPECT_EQ(after.id.ts, before.id.ts);
  EXPECT_EQ(after.blocked, before.blocked);
  EXPECT_EQ(after.decision, before.decision);
  EXPECT_EQ(after.mode, before.mode);
  EXPECT_EQ(after.inspection, before.inspection);
  EXPECT_EQ(after.risk, before.risk);
  EXPECT_EQ(after.arguments, before.arguments);
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
  ASSERT_EQ(after.reasons.size(), 2U);
  EXPECT_EQ(after.reasons[0].signal, 3);
  EXPECT_EQ(after.reasons[0].p, .001F);
  EXPECT_EQ(after.reasons[0].numbers.value, 12.5);
  EXPECT_EQ(after.reasons[0].numbers.baseline, 3);
  EXPECT_EQ(after.reasons[0].numbers.detail, (std::array<float, 4>{1, 2, 3, 4}));
}

TEST(Record, OutcomesAndControlsComeBackWhole) {
  for (const Outcome outcome :
       {Outcome::kOk, Outcome::kToolError, Outcome::kTimeout, Outcome::kUnreachable}) {
    const auto after = std::get<OutcomeRecord>(decode(encode(OutcomeRecord{{5, 6, kMonday}, outcome})));
    EXPECT_EQ(after.outcome, outcome);
    EXPECT_EQ(after.id.worker, 5U);
    EXPECT_EQ(after.id.seq, 6U);
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

// What the release before this one wrote.
std::string version_one(std::string_view kind_and_id, std::string_view fields) {
  return std::string("\1") + std::string(kind_and_id) + std::string(fields);
}

constexpr std::string_view kOutcomeId("\2\1\2\3\4\5\6\7\10\2\1\0\0\0\0\0\0\0\0\0\0\0\0\0\100", 25);

TEST(Record, TheBytesAreThoseOfVersionTwo) {
  const std::string bytes = encode(OutcomeRecord{{0x0807060504030201, 258, 2}, Outcome::kUnreachable});
  const unsigned char expected[] = {2, 2, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 2,    1, 0,
                                    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 3};
  EXPECT_EQ(bytes.substr(0, sizeof expected),
            std::string(reinterpret_cast<const char*>(expected), sizeof expected));
  EXPECT_EQ(bytes.size(), sizeof expected + 8) << "then the checksum";
  const std::string control = encode(ControlRecord{{0, 0, 0}, "mode", "", "", "", "", "", ""});
  EXPECT_EQ(control.substr(28, 18), std::string("\4\0mode\0\0\0\0\0\0\0\0\0\0\0\0", 18));
}

TEST(Record, VersionOneIsStillRead) {
  const std::string outcome = version_one(kOutcomeId, std::string_view("\3", 1));
  const auto record = std::get<OutcomeRecord>(decode(outcome));
  EXPECT_EQ(record.id.worker, 0x0807060504030201U);
  EXPECT_EQ(record.id.seq, 258U);
  EXPECT_EQ(record.id.ts, 2);
  EXPECT_EQ(record.outcome, Outcome::kUnreachable);
  EXPECT_EQ(worker_of(outcome), 0x0807060504030201U);
  EXPECT_EQ(class_of(outcome), RecordClass::kOrdinary);
  std::string control(kOutcomeId);
  control.front() = 3;
  control = version_one(control, std::string_view("\4\0mode\0\0\0\0\0\0\5\0block\0\0\0\0", 23));
  EXPECT_EQ(std::get<ControlRecord>(decode(control)).value, "block");
  EXPECT_EQ(class_of(control), RecordClass::kControl);
}

TEST(Record, OfAnotherVersionIsRefused) {
  std::string bytes = encode(OutcomeRecord{{1, 2, 3}, Outcome::kOk});
  bytes[0] = 3;
  EXPECT_THROW(decode(bytes), RecordError);
  EXPECT_THROW(worker_of(bytes), RecordError);
  EXPECT_THROW(class_of(bytes), RecordError);
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
  // u8 version, kind, class, zero, 24 bytes of id, u8 blocked, decision, mode, inspection.
  for (const Row& row : {Row{"version", 0, 3}, Row{"kind", 1, 4}, Row{"kind 0", 1, 0}, Row{"decision", 29, 3},
                         Row{"mode", 30, 4}, Row{"inspection", 31, 4}}) {
    std::string bytes = encode(full_call());
    bytes[row.at] = row.value;
    EXPECT_THROW(decode(signed_anew(bytes)), RecordError) << row.name;
  }
  std::string outcome = encode(every_kind()[2]);
  outcome[28] = 4;
  EXPECT_THROW(decode(signed_anew(outcome)), RecordError);
}

TEST(Record, ImpossibleTimesAreRefused) {
  for (const double ts : {1e12, -1e12, 1e300, HUGE_VAL, -HUGE_VAL, std::nan("")})
    EXPECT_THROW(decode(encode(OutcomeRecord{{1, 1, ts}, Outcome::kOk})), RecordError) << ts;
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
