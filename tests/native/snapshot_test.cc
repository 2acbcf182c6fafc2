// SPDX-License-Identifier: Apache-2.0
// Snapshots: a restored engine is the engine; whatever is not a whole snapshot of this key is refused.
//
// TOOL_FIREWALL_GOLDEN=write makes tests/native/data/snapshot-FORMAT.bin anew: once for each format, when it
// is introduced, and never for an older one.
#include "journal/snapshot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/report.h"
#include "lab.h"

namespace tool_firewall {
namespace {

using testing::HasSubstr;

// Records of invented traffic, as three workers would write them: several tenants and groups, sessions, calls
// that stay open, loops and rare tools, arguments and costs, failures, blocked calls, mode changes, snoozes,
// now and then a clock that is wrong.
class Traffic {
 public:
  explicit Traffic(unsigned seed) : random_(seed), more_(seed + 1000) {}

  std::vector<std::string> next(int calls) {
    std::vector<std::string> records;
    for (int i = 0; i < calls; ++i) {
      now_ += pick(40) == 0 ? 1800. * (1 + pick(30)) : pick(8) == 0 ? 70. : .5;
      call(records);
      if (pick(300) == 0) mode(records);
      if (more(250) == 0) snooze(records);
    }
    return records;
  }

  double now() const { return now_; }

 private:
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
  // What format 1 had no place for draws from its own numbers, so that the calls stay those of its file.
  unsigned more(unsigned below) { return static_cast<unsigned>(more_() % below); }

  void call(std::vector<std::string>& records) {
    // A few are busy, as ever; sometimes somebody does nothing else for a while.
    if (pick(30) == 0) who_ = pick(pick(3) == 0 ? 60 : 6);
    if (pick(3) == 0) who_ = pick(pick(4) == 0 ? 60 : 6);
    const unsigned worker = 11 + pick(3);
    CallRecord record;
    record.id = {worker, ++seq_[worker], now_ + (pick(900) == 0 ? 30 * kDay : 0)};
    record.tenant = "t" + std::to_string(who_ % 3);
    record.user = "u" + std::to_string(who_);
    record.group = who_ % 4 == 0 ? "" : "g" + std::to_string(who_ % 5);
    record.session = "s" + std::to_string(pick(3));
    record.server = "up";
    record.tool = "tool" + std::to_string((who_ + pick(pick(5) == 0 ? 80 : 4)) % 90);
    record.blocked = pick(60) == 0;
    record.agent = "agent" + std::to_string(more(20) == 0 ? more(5) : 0);
    record.token = "token" + std::to_string(more(4));
    record.arguments = more(6);
    for (unsigned facts = more(4); facts > 0; --facts)
      record.facts.push_back({.place = facts,
                              .value = more(more(20) == 0 ? 1000 : 4),
                              .kind = static_cast<ArgumentKind>(more(7)),
                              .second = false});
    records.push_back(encode(record));
    if (!record.blocked && pick(4) != 0) ends_.push_back(record.id);
    while (!ends_.empty() && pick(3) != 0) {
      const std::size_t which = pick(static_cast<unsigned>(ends_.size()));
      OutcomeRecord end = ended(ends_[which], more(9) == 0 ? Outcome::kToolError : Outcome::kOk);
      if (more(5) != 0) end.cost = (1 + more(10)) * (more(50) == 0 ? 5. : .01);
      records.push_back(encode(end));
      ends_.erase(ends_.begin() + static_cast<std::ptrdiff_t>(which));
    }
  }

  void mode(std::vector<std::string>& records) {
    ControlRecord record;
    record.id = {99, ++seq_[99], now_};
    record.action = "mode";
    record.tenant = pick(2) == 0 ? "" : "t" + std::to_string(pick(3));
    record.user = pick(2) == 0 ? "" : "u" + std::to_string(pick(5));
    record.value = std::vector<std::string>{"warn", "block", "shadow", ""}[pick(4)];
    record.by = "admin";
    record.why = "a test";
    records.push_back(encode(record));
  }

  void snooze(std::vector<std::string>& records) {
    ControlRecord record;
    record.id = {98, ++seq_[98], now_};
    record.action = "snooze";
    record.tenant = "t" + std::to_string(more(3));
    record.tool = more(2) == 0 ? "" : "tool" + std::to_string(more(4));
    record.value = more(4) == 0 ? "" : std::to_string(now_ + more(3) * kDay);
    record.by = "admin";
    record.why = "a load test";
    records.push_back(encode(record));
  }

