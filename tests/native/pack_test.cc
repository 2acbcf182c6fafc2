// SPDX-License-Identifier: Apache-2.0
#include "journal/pack.h"

#include <gtest/gtest.h>

#include <set>

#include "journal/chain.h"
#include "lab.h"

namespace tool_firewall {
namespace {

std::string record_of(std::uint64_t worker, std::uint64_t seq) {
  return encode(ControlRecord{{worker, seq, kMonday}, "mode", "", "", "", "warn", "root", ""});
}

std::vector<std::string> read(std::string_view bytes) {
  std::vector<std::string> records;
  PackReader reader(bytes);
  for (std::string_view record; reader.next(record);) records.emplace_back(record);
  return records;
}

TEST(Pack, GivesBackItsRecords) {
  Pack pack;
  const std::vector<std::string> records = {"one", "", std::string("a\0b", 3), std::string(70'000, 'x')};
  for (const std::string& record : records) pack.add(RecordClass::kFinding, record);
  EXPECT_EQ(pack.count, 4U);
  EXPECT_EQ(pack.worth, RecordClass::kFinding);
  EXPECT_EQ(read(pack.bytes), records);
  EXPECT_TRUE(read("").empty());
}

TEST(Pack, CutShortIsRefused) {
  Pack pack;
  pack.add(RecordClass::kOrdinary, "abc");
  for (std::size_t size = 1; size < pack.bytes.size(); ++size)
    EXPECT_THROW(read(std::string_view(pack.bytes).substr(0, size)), RecordError) << size;
}

TEST(Pack, TakesOneClassAndABoundedNumber) {
  Pack pack;
  EXPECT_TRUE(pack.takes(RecordClass::kControl));
  pack.add(RecordClass::kFinding, "");
  EXPECT_FALSE(pack.takes(RecordClass::kControl));
  while (pack.takes(RecordClass::kFinding)) pack.add(RecordClass::kFinding, "");
  EXPECT_EQ(pack.count, Pack::kMost);
}

TEST(Pack, TheEngineSplitsByClassAndKeepsTheOrder) {
  Lab lab(journaling(7));
  for (int i = 0; i < 600; ++i) lab.run({.user = "u" + std::to_string(i % 100)}, "query", kMonday + i * 700.);
  lab.check({}, "odd", kMonday + 1e6, unreadable(Inspection::kTooDeep));
  lab.engine.note("clock", "61", kMonday + 1e6);
  std::size_t records = 0;
  std::vector<RecordClass> classes;
  for (const Pack& pack : lab.engine.drain(100'000)) {
    EXPECT_LE(pack.count, Pack::kMost);
    EXPECT_EQ(read(pack.bytes).size(), pack.count);
    for (const std::string& record : read(pack.bytes)) EXPECT_EQ(class_of(record), pack.worth);
    records += pack.count;
    classes.push_back(pack.worth);
  }
  EXPECT_EQ(records, 1202U);
  ASSERT_GE(classes.size(), 5U);
  EXPECT_EQ(classes[classes.size() - 2], RecordClass::kFinding);
  EXPECT_EQ(classes.back(), RecordClass::kControl);
}

TEST(Apply, TheSameRecordTwiceCountsOnce) {
  Lab writer(journaling(1)), once, twice;
  const double end = writer.history({}, {"query", "report"}, 2, 10);
  const std::vector<Pack> packs = writer.engine.drain(1000);
  for (const Pack& pack : packs) once.engine.apply(pack.bytes);
  for (int i = 0; i < 2; ++i)
    for (const Pack& pack : packs) twice.engine.apply(pack.bytes);
  EXPECT_EQ(twice.engine.calls(), 20U);
  EXPECT_EQ(twice.engine.counts().repeated, 20U);
  EXPECT_EQ(once.engine.counts().repeated, 0U);
  EXPECT_EQ(twice.check({}, "odd", end + kHour).risk, once.check({}, "odd", end + kHour).risk);
}

TEST(Apply, AnOldChangeOfModeStoredAgainChangesNothing) {
  Lab lab;
  const std::string warn = encode(ControlRecord{{9, 1, kMonday}, "mode", "", "", "", "warn", "root", ""});
  const std::string block = encode(ControlRecord{{9, 2, kMonday}, "mode", "", "", "", "block", "root", ""});
  for (const std::string& record : {warn, block, warn}) feed(lab.engine, record);
  EXPECT_EQ(lab.engine.mode_in_force({}, "acme", "query", "alice", kMonday), Mode::kBlock);
}

TEST(Apply, RemembersABoundedNumberOfWorkers) {
  Lab lab;
  for (std::uint64_t worker = 1; worker <= Engine::kMostWorkers + 10; ++worker)
    EXPECT_TRUE(feed(lab.engine, record_of(worker, 5)));
  EXPECT_TRUE(feed(lab.engine, record_of(1, 5))) << "forgotten: the longest quiet";
  EXPECT_FALSE(feed(lab.engine, record_of(Engine::kMostWorkers, 5)));
}

TEST(Apply, ADamagedRecordCostsOnlyItself) {
  Lab lab;
  Pack pack;
  for (std::uint64_t seq = 1; seq <= 5; ++seq) pack.add(RecordClass::kControl, record_of(3, seq));
  pack.bytes[pack.bytes.size() / 2] ^= 1;
  EXPECT_EQ(lab.engine.apply(pack.bytes), 4U);
  EXPECT_EQ(lab.engine.counts().unreadable, 1U);
}

TEST(Apply, TheDigestTellsWhetherTwoReadTheSame) {
  Lab writer(journaling(1)), own(journaling(1)), a, b, c;
  EXPECT_EQ(a.engine.read_digest(), b.engine.read_digest());
  writer.history({}, {"query"}, 1, 20);
  std::vector<Pack> packs = writer.engine.drain(7);
  for (const Pack& pack : writer.engine.drain(1000)) packs.push_back(pack);
  ASSERT_GT(packs.size(), 1U);
  for (const Pack& pack : packs)
    for (Lab* lab : {&a, &b, &own}) lab->engine.apply(pack.bytes);
  EXPECT_EQ(a.engine.read_digest(), b.engine.read_digest());
  EXPECT_EQ(a.engine.read_digest(), own.engine.read_digest()) << "skipping its own does not matter";
  for (std::size_t i = 1; i < packs.size(); ++i) c.engine.apply(packs[i].bytes);
  EXPECT_NE(a.engine.read_digest(), c.engine.read_digest());
  c.engine.forget_digest();
  c.engine.apply(packs[0].bytes);
  EXPECT_EQ(c.engine.read_digest(), 0U);
}

TEST(Chain, DependsOnEverythingBefore) {
  const Chain chain(kKey);
  Pack pack;
  for (std::uint64_t seq = 1; seq <= 3; ++seq) pack.add(RecordClass::kControl, record_of(3, seq));
  const std::string digests = chain.link({}, 1, pack.bytes);
  ASSERT_EQ(digests.size(), 3 * Chain::kDigestBytes);
  std::array<unsigned char, 32> other_key = kKey;
  other_key[0] ^= 1;
  Chain::Digest after{};
  after[0] = 1;
  std::string changed = pack.bytes;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  std::set<std::string> last;
  for (const std::string& all : {digests, chain.link({}, 2, pack.bytes), chain.link(after, 1, pack.bytes),
                                 chain.link({}, 1, changed), Chain(other_key).link({}, 1, pack.bytes)})
    last.insert(all.substr(2 * Chain::kDigestBytes));
  EXPECT_EQ(last.size(), 5U);
  EXPECT_EQ(chain.link({}, 1, changed).substr(0, 32), digests.substr(0, 32)) << "up to the changed record";
}

TEST(Chain, NeedsAWholeKeyAndAWholePack) {
  EXPECT_THROW(Chain(std::span(kKey).first(31)), std::invalid_argument);
  EXPECT_THROW(Chain(kKey).link({}, 1, "abc"), RecordError);
}

}  // namespace
}  // namespace tool_firewall
