// SPDX-License-Identifier: Apache-2.0
#include "replay/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "lab.h"

namespace tool_firewall {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

class ReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    folder = std::filesystem::path(testing::TempDir()) / ("tool-firewall-replay-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::string path(const std::string& name) const { return (folder / name).string(); }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
    return path(name);
  }
  std::string write_packed(const std::string& name, const std::string& text) const {
    const gzFile file = gzopen(path(name).c_str(), "wb");
    gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
    gzclose(file);
    return path(name);
  }
  static std::string read_raw(const std::string& name) {
    std::stringstream text;
    text << std::ifstream(name, std::ios::binary).rdbuf();
    return text.str();
  }
  static std::string read(const std::string& name) {  // plain or gzip
    const gzFile file = gzopen(name.c_str(), "rb");
    std::string text;
    char part[65'536];
    for (int got = 0; (got = gzread(file, part, sizeof part)) > 0;)
      text.append(part, static_cast<std::size_t>(got));
    gzclose(file);
    return text;
  }
  static std::vector<json> lines(const std::string& text) {
    std::vector<json> all;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
    return all;
  }

  ReplayResult run(const std::string& source, const std::string& target, bool skip_bad = false) const {
    Lab lab;
    return replay(lab.engine, lab.policy, {.source = source, .target = target, .skip_bad = skip_bad},
                  [](std::uint64_t, std::uint64_t, std::uint64_t) {});
  }
  std::string error_of(const std::string& source, const std::string& target, bool skip_bad = false) const {
    try {
      run(source, target, skip_bad);
    } catch (const ReplayError& error) {
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder;
};

json event(const std::string& id, double ts, const std::string& user = "alice",
           const std::string& tool = "query") {
  return {{"event_id", id},
          {"ts", ts},
          {"tenant", "acme"},
          {"user", user},
          {"agent", "bot"},
          {"session", "s"},
          {"tool", tool},
          {"ok", true},
          {"cost", .25},
          {"duration", 12.5},
          {"args", {{"q", "select 1"}, {"n", 5}}}};
}

std::string some_events(int count, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string text;
  double now = kMonday;
  for (int i = 0; i < count; ++i) {
    now += static_cast<double>(random() % 6000) / 10;
    text += event("e" + std::to_string(i), now, "u" + std::to_string(random() % 3),
                  "tool" + std::to_string(random() % 4))
                .dump() +
            "\n";
  }
  return text;
}

TEST_F(ReplayTest, WritesOneScoreAnEvent) {
  const ReplayResult result = run(write("in.jsonl", some_events(200)), path("out.jsonl"));
  EXPECT_EQ(result.events, 200U);
  EXPECT_EQ(result.skipped, 0U);
  EXPECT_EQ(result.verdicts[0] + result.verdicts[1] + result.verdicts[2], 200U);
  const std::vector<json> scores = lines(read_raw(path("out.jsonl")));
  ASSERT_EQ(scores.size(), 200U);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const json& score = scores[i];
    EXPECT_EQ(score.at("event_id"), "e" + std::to_string(i));
    EXPECT_GE(score.at("risk"), score.at("risk_pre"));
    EXPECT_TRUE(score.at("verdict") == "allow" || score.at("verdict") == "audit" ||
                score.at("verdict") == "deny");
    for (const json& signal : score.at("signals")) {
      EXPECT_GT(signal.at("p").get<double>(), 0);
      EXPECT_LE(signal.at("p").get<double>(), 1);
      EXPECT_TRUE(signal.at("value").is_number() && signal.at("baseline").is_number());
      EXPECT_GT(signal.at("explanation").get<std::string>().size(), 10U);
      EXPECT_LT(position_of(signal.at("name").get<std::string>()), 32);
    }
  }
}

// The arguments of event().
Arguments event_arguments(const Hasher& hasher) {
  Arguments arguments;
  ArgumentReader reader(hasher, arguments.facts, arguments.destinations);
  reader.text(reader.member({}, "q"), "select 1");
  reader.number(reader.member({}, "n"), 'i', "0x5", 3, 5);
  reader.structure({}, 'o');
  arguments.digest = reader.result();
  return arguments;
}

TEST_F(ReplayTest, ScoresAreThoseOfTheEngineToTheLastBit) {
  const std::string text = some_events(300);
  run(write("in.jsonl", text), path("out.jsonl"));
  const std::vector<json> events = lines(text), scores = lines(read_raw(path("out.jsonl")));
  ASSERT_EQ(scores.size(), events.size());
  Lab lab;
  int differing = 0;
  std::vector<Verdict> verdicts;
  std::multimap<double, std::size_t> running;  // by when they end
  const auto end_until = [&](double now) {
    while (!running.empty() && running.begin()->first <= now) {
      const auto [at, i] = *running.begin();
      running.erase(running.begin());
      const Aftermath after = lab.end(verdicts[i], at, .25);
      EXPECT_EQ(scores[i]["risk"].get<double>(), after.risk) << i;
      differing += after.risk > verdicts[i].risk ? 1 : 0;
    }
  };
  for (std::size_t i = 0; i < events.size(); ++i) {
    const double now = events[i]["ts"];
    end_until(now);
    const Who who{
        .user = events[i]["user"], .tenant = "acme", .session = "s", .group = "bot", .agent = "bot"};
    verdicts.push_back(lab.engine.check(lab.policy, lab.caller(who), "", events[i]["tool"].get<std::string>(),
                                        event_arguments(lab.engine.hasher()), now));
    ASSERT_EQ(scores[i]["risk_pre"].get<double>(), verdicts.back().risk) << i;
    running.emplace(now + events[i]["duration"].get<double>(), i);
  }
  end_until(1e12);
  EXPECT_GT(differing, 5);
}

TEST_F(ReplayTest, PlainAndGzipGiveTheSame) {
  const std::string text = some_events(2000);
  const std::string plain = write("in.jsonl", text), packed = write_packed("in.jsonl.gz", text);
  run(plain, path("a.jsonl"));
  run(plain, path("b.jsonl.gz"));
  run(packed, path("c.jsonl"));
  run(packed, path("d.jsonl.gz"));
  const std::string expected = read_raw(path("a.jsonl"));
  EXPECT_EQ(read_raw(path("c.jsonl")), expected);
  EXPECT_EQ(read(path("b.jsonl.gz")), expected);
  EXPECT_EQ(read(path("d.jsonl.gz")), expected);
  EXPECT_EQ(read_raw(path("b.jsonl.gz")), read_raw(path("d.jsonl.gz"))) << "no times or names inside";
  EXPECT_EQ(read_raw(path("b.jsonl.gz")).substr(0, 2), "\x1f\x8b");
}

TEST_F(ReplayTest, TwiceIsByteIdentical) {
  const std::string source = write("in.jsonl", some_events(3000, 2));
  run(source, path("a.jsonl"));
  run(source, path("b.jsonl"));
  EXPECT_EQ(read_raw(path("a.jsonl")), read_raw(path("b.jsonl")));
}

TEST_F(ReplayTest, LinesEndAsTheyLike) {
  const std::string a = event("a", kMonday).dump(), b = event("b", kMonday + 9).dump();
  struct Row {
    const char* name;
    std::string text;
    std::uint64_t events;
  };
  const Row rows[] = {{"with a newline", a + "\n" + b + "\n", 2},
                      {"without", a + "\n" + b, 2},
                      {"CRLF", a + "\r\n" + b + "\r\n", 2},
                      {"empty lines", "\n\n" + a + "\n\r\n\n" + b + "\n\n", 2},
                      {"nothing", "", 0},
                      {"only empty lines", "\n\r\n\n", 0},
                      {"spaces around", "  " + a + "  \n\t" + b + "\t\n", 2}};
  for (const Row& row : rows)
    EXPECT_EQ(run(write("in.jsonl", row.text), path("out.jsonl")).events, row.events) << row.name;
}

TEST_F(ReplayTest, EachBadLineIsReportedWithItsNumber) {
  const auto without = [](const char* key) {
    json one = event("x", kMonday);
    one.erase(key);
    return one.dump();
  };
  const auto with = [](const char* key, const json& value) {
    json one = event("x", kMonday);
    one[key] = value;
    return one.dump();
  };
  struct Row {
    const char* name;
    std::string line;
    const char* says;
  };
  const Row rows[] = {{"not JSON", "hello", "JSON"},
                      {"cut short", R"({"event_id":"x","ts":1)", "JSON"},
                      {"two values", event("x", kMonday).dump() + "{}", ""},
                      {"a list", "[1]", "object"},
                      {"a number", "42", "object"},
                      {"a text", "\"x\"", "object"},
                      {"null", "null", "object"},
                      {"not UTF-8", "{\"event_id\":\"\xff\xfe\",\"ts\":1,\"user\":\"u\",\"tool\":\"t\"}", ""},
                      {"no event_id", without("event_id"), "event_id"},
                      {"no ts", without("ts"), "ts"},
                      {"no user", without("user"), "user"},
                      {"no tool", without("tool"), "tool"},
                      {"user null", with("user", nullptr), "user"},
                      {"user a number", with("user", 5), "user"},
                      {"tool a list", with("tool", json::array({1})), "tool"},
                      {"ts a text", with("ts", "now"), "ts"},
                      {"ts negative", with("ts", -1), "ts"},
                      {"ts in milliseconds", with("ts", 1.7724096e12), "ts"},
                      {"ts an object", with("ts", json::object()), "ts"},
                      {"ok a text", with("ok", "yes"), "ok"},
                      {"args a text", with("args", "x"), "args"},
                      {"args a list", with("args", json::array()), "args"},
                      {"tenant a number", with("tenant", 5), "tenant"}};
  const std::string good = event("g", kMonday).dump() + "\n";
  for (const Row& row : rows) {
    const std::string source = write("in.jsonl", good + "\n" + row.line + "\n" + good);
    const std::string error = error_of(source, path("out.jsonl"));
    EXPECT_THAT(error, HasSubstr("line 3: ")) << row.name;
    EXPECT_THAT(error, HasSubstr(row.says)) << row.name;
    const ReplayResult skipped = run(source, path("out.jsonl"), true);
    EXPECT_EQ(skipped.events, 2U) << row.name;
    EXPECT_EQ(skipped.skipped, 1U) << row.name;
  }
}

TEST_F(ReplayTest, MissingAndExtraFieldsAreFine) {
  const char* const rows[] = {
      R"({"event_id":"x","ts":1772409600,"user":"u","tool":"t"})",
      R"({"event_id":17,"ts":1772409600.5,"user":"u","tool":"t","tenant":null,"agent":null,"session":null,"args":null,"ok":null})",
      R"({"extra":{"a":[1,{"b":null}]},"event_id":"x","ts":1772409600,"user":"u","tool":"t","more":[[]],"flag":true,"note":"n"})",
      R"({"event_id":"x","ts":1772409600,"user":"u","tool":"t","args":{"a":{"b":[1,2.5,true,null,"c"]}},"cost":null})"};
  for (const char* row : rows) EXPECT_EQ(error_of(write("in.jsonl", row), path("out.jsonl")), "") << row;
}

TEST_F(ReplayTest, EventIdsComeBackAsTheyWere) {
  struct Row {
    const char* name;
    std::string id;
  };
  for (const Row& row :
       {Row{"quotes", "a\"b\\c"}, Row{"unicode", "Zo\xc3\xab \xe2\x9c\x93 \xf0\x9f\x94\xa5"},
        Row{"control characters", "a\tb\nc\x01"}, Row{"empty", ""}, Row{"a tag", "</script>"},
        Row{"a delete character", "a\x7f"}, Row{"long", std::string(100'000, 'x')}}) {
    run(write("in.jsonl", event(row.id, kMonday).dump()), path("out.jsonl"));
    EXPECT_EQ(lines(read_raw(path("out.jsonl"))).at(0).at("event_id"), row.id) << row.name;
  }
  const json escaped = json::parse(R"("\u00e9\ud83d\ude00\"")");
  run(write("in.jsonl", R"({"event_id":"\u00e9\ud83d\ude00\"","ts":1772409600,"user":"u","tool":"t"})"),
      path("out.jsonl"));
  EXPECT_EQ(lines(read_raw(path("out.jsonl"))).at(0).at("event_id"), escaped);
}

TEST_F(ReplayTest, LargeNumbersAsIdsKeepEveryDigit) {
  for (const std::string id : {"17", "9007199254740993", "18446744073709551615", "-5"}) {
    run(write("in.jsonl", R"({"event_id":)" + id + R"(,"ts":1772409600,"user":"u","tool":"t"})"),
        path("out.jsonl"));
    const json back = lines(read_raw(path("out.jsonl"))).at(0).at("event_id");
    EXPECT_EQ(back.is_string() ? back.get<std::string>() : back.dump(), id);
  }
}

TEST_F(ReplayTest, OddToolNamesDoNotBreakTheScores) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += event("e", kMonday + i * 900., "alice", "query").dump() + "\n";
  text += event("odd", kMonday + kDay, "alice", "t\"o\\o%sl\n\xe2\x9c\x93").dump() + "\n";
  run(write("in.jsonl", text), path("out.jsonl"));
  const json score = lines(read_raw(path("out.jsonl"))).back();
  ASSERT_FALSE(score.at("signals").empty());
  EXPECT_THAT(score.at("signals")[0].at("explanation").get<std::string>(),
              HasSubstr("t\"o\\o%sl\n\xe2\x9c\x93"));
}

TEST_F(ReplayTest, ATruncatedGzipIsDamagedAndNotShort) {
  const std::string whole = read_raw(write_packed("in.jsonl.gz", some_events(3000)));
  for (const double share : {.3, .9, .999}) {
    const auto size = static_cast<std::size_t>(static_cast<double>(whole.size()) * share);
    const std::string cut = write("cut.jsonl.gz", whole.substr(0, size));
    EXPECT_NE(error_of(cut, path("out.jsonl")), "") << share;
    EXPECT_NE(error_of(cut, path("out.jsonl"), true), "") << share << ", also when bad lines are skipped";
  }
  std::string damaged = whole;
  damaged[whole.size() / 2] = static_cast<char>(damaged[whole.size() / 2] ^ 0x55);
  EXPECT_NE(error_of(write("damaged.jsonl.gz", damaged), path("out.jsonl"), true), "");
}

TEST_F(ReplayTest, FilesThatCannotBeUsedAreNamed) {
  const std::string source = write("in.jsonl", some_events(3));
  EXPECT_THAT(error_of(path("missing.jsonl"), path("out.jsonl")), HasSubstr("missing.jsonl"));
  EXPECT_THAT(error_of(folder.string(), path("out.jsonl")), testing::Not("")) << "a folder";
  EXPECT_THAT(error_of(source, path("no/such/folder/out.jsonl")), HasSubstr("no/such/folder/out.jsonl"));
  EXPECT_THAT(error_of(source, folder.string()), HasSubstr(folder.string()));
  if (std::filesystem::exists("/dev/full")) {
    EXPECT_THAT(error_of(source, "/dev/full"), HasSubstr("/dev/full"));
  }
}

TEST_F(ReplayTest, NeverOverwritesItsOwnSource) {
  const std::string text = some_events(50);
  const std::string source = write("in.jsonl", text);
  std::filesystem::create_symlink(source, path("link.jsonl"));
  EXPECT_NE(error_of(source, source), "");
  EXPECT_EQ(read_raw(source), text);
  EXPECT_NE(error_of(source, path("link.jsonl")), "");
  EXPECT_EQ(read_raw(source), text);
}

TEST_F(ReplayTest, ReportsProgress) {
  const std::string source = write("in.jsonl", some_events(10'000));
  Lab lab;
  std::vector<std::array<std::uint64_t, 3>> seen;
  replay(lab.engine, lab.policy, {source, path("out.jsonl"), false},
         [&](std::uint64_t at, std::uint64_t size, std::uint64_t events) {
           seen.push_back({at, size, events});
         });
  ASSERT_GE(seen.size(), 3U);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_LE(seen[i][0], seen[i][1]);
    EXPECT_EQ(seen[i][1], std::filesystem::file_size(source));
    if (i > 0) {
      EXPECT_GE(seen[i][0], seen[i - 1][0]);
    }
  }
  EXPECT_EQ(seen.back()[0], seen.back()[1]);
  EXPECT_EQ(seen.back()[2], 10'000U);
}

TEST_F(ReplayTest, LongLinesAndDeepArgumentsGetAVerdict) {
  json large = event("large", kMonday);
  large["args"] = {{"q", std::string(3'000'000, 'x')}};
  json deep = event("deep", kMonday + 60);
  json nested = 1;
  for (int i = 0; i < 200; ++i) nested = json::array({nested});
  deep["args"] = {{"q", nested}};
  json ordinary = event("ordinary", kMonday + 120);
  run(write("in.jsonl", large.dump() + "\n" + deep.dump() + "\n" + ordinary.dump() + "\n"),
      path("out.jsonl"));
  const std::vector<json> scores = lines(read_raw(path("out.jsonl")));
  ASSERT_EQ(scores.size(), 3U);
  EXPECT_EQ(scores[0]["verdict"], "deny") << "more than 1 MiB cannot be inspected";
  EXPECT_EQ(scores[1]["verdict"], "deny") << "more than 64 levels cannot be inspected";
  EXPECT_NE(scores[2]["verdict"], "deny");
}

TEST_F(ReplayTest, LearnsAsItGoes) {
  std::string text;
  for (int day = 0; day < 5; ++day)
    for (int i = 0; i < 10; ++i)
      text += event("h", kMonday + day * kDay + 9 * kHour + i * 600, "alice", "db_query").dump() + "\n";
  const double now = kMonday + 7 * kDay + 9.5 * kHour;
  text += event("again", now, "alice", "db_query").dump() + "\n" +
          event("first", now + 60, "alice", "delete_records").dump() + "\n";
  run(write("in.jsonl", text), path("out.jsonl"));
  const std::vector<json> scores = lines(read_raw(path("out.jsonl")));
  EXPECT_LT(scores[50]["risk"], .1);
  EXPECT_GE(scores[51]["risk"], .5);
  EXPECT_EQ(scores[51]["verdict"], "deny");
}

}  // namespace
}  // namespace tool_firewall