  std::mt19937 random_, more_;
  double now_ = kMonday + 9 * kHour;
  unsigned who_ = 0;
  std::map<std::uint64_t, std::uint64_t> seq_;
  std::vector<RecordId> ends_;
};

EngineSettings small(double half_life = kDay) {
  EngineSettings settings;
  settings.model.users_per_tenant = 7;  // so that some are evicted
  settings.model.half_life = half_life;
  settings.zones["Asia/Tokyo"] = Zone{"Asia/Tokyo", {{0, 9 * 3600}}};
  settings.tenant_zones["t1"] = "Asia/Tokyo";
  return settings;
}

void feed_all(Engine& engine, const std::vector<std::string>& records) {
  for (const std::string& record : records) feed(engine, record);
}

// Risks and everything behind them, of calls nobody made before.
std::vector<double> opinions(Engine& engine, double now) {
  std::vector<double> out;
  for (int i = 0; i < 90; ++i) {
    auto caller = std::make_shared<Caller>();
    caller->user = "u" + std::to_string(i % 60);
    caller->tenant = "t" + std::to_string(i % 60 % 3);
    caller->group = i % 60 % 4 == 0 ? "" : "g" + std::to_string(i % 60 % 5);
    caller->session = "s" + std::to_string(i % 3);
    const Verdict verdict =
        engine.check({}, caller, "up", "tool" + std::to_string(i * 7 % 95), {}, now + i * .25);
    out.push_back(verdict.risk);
    out.push_back(static_cast<double>(verdict.mode));
    for (const Reason& reason : verdict.reasons) {
      out.push_back(reason.signal);
      out.push_back(reason.p);
      out.push_back(reason.numbers.value);
      out.push_back(reason.numbers.baseline);
    }
    if (i % 3 == 0) engine.observe(verdict.ticket, Outcome::kOk, kNoCost, now + i * .25);
  }
  return out;
}

// With a checksum that is right again, as a faulty release would have made it.
std::string sealed(std::string bytes) {
  bytes.resize(bytes.size() - Seal::kSumBytes);
  const std::uint64_t size = bytes.size() + Seal::kSumBytes;
  std::memcpy(bytes.data() + 16, &size, sizeof size);
  const Seal::Sum sum = Seal(kKey).of(bytes);
  return bytes.append(sum.data(), sum.size());
}

std::string refusal(std::string_view bytes, std::span<const unsigned char> key = kKey,
                    const EngineSettings& settings = small()) {
  Engine engine(settings, key);
  try {
    restore_snapshot(engine, bytes);
  } catch (const SnapshotError& error) {
    EXPECT_EQ(engine.calls(), 0U);
    EXPECT_TRUE(engine.tools().empty());
    EXPECT_TRUE(engine.model().principals().tenants().empty());
    EXPECT_EQ(engine.in_flight().size(), 0U);
    EXPECT_TRUE(engine.modes().all().empty());
    EXPECT_TRUE(engine.snoozes().all().empty());
    return error.what();
  }
  return "";
}

std::string some_snapshot(int calls = 3000, unsigned seed = 5) {
  Lab lab(small());
  feed_all(lab.engine, Traffic(seed).next(calls));
  return take_snapshot(lab.engine, "label");
}

// What must have been met, or the comparison below compares less than it claims.
struct Met {
  std::size_t running = 0, gone = 0, held = 0, waiting = 0, sessions = 0, evicted = 0, modes = 0, moved = 0,
              crowded = 0, snoozes = 0, listed = 0, arguments = 0, shares = 0;

  void look(const Engine& engine) {
    running += engine.in_flight().size();
    engine.in_flight().each([&](const InFlight::Call& call) { gone += call.scored.user->evicted ? 1 : 0; });
    engine.in_flight().each([&](const InFlight::Call& call) { arguments += call.scored.arguments.size(); });
    modes += engine.modes().all().size();
    snoozes += engine.snoozes().all().size();
    evicted += engine.model().principals().evicted();
    crowded += engine.model().principals().evicted_for_memory();
    moved += engine.clock().state().ahead;
    for (const auto& [name, tenant] : engine.model().principals().tenants()) {
      waiting += tenant->peers.calibrators.waiting();
      shares += tenant->peers.shares.bytes();
      for (const auto& [user, principal] : tenant->principals) {
        held += principal->held.size();
        for (const HeldItem& item : principal->held) listed += item.state == HeldItem::State::kListed ? 1 : 0;
        sessions += principal->sessions.size();
      }
    }
  }
  bool everything() const {
    return running > 0 && gone > 0 && held > 0 && waiting > 0 && sessions > 0 && evicted > 0 && modes > 0 &&
           moved > 0 && crowded > 0 && snoozes > 0 && listed > 0 && arguments > 0 && shares > 0;
  }
};

constexpr std::uint32_t kSections = 10;

// Where the section `wanted` begins (its name), for tests that change one.
std::size_t begin_of(const std::string& bytes, std::uint32_t wanted) {
  std::uint32_t label = 0;
  std::memcpy(&label, bytes.data() + 40, sizeof label);
  std::size_t at = 44 + label;
  while (true) {
    std::uint32_t name = 0;
    std::uint64_t length = 0;
    std::memcpy(&name, bytes.data() + at, sizeof name);
    std::memcpy(&length, bytes.data() + at + 4, sizeof length);
    if (name == wanted) return at;
    at += 12 + length;
  }
}

// Where two snapshots begin to differ, "" when they do not.
std::string difference(const std::string& one, const std::string& other) {
  if (one == other) return "";
  const auto begin = one.begin() + static_cast<std::ptrdiff_t>(begin_of(one, 1));
  const auto at = static_cast<std::size_t>(
      std::mismatch(begin, one.end(), other.begin() + (begin - one.begin()), other.end()).first -
      one.begin());
  std::uint32_t section = kSections;
  while (section > 1 && begin_of(one, section) > at) --section;
  return "section " + std::to_string(section) + ", byte " + std::to_string(at - begin_of(one, section));
}

TEST(Snapshot, TheRestoredEngineIsTheSame) {
  Met met;
  for (const unsigned seed : {1U, 2U, 3U, 5U, 6U}) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    EngineSettings settings = small(seed % 2 == 0 ? kDay : kDay / 20);  // the latter crosses landmarks
    if (seed > 4) settings.model.memory = std::size_t{1} << (12 + seed);
    Traffic traffic(seed);
    std::vector<std::string> history;
    for (int part = 0; part < 4; ++part) {
      Lab whole(settings);
      Lab restored(settings);
      const std::vector<std::string> records = traffic.next(200 + static_cast<int>(random() % 1200));
      history.insert(history.end(), records.begin(), records.end());
      feed_all(whole.engine, history);
      met.look(whole.engine);
      const std::string saved = take_snapshot(whole.engine, "a label");
      ASSERT_EQ(restore_snapshot(restored.engine, saved), "a label");
      const std::string again = take_snapshot(restored.engine, "a label");
      ASSERT_EQ(difference(again, saved), "");
      const std::vector<std::string> more = traffic.next(static_cast<int>(random() % 1200));
      history.insert(history.end(), more.begin(), more.end());
      feed_all(whole.engine, more);
      feed_all(restored.engine, more);
      ASSERT_EQ(restored.engine.read_digest(), whole.engine.read_digest());
      ASSERT_EQ(difference(take_snapshot(restored.engine, "x"), take_snapshot(whole.engine, "x")), "");
      ASSERT_EQ(opinions(restored.engine, traffic.now()), opinions(whole.engine, traffic.now()));
    }
  }
  EXPECT_TRUE(met.everything()) << met.running << ' ' << met.gone << ' ' << met.held << ' ' << met.waiting
                                << ' ' << met.sessions << ' ' << met.evicted << ' ' << met.modes << ' '
                                << met.moved << " " << met.crowded << ' ' << met.snoozes << ' ' << met.listed
                                << ' ' << met.arguments << ' ' << met.shares;
}

// At the bound of memory a table takes no more; if its copy did, the two would forget different things.
TEST(Snapshot, ATableThatStoppedGrowingStaysThatWay) {
  CountTable table(6000);
  for (std::uint64_t key = 1; key < 400; ++key) table.add(key * 0x9E3779B97F4A7C15ULL, 1);
  table.stop_growing();
  StateWriter out;
  table.write(out);
  CountTable copy(6000);
  StateReader in(out.bytes(), kSnapshotFormat);
  copy.read(in);
  for (std::uint64_t key = 400; key < 2000; ++key) {
    table.add(key * 0x9E3779B97F4A7C15ULL, 1);
    copy.add(key * 0x9E3779B97F4A7C15ULL, 1);
  }
  EXPECT_GT(table.evicted(), 0U);
  EXPECT_EQ(copy.bytes(), table.bytes());
  EXPECT_EQ(copy.size(), table.size());
}

TEST(Snapshot, OneJournalReadTwiceGivesTheSameBytes) {
  const std::vector<std::string> records = Traffic(8).next(3000);
  Lab once(small());
  Lab again(small());
  feed_all(once.engine, records);
  feed_all(again.engine, records);
  EXPECT_EQ(take_snapshot(once.engine, "x"), take_snapshot(again.engine, "x"));
}

// A worker's own calls are in its snapshot, and whoever restores it reads them once more from the journal.
TEST(Snapshot, CallsOfTheWriterAreForeignToTheReader) {
  EngineSettings writing = journaling(7);
  Lab writer(writing);
  writer.history({}, {"login", "query"}, 5, 6);
  const Verdict open = writer.check({}, "export", kMonday + 6 * kDay);
  const std::string saved = take_snapshot(writer.engine, "");
  const std::vector<std::string> before = writer.journal();
  writer.engine.observe(open.ticket, Outcome::kOk, kNoCost, kMonday + 6 * kDay + 1);
  const std::vector<std::string> after = writer.journal();

  Lab reader(journaling(8));
  restore_snapshot(reader.engine, saved);
  EXPECT_EQ(reader.engine.in_flight().size(), 1U);
  feed_all(reader.engine, before);
  EXPECT_EQ(reader.engine.calls(), writer.engine.calls());
  feed_all(reader.engine, after);
  EXPECT_EQ(reader.engine.in_flight().size(), 0U);
  const double later = kMonday + 7 * kDay;
  EXPECT_EQ(reader.check({}, "export", later).risk, writer.check({}, "export", later).risk);
}

TEST(Snapshot, AWorkerGoesOnCountingItsRecords) {
  Lab first(journaling(7));
  first.history({}, {"login", "query"}, 1, 6);
  Lab second(journaling(7));
  restore_snapshot(second.engine, take_snapshot(first.engine, ""));
  second.run({}, "query", kMonday + 2 * kDay);
  Lab other(journaling(8));
  feed_all(other.engine, first.journal());
  feed_all(other.engine, second.journal());
  EXPECT_EQ(other.engine.calls(), 7U);
  EXPECT_EQ(other.engine.counts().repeated, 0U);
}

TEST(Snapshot, ModesTotalsAndBaselinesAreThere) {
  Lab lab(small());
  lab.history({}, {"login", "query", "export"}, 20, 9);
  ControlRecord record;
  record.id = {3, 1, kMonday};
  record.action = "mode";
  record.value = "block";
  record.by = "admin";
  record.why = "calm";
  feed(lab.engine, encode(record));
  Lab restored(small());
  restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
  ASSERT_EQ(restored.engine.modes().all().size(), 1U);
  EXPECT_EQ(restored.engine.modes().all()[0].by, "admin");
  EXPECT_EQ(restored.engine.modes().all()[0].why, "calm");
  EXPECT_EQ(restored.engine.modes().all()[0].since, kMonday);
  EXPECT_EQ(restored.engine.calls(), lab.engine.calls());
  EXPECT_EQ(restored.engine.first_call(), lab.engine.first_call());
  EXPECT_EQ(restored.engine.last_call(), lab.engine.last_call());
  EXPECT_EQ(restored.engine.counts().applied_verdicts, lab.engine.counts().verdicts);
  const auto now = baseline_of(restored.engine, "acme", "alice@example.com");
  const auto before = baseline_of(lab.engine, "acme", "alice@example.com");
  ASSERT_TRUE(now && before);
  EXPECT_EQ(now->calls, before->calls);
  ASSERT_EQ(now->tools.size(), before->tools.size());
  for (std::size_t i = 0; i < now->tools.size(); ++i) EXPECT_EQ(now->tools[i].count, before->tools[i].count);
  EXPECT_EQ(now->hours, before->hours);
}

TEST(Snapshot, AnEmptyEngineCanBeSavedToo) {
  Lab lab;
  Lab restored;
  EXPECT_EQ(restore_snapshot(restored.engine, take_snapshot(lab.engine, "nothing yet")), "nothing yet");
  EXPECT_EQ(restored.engine.read_digest(), lab.engine.read_digest());
}

TEST(Snapshot, LabelsAreReadWithoutTheKey) {
  Lab lab;
  EXPECT_EQ(snapshot_label(take_snapshot(lab.engine, "journal:17 \xc3\xa4")), "journal:17 \xc3\xa4");
  EXPECT_EQ(snapshot_label(take_snapshot(lab.engine, "")), "");
  EXPECT_THROW(take_snapshot(lab.engine, std::string(kLongestLabel + 1, 'x')), std::invalid_argument);
  EXPECT_THROW(snapshot_label(""), SnapshotError);
  EXPECT_THROW(snapshot_label(std::string(100, '\0')), SnapshotError);
}

TEST(Snapshot, OnlyAFreshEngineTakesOne) {
  const std::string saved = some_snapshot(100);
  Lab lab(small());
  lab.run({}, "query", kMonday);
  EXPECT_THROW(restore_snapshot(lab.engine, saved), std::invalid_argument);
  EXPECT_EQ(lab.engine.calls(), 1U);
}

// Settings.

TEST(Snapshot, AnotherHalfLifeKeepsWhatCountsAreWorth) {
  for (const double half_life : {3 * kDay, 14 * kDay, 90 * kDay}) {
    Lab lab(small(14 * kDay));
    const double now = lab.history({}, {"login", "query", "export"}, 20, 9);
    Lab restored(small(half_life));
    restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
    const Tool* login = lab.engine.tools()[0];
    const auto count = [&](Lab& one, double at) {
      Principal& user = *one.engine.model().principals().find("acme", "alice@example.com");
      const double weight = one.engine.model().weight_for(user, at);
      return user.counts.get(login->cell) / weight;
    };
    const double before = count(lab, now);
    EXPECT_GT(before, 10);
    EXPECT_NEAR(count(restored, now), before, before * 1e-4) << half_life;
    EXPECT_NEAR(restored.run({}, "login", now + 60).risk, lab.run({}, "login", now + 60).risk, 1e-3);
    EXPECT_NEAR(count(restored, now + half_life), (before + 1) / 2, .01) << half_life;
  }
}

TEST(Snapshot, ZonesAreThoseOfTheSettings) {
  EngineSettings settings = small();
  Lab lab(settings);
  lab.run({.tenant = "t1"}, "query", kMonday);
  settings.tenant_zones.clear();
  Lab restored(settings);
  restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
  const auto zone = [](Lab& one) {
    return one.engine.model().principals().find("t1", "alice@example.com")->zone->name;
  };
  EXPECT_EQ(zone(lab), "Asia/Tokyo");
  EXPECT_EQ(zone(restored), "UTC");
}

TEST(Snapshot, FewerUsersThanBeforeKeepTheNewest) {
  EngineSettings settings = small();
  Lab lab(settings);
  for (int i = 0; i < 7; ++i) lab.run({.user = "u" + std::to_string(i)}, "query", kMonday + i);
  settings.model.users_per_tenant = 4;
  Lab restored(settings);
  restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
  EXPECT_EQ(restored.engine.model().principals().size(), 4U);
  EXPECT_NE(restored.engine.model().principals().find("acme", "u6"), nullptr);
  EXPECT_EQ(restored.engine.model().principals().find("acme", "u0"), nullptr);
}

TEST(Snapshot, ABurstSurvivesAnotherThreshold) {
  for (const std::uint32_t threshold : {5U, 12U, 30U}) {
    EngineSettings settings = small();
    settings.model.signals.burst_threshold = 12;
    Lab lab(settings);
    double now = kMonday;
    for (int i = 0; i < 2000; ++i) lab.run({}, "query", now += i % 50 == 0 ? 900 : 1.5);
    settings.model.signals.burst_threshold = threshold;
    Lab restored(settings);
    restore_snapshot(restored.engine, take_snapshot(lab.engine, ""));
    EXPECT_EQ(restored.fact({}, "record_60s", now), lab.fact({}, "record_60s", now));
    EXPECT_GT(restored.fact({}, "record_60s", now), 10);
    // The ring goes on in order: the window of the new threshold is judged on the latest calls.
    Lab other(settings);
    now = kMonday;
    for (int i = 0; i < 2000; ++i) other.run({}, "query", now += i % 50 == 0 ? 900 : 1.5);
    if (threshold > 12) continue;  // calls before the ring began are not known
    const auto insists = [&](Lab& one) {
      const Verdict verdict = one.check({}, "query", now + 1);
      const Reason* reason = reason_of(verdict, "burst");
      return reason == nullptr ? 0. : static_cast<double>(reason->numbers.baseline);
    };
    EXPECT_EQ(insists(restored), insists(other)) << threshold;
  }
}

// Other signals, other channels.

// The same snapshot by a release in which `from` was called `to`: to this one, a signal or channel that is
// gone, and one that came.
std::string renamed(std::string bytes, const std::string& from, const std::string& to) {
  const std::size_t at = bytes.find(from, begin_of(bytes, 1));
  return sealed(bytes.replace(at, from.size(), to));
}

TEST(Snapshot, ASignalTheSnapshotDoesNotKnowStartsEmpty) {
  Lab lab;
  const double now = lab.history({}, {"login", "query"}, 20, 9);
  for (int i = 0; i < 40; ++i) lab.run({}, "query", now + 3600 + i);
  lab.run({}, "query", now + 7200);
  const std::string saved = take_snapshot(lab.engine, "");
  Lab restored;
  restore_snapshot(restored.engine, renamed(saved, "burst", "surge"));
  EXPECT_GT(lab.fact({}, "record_60s", now), 3);
  EXPECT_EQ(restored.fact({}, "record_60s", now), 3);
  for (const char* other : {"usual_60s", "recent_calls"})
    EXPECT_EQ(restored.fact({}, other, now), lab.fact({}, other, now)) << other;
}

TEST(Snapshot, AStateOfAnotherSizeStartsEmpty) {
  Lab lab;
  const double now = lab.history({}, {"login", "query"}, 20, 9);
  std::string saved = take_snapshot(lab.engine, "");
  // novelty's user state: 8 bytes fewer, taken out of the one user there is.
  const std::size_t size_at = saved.find("novelty", begin_of(saved, 1)) + 7;
  std::uint32_t size = 0;
  std::memcpy(&size, saved.data() + size_at, sizeof size);
  Lab probe;
  restore_snapshot(probe.engine, saved);
  const auto& caller = lab.caller({});
  const std::span<const std::byte> state = lab.engine.model().signals()[0]->bytes_in(*caller->principal);
  ASSERT_EQ(state.size(), size);
  const std::size_t principals = begin_of(saved, 5);
  const std::size_t at =
      saved.find(std::string(reinterpret_cast<const char*>(state.data()), state.size()), principals);
  ASSERT_NE(at, std::string::npos);
  size -= 8;
  std::memcpy(saved.data() + size_at, &size, sizeof size);
  std::uint64_t length = 0;
  std::memcpy(&length, saved.data() + principals + 4, sizeof length);
  length -= 8;
  std::memcpy(saved.data() + principals + 4, &length, sizeof length);
  saved.erase(at, 8);

  Lab restored;
  restore_snapshot(restored.engine, sealed(saved));
  EXPECT_GT(lab.fact({}, "recent_calls", now), 0);
  EXPECT_EQ(restored.fact({}, "recent_calls", now), 0);
  EXPECT_EQ(restored.fact({}, "usual_60s", now), lab.fact({}, "usual_60s", now));
}

TEST(Snapshot, AChannelTheSnapshotDoesNotKnowStartsEmpty) {
  Lab lab;
  lab.history({}, {"login", "query"}, 20, 9);
  const std::string saved = take_snapshot(lab.engine, "");
  Lab restored;
  restore_snapshot(restored.engine, renamed(saved, "skip", "jump"));
  const auto samples = [](Lab& one) {
    std::vector<float> out;
    const Calibrators& all = one.engine.model().principals().tenants().at("acme")->peers.calibrators;
    for (std::size_t i = 0; i < 6; ++i) out.push_back(all.of(i).samples());
    return out;
  };
  std::vector<float> expected = samples(lab);
  expected[2] = 0;  // novelty, transition, skip, ...
  EXPECT_EQ(samples(restored), expected);
}

// Refusals.

TEST(Snapshot, AnotherKeyIsRefused) {
  auto other = kKey;
  other[0] ^= 1;
  EXPECT_EQ(refusal(some_snapshot(100), other), "written with another key");
}

TEST(Snapshot, AnotherFormatIsRefused) {
  std::string saved = some_snapshot(100);
  saved[12] = static_cast<char>(kSnapshotFormat + 1);
  EXPECT_THAT(refusal(sealed(saved)), HasSubstr("newer release"));
  EXPECT_THAT(refusal(saved), HasSubstr("newer release"));
  saved[12] = static_cast<char>(kOldestSnapshotFormat - 1);
  EXPECT_THAT(refusal(sealed(saved)), HasSubstr("too old"));
}

TEST(Snapshot, AnotherByteOrderIsRefused) {
  std::string saved = some_snapshot(100);
  std::reverse(saved.begin() + 8, saved.begin() + 12);
  EXPECT_THAT(refusal(sealed(saved)), HasSubstr("byte order"));
}

// A checksum anybody can make would let a baseline be planted.
TEST(Snapshot, AChecksumWithoutTheKeyIsRefused) {
  std::string saved = some_snapshot(100);
  saved[saved.size() / 2] = static_cast<char>(saved[saved.size() / 2] ^ 1);
  auto other = kKey;
  other[5] ^= 1;
  saved.resize(saved.size() - Seal::kSumBytes);
  const Seal::Sum sum = Seal(other).of(saved);
  saved.append(sum.data(), sum.size());
  EXPECT_THAT(refusal(saved), HasSubstr("checksum"));
}

TEST(Snapshot, EveryFlippedBitIsRefused) {
  std::string saved = some_snapshot(300);
  std::mt19937_64 random(11);
  for (int i = 0; i < 1200; ++i) {
    // The header, the end and the rest, a third each.
    const std::size_t at = i % 3 == 0   ? random() % 64
                           : i % 3 == 1 ? saved.size() - 1 - random() % 64
                                        : random() % saved.size();
    const auto bit = static_cast<char>(1U << (random() % 8));
    saved[at] = static_cast<char>(saved[at] ^ bit);
    ASSERT_NE(refusal(saved), "") << "byte " << at;
    saved[at] = static_cast<char>(saved[at] ^ bit);
  }
  EXPECT_EQ(refusal(saved), "");
}

TEST(Snapshot, WhatIsCutShortOrTooLongIsRefused) {
  const std::string saved = some_snapshot(300);
  for (std::size_t part = 0; part < 200; ++part)
    ASSERT_NE(refusal(saved.substr(0, saved.size() * part / 200)), "") << part;
  for (std::size_t size = 0; size < 100; ++size) ASSERT_NE(refusal(saved.substr(0, size)), "") << size;
  ASSERT_NE(refusal(saved + "x"), "");
  ASSERT_NE(refusal(saved + saved), "");
}

// What a faulty release might write: a right checksum over wrong content. Whatever is taken, the engine must
// live. TOOL_FIREWALL_FUZZ: how many rounds.

// Changes one place in the section that begins at `section`, and its length with it.
void spoil(std::string& bytes, std::size_t section, std::mt19937_64& random) {
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data() + section + 4, sizeof length);
  std::string content = bytes.substr(section + 12, length);
  if (content.empty()) return;
  // Odd values are put where such a value may be; at any place they mostly spoil a count in a table.
  const std::size_t at =
      random() % 2 == 0 ? random() % content.size() : random() % std::min<std::size_t>(content.size(), 400);
  const auto put = [&](const auto& choices) {
    const auto value = choices[random() % choices.size()];
    if (at + sizeof value <= content.size()) std::memcpy(content.data() + at, &value, sizeof value);
  };
  switch (random() % 6) {
    case 0:
      content[at] = static_cast<char>(content[at] ^ (1U << (random() % 8)));
      break;
    case 1:
      content[at] = static_cast<char>(random());
      break;
    case 2:
      put(std::array<double, 6>{std::numeric_limits<double>::quiet_NaN(),
                                std::numeric_limits<double>::infinity(), -1e300, 1e300, -1, 0});
      break;
    case 3:
      put(std::array<std::uint32_t, 6>{0xffffffff, 0x80000000, 0x7fffffff, 1U << 20, 1, 0});
      break;
    case 4:
      content.erase(at, 1 + random() % 16);
      break;
    default:
      content.insert(at, std::string(1 + random() % 16, static_cast<char>(random())));
  }
  bytes.replace(section + 12, length, content);
  length = content.size();
  std::memcpy(bytes.data() + section + 4, &length, sizeof length);
}

TEST(Snapshot, WrongContentUnderARightChecksumBreaksNothing) {
  const std::string saved = some_snapshot(250, 3);
  std::mt19937_64 random(17);
  int refused = 0;
  const char* wanted = std::getenv("TOOL_FIREWALL_FUZZ");
  const int rounds = wanted == nullptr ? 600 : std::atoi(wanted);
  for (int round = 0; round < rounds; ++round) {
    std::string bytes = saved;
    const std::size_t section = begin_of(saved, 1 + static_cast<std::uint32_t>(random() % kSections));
    for (std::uint64_t change = 0; change < 1 + random() % 3; ++change) spoil(bytes, section, random);
    Engine engine(small(), kKey);
    try {
      restore_snapshot(engine, sealed(bytes));
    } catch (const SnapshotError&) {
      ++refused;
      ASSERT_EQ(engine.calls(), 0U);
      ASSERT_TRUE(engine.tools().empty());
      continue;
    }
    opinions(engine, kMonday + 20 * kDay);
    feed_all(engine, Traffic(static_cast<unsigned>(round) % 7 + 1).next(60));
    take_snapshot(engine, "again");
  }
  RecordProperty("refused", refused);
  EXPECT_GT(refused, rounds / 20);
  EXPECT_LT(refused, rounds);
}

// Older formats.

std::string golden_file(std::uint16_t format) {
  const std::string name = "snapshot-" + std::to_string(format) + ".bin";
  return (std::filesystem::path(__FILE__).parent_path() / "data" / name).string();
}

EngineSettings golden_settings() {
  EngineSettings settings = small();
  settings.model.signals.burst_threshold = 4;  // keeps the file small
  return settings;
}

TEST(Snapshot, EveryFormatEverWrittenIsRead) {
  Lab made(golden_settings());
  feed_all(made.engine, Traffic(4).next(60));
  if (std::getenv("TOOL_FIREWALL_GOLDEN") != nullptr)
    std::ofstream(golden_file(kSnapshotFormat), std::ios::binary) << take_snapshot(made.engine, "golden");
  for (std::uint16_t format = kOldestSnapshotFormat; format <= kSnapshotFormat; ++format) {
    std::ifstream file(golden_file(format), std::ios::binary);
    ASSERT_TRUE(file.good()) << golden_file(format) << " is missing";
    const std::string saved{std::istreambuf_iterator<char>(file), {}};
    Lab restored(golden_settings());
    ASSERT_EQ(restore_snapshot(restored.engine, saved), "golden");
    EXPECT_EQ(restored.engine.calls(), 60U);
    EXPECT_EQ(restored.engine.tools().size(), made.engine.tools().size());
    EXPECT_EQ(restored.engine.in_flight().size(), made.engine.in_flight().size());
    EXPECT_EQ(restored.engine.model().principals().size(), made.engine.model().principals().size());
    EXPECT_GT(restored.engine.in_flight().size(), 0U);
  }
}

std::string golden(std::uint16_t format) {
  std::ifstream file(golden_file(format), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Snapshot, AFileOfTheFirstFormatGoesOnScoring) {
  Lab first(golden_settings()), made(golden_settings());
  restore_snapshot(first.engine, golden(1));
  Traffic traffic(4);
  feed_all(made.engine, traffic.next(60));
  // What both formats know is the same.
  const auto& tenants = made.engine.model().principals().tenants();
  int users = 0;
  for (const auto& [tenant, state] : tenants) {
    for (const auto& [user, principal] : state->principals) {
      const Who who{.user = user, .tenant = tenant, .group = principal->group};
      for (const char* fact : {"usual_60s", "usual_3600s", "record_60s"})
        EXPECT_EQ(first.fact(who, fact, traffic.now()), made.fact(who, fact, traffic.now())) << fact;
      EXPECT_EQ(baseline_of(first.engine, tenant, user)->calls, principal->calls);
      ++users;
    }
  }
  EXPECT_GT(users, 5);
  // What runs ends, with a cost; new calls are scored, and a snapshot of now says the same.
  const std::size_t running = first.engine.in_flight().size();
  const std::vector<std::string> more = traffic.next(500);
  feed_all(first.engine, more);
  EXPECT_EQ(first.engine.calls(), 560U);
  EXPECT_EQ(first.engine.counts().unreadable, 0U);
  EXPECT_GT(running, 0U);
  Lab again(golden_settings());
  restore_snapshot(again.engine, take_snapshot(first.engine, ""));
  const std::vector<double> said = opinions(first.engine, traffic.now());
  EXPECT_EQ(opinions(again.engine, traffic.now()), said);
  for (const double one : said) ASSERT_TRUE(std::isfinite(one));
  EXPECT_GT(*std::max_element(said.begin(), said.end()), .1);
}

}  // namespace
}  // namespace tool_firewall
