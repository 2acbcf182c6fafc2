// SPDX-License-Identifier: Apache-2.0
#include "replay/replay.h"

#include <simdjson.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/argument_reader.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::size_t kBuffer = 1U << 18;
constexpr std::size_t kMostLine = 1U << 26;  // bytes
constexpr std::size_t kMostCallers = 1U << 16;
constexpr std::uint64_t kProgressEvery = 4096;  // events
constexpr int kFastest = 1;                     // zlib level
constexpr double kLongest = 86400;              // s, of a call

bool same_file(const std::string& a, const std::string& b) {
  struct stat one = {}, other = {};
  return stat(a.c_str(), &one) == 0 && stat(b.c_str(), &other) == 0 && one.st_dev == other.st_dev &&
         one.st_ino == other.st_ino;
}

class LineReader {
 public:
  explicit LineReader(const std::string& path) : file_(gzopen(path.c_str(), "rb")), buffer_(kBuffer) {
    struct stat status {};
    if (file_ == nullptr || stat(path.c_str(), &status) != 0) throw ReplayError(path + ": cannot be read");
    size_ = static_cast<std::uint64_t>(status.st_size);
    gzbuffer(file_, kBuffer);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;
  ~LineReader() { gzclose(file_); }

  // The next line without its end, followed by SIMDJSON_PADDING readable bytes; false at the end of the file.
  // The view is valid until the next call.
  bool next(std::string_view& line) {
    std::size_t searched = begin_;
    while (true) {
      if (const void* end = std::memchr(buffer_.data() + searched, '\n', end_ - searched)) {
        const auto at = static_cast<std::size_t>(static_cast<const char*>(end) - buffer_.data());
        line = {buffer_.data() + begin_, at - begin_};
        begin_ = at + 1;
        return true;
      }
      searched = end_ - begin_;
      if (!fill()) {
        line = {buffer_.data() + begin_, end_ - begin_};
        begin_ = end_;
        return !line.empty();
      }
    }
  }
  std::uint64_t at() const { return static_cast<std::uint64_t>(gzoffset(file_)); }
  std::uint64_t size() const { return size_; }

 private:
  bool fill() {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if (end_ + simdjson::SIMDJSON_PADDING >= buffer_.size()) {
      if (buffer_.size() >= kMostLine) throw ReplayError("a line is longer than 64 MiB");
      buffer_.resize(buffer_.size() * 2);
    }
    const std::size_t room = buffer_.size() - simdjson::SIMDJSON_PADDING - end_;
    const int got = gzread(file_, buffer_.data() + end_, static_cast<unsigned>(room));
    // The end of a cut gzip file looks like the end of a whole one, but for the error that stays behind.
    int code = Z_OK;
    const char* const what = gzerror(file_, &code);
    if (got < 0 || (got == 0 && code != Z_OK && code != Z_STREAM_END))
      throw ReplayError(std::string("damaged input: ") + what);
    end_ += static_cast<std::size_t>(got);
    return got > 0;
  }

  gzFile file_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint64_t size_ = 0;
};

class LineWriter {
 public:
  explicit LineWriter(const std::string& path) : path_(path) {
    const bool packed = path.size() > 3 && path.compare(path.size() - 3, 3, ".gz") == 0;
    file_ = gzopen(path.c_str(), packed ? "wb" : "wbT");
    if (file_ == nullptr) throw ReplayError(path + ": cannot be written");
    gzbuffer(file_, kBuffer);
    if (packed) gzsetparams(file_, kFastest, Z_DEFAULT_STRATEGY);
  }
  LineWriter(const LineWriter&) = delete;
  LineWriter& operator=(const LineWriter&) = delete;
  ~LineWriter() {
    if (file_ != nullptr) gzclose(file_);
  }

  void write(std::string_view text) {
    if (gzwrite(file_, text.data(), static_cast<unsigned>(text.size())) != static_cast<int>(text.size()))
      fail();
  }
  // Must be called: the destructor cannot report a full disk.
  void close() {
    if (gzclose(std::exchange(file_, nullptr)) != Z_OK) fail();
  }

 private:
  [[noreturn]] void fail() const { throw ReplayError(path_ + ": cannot be written (disk full?)"); }
  std::string path_;
  gzFile file_ = nullptr;
};

// One event; the texts belong to its reader.
struct Event {
  std::string_view id, tenant, user, agent, group, session, token, server, tool;
  bool has_group = false;  // else the agent is the peer group
  double ts = 0;
  double duration = 0;  // s, 0 when unknown
  bool ok = true;
  double cost = std::numeric_limits<double>::quiet_NaN();
  Arguments arguments;
};

// Reads events line by line, in memory that is used again for the next one.
class EventReader {
 public:
  explicit EventReader(const Hasher& hasher) : hasher_(hasher) {}

  // `line` must be followed by SIMDJSON_PADDING readable bytes. The event is valid until the next call.
  // Throws ReplayError saying what is wrong with the line, without quoting from it.
  const Event& read(std::string_view line) {
    event_ = {};
    simdjson::dom::object fields;
    if (const auto error = parser_.parse(line.data(), line.size(), false).get(fields))
      throw ReplayError(error == simdjson::INCORRECT_TYPE
                            ? "an object was expected"
                            : phrase("not JSON: %s", simdjson::error_message(error)));
    bool has_id = false;
    bool has_time = false;
    for (const auto& [key, value] : fields) {
      if (key == "event_id") {
        event_.id = id(value);
        has_id = true;
      } else if (key == "ts") {
        event_.ts = time(value);
        has_time = true;
      } else if (key == "tenant") {
        event_.tenant = text("tenant", value);
      } else if (key == "user") {
        event_.user = text("user", value);
      } else if (key == "agent") {
        event_.agent = text("agent", value);
      } else if (key == "group") {
        event_.group = text("group", value);
        event_.has_group = !value.is_null();
      } else if (key == "session") {
        event_.session = text("session", value);
      } else if (key == "token") {
        event_.token = text("token", value);
      } else if (key == "server") {
        event_.server = text("server", value);
      } else if (key == "tool") {
        event_.tool = text("tool", value);
      } else if (key == "ok") {
        if (!value.is_null() && value.get(event_.ok)) wrong("ok", "true or false was expected");
      } else if (key == "duration") {
        event_.duration = duration(value);
      } else if (key == "cost") {
        if (!value.is_null() && (value.get(event_.cost) || !(event_.cost >= 0 && event_.cost <= kMostCost)))
          wrong("cost", "a number of at least 0 was expected");
      } else if (key == "facts") {
        facts(text("facts", value));
      } else if (key == "arguments") {
        digest(text("arguments", value));
      } else if (key == "args") {
        arguments(value);
      }
    }
    if (!has_id) wrong("event_id", "is missing");
    if (!has_time) wrong("ts", "is missing");
    if (event_.user.empty()) wrong("user", "is missing");
    if (event_.tool.empty()) wrong("tool", "is missing");
    if (!event_.has_group) event_.group = event_.agent;
    return event_;
  }

 private:
  using Element = simdjson::dom::element;

  [[noreturn]] static void wrong(const char* key, const char* what) {
    throw ReplayError(phrase("'%s': %s", key, what));
  }

  static std::string_view text(const char* key, const Element& value) {
    std::string_view found;
    if (!value.is_null() && value.get(found)) wrong(key, "text was expected");
    return found;
  }
  std::string_view id(const Element& value) {
    std::string_view found;
    if (!value.get(found)) return found;
    std::int64_t number = 0;
    std::uint64_t large = 0;
    if (!value.get(number)) {
      number_as_text_ = std::to_string(number);
    } else if (!value.get(large)) {
      number_as_text_ = std::to_string(large);
    } else {
      wrong("event_id", "text or a whole number was expected");
    }
    return number_as_text_;
  }
  static double time(const Element& value) {
    double seconds = 0;
    if (value.get(seconds) || !(seconds >= 0 && seconds <= 1e11))
      wrong("ts", "seconds since 1970 were expected");
    return seconds;
  }

  // What is no length of time counts as unknown.
  static double duration(const Element& value) {
    double seconds = 0;
    return !value.get(seconds) && seconds > 0 && seconds < kLongest ? seconds : 0;
  }

  void arguments(const Element& value) {
    Arguments& out = event_.arguments;
    if (value.is_null()) return;
    if (!value.is_object()) wrong("args", "an object was expected");
    ArgumentReader reader(hasher_, out.facts, out.destinations);
    out.inspection = walk(value, {}, 0, reader);
    if (out.inspection == Inspection::kInspected)
      out.digest = reader.result();
    else
      out.facts.clear();
  }

  // What an export has instead of the arguments themselves.
  void facts(std::string_view text) {
    const auto found = facts_from(text);
    if (!found) wrong("facts", "kind, place and value of each were expected");
    event_.arguments.facts.clear();
    for (const ArgumentFact& fact : *found) event_.arguments.facts.add(fact);
  }
  void digest(std::string_view text) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), event_.arguments.digest, 16);
    if (!text.empty() &&
        (text.size() != 16 || read.ec != std::errc() || read.ptr != text.data() + text.size()))
      wrong("arguments", "16 hex digits were expected");
  }

  // The same walk as bindings/arguments.cc does over Python objects.
  static Inspection walk(const Element& value, const ArgumentReader::Path& path, int depth,
                         ArgumentReader& reader) {
    if (depth > kMostDepth) return Inspection::kTooDeep;
    const auto number = [&](char type, const void* data, std::size_t size, double real) {
      if (!reader.spend(size)) return Inspection::kTooLarge;
      reader.number(path, type, data, size, real);
      return Inspection::kInspected;
    };
    const auto end = [&](char type) {
      if (!reader.spend(0)) return Inspection::kTooLarge;
      reader.structure(path, type);
      return Inspection::kInspected;
    };
    switch (value.type()) {
      case simdjson::dom::element_type::OBJECT: {
        for (const auto& [key, member] : simdjson::dom::object(value)) {
          if (!reader.spend(key.size())) return Inspection::kTooLarge;
          const Inspection found = walk(member, reader.member(path, key), depth + 1, reader);
          if (found != Inspection::kInspected) return found;
        }
        return end('o');
      }
      case simdjson::dom::element_type::ARRAY: {
        std::size_t index = 0;
        for (const Element element : simdjson::dom::array(value)) {
          const Inspection found = walk(element, reader.element(path, index++), depth + 1, reader);
          if (found != Inspection::kInspected) return found;
        }
        return end('l');
      }
      case simdjson::dom::element_type::STRING: {
        const std::string_view text = std::string_view(value);
        if (!reader.spend(text.size())) return Inspection::kTooLarge;
        reader.text(path, text);
        return Inspection::kInspected;
      }
      case simdjson::dom::element_type::INT64: {
        const long long whole = std::int64_t(value);
        return number('i', &whole, sizeof whole, static_cast<double>(whole));
      }
      case simdjson::dom::element_type::UINT64: {
        const std::uint64_t whole = std::uint64_t(value);
        return number('I', &whole, sizeof whole, static_cast<double>(whole));
      }
      case simdjson::dom::element_type::DOUBLE: {
        const double real = double(value);
        return number('d', &real, sizeof real, real);
      }
      case simdjson::dom::element_type::BOOL:
        if (!reader.spend(0)) return Inspection::kTooLarge;
        reader.truth(path, bool(value));
        return Inspection::kInspected;
      case simdjson::dom::element_type::NULL_VALUE:
        break;
    }
    if (!reader.spend(0)) return Inspection::kTooLarge;
    reader.nothing(path);
    return Inspection::kInspected;
  }

  const Hasher& hasher_;
  simdjson::dom::parser parser_;
  Event event_;
  std::string number_as_text_;
};

// JSON text of a string.
void quote(std::string& out, std::string_view text) {
  bool plain = true;
  for (const char c : text)
    plain &= static_cast<unsigned char>(c) >= 0x20 && c != '"' && c != '\\' && c != 0x7f &&
             static_cast<signed char>(c) > 0;
  if (plain) {
    out.append(1, '"').append(text).append(1, '"');
  } else {
    out += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
}

void append_number(std::string& out, double value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end.ptr);
}

// An event whose call was checked and whose score waits for its turn.
struct Running {
  std::string id, user, destination;
  Verdict verdict;
  Outcome outcome = Outcome::kOk;
  double cost = std::numeric_limits<double>::quiet_NaN();
  Aftermath after;
  bool ended = false;
};

void append_reasons(std::string& out, const Running& event, const std::vector<Reason>& reasons, bool& first) {
  const Verdict& verdict = event.verdict;
  const Names names{event.user, verdict.tool->name,
                    verdict.previous == nullptr ? std::string_view() : verdict.previous->name,
                    event.destination};
  for (const Reason& reason : reasons) {
    if (!std::exchange(first, false)) out.append(1, ',');
    out.append("{\"name\":\"").append(signal_name(reason.signal)).append("\",\"p\":");
    append_number(out, static_cast<double>(reason.p));
    out.append(",\"value\":");
    append_number(out, reason.numbers.value);
    out.append(",\"baseline\":");
    append_number(out, reason.numbers.baseline);
    out.append(",\"explanation\":");
    quote(out, explain(reason.signal, reason.numbers, names));
    out.append(1, '}');
  }
}

// `risk_pre` decides before the call; `risk` and `verdict` are those with all that is known after it.
void append_score(std::string& out, const Running& event) {
  const Verdict& verdict = event.verdict;
  const Aftermath& after = event.after;
  out.append("{\"event_id\":");
  quote(out, event.id);
  out.append(",\"risk\":");
  append_number(out, std::max(verdict.risk, after.risk));
  out.append(",\"risk_pre\":");
  append_number(out, verdict.risk);
  out.append(",\"verdict\":\"")
      .append(name_of(std::max(verdict.decision, after.decision)))
      .append("\",\"signals\":[");
  bool first = true;
  append_reasons(out, event, after.reasons, first);
  std::vector<Reason> before = verdict.reasons;
  std::erase_if(before, [&](const Reason& one) {
    return std::any_of(after.reasons.begin(), after.reasons.end(),
                       [&](const Reason& other) { return other.signal == one.signal; });
  });
  append_reasons(out, event, before, first);
  out.append("]}\n");
}

// Callers of a stream by their texts, so that each is resolved once.
class Callers {
 public:
  explicit Callers(Engine& engine) : engine_(engine) {}
  const CallerPtr& of(const Event& event) {
    const Hasher& hasher = engine_.hasher();
    const std::uint64_t key =
        hasher.pair(hasher.text(event.tenant, event.user), hasher.text(event.agent, event.group),
                    hasher.text(event.session, event.token));
    if (known_.size() >= kMostCallers) known_.clear();
    CallerPtr& caller = known_[key];
    if (!caller) {
      caller = std::make_shared<Caller>();
      caller->tenant = event.tenant;
      caller->user = event.user;
      caller->agent = event.agent;
      caller->group = event.group;
      caller->session = event.session;
      caller->token = event.token;
    }
    return caller;
  }

 private:
  Engine& engine_;
  std::unordered_map<std::uint64_t, CallerPtr> known_;
};

// Calls between their beginning and their end. Ends come in the order of their times, scores in that of the
// events.
class Course {
 public:
  explicit Course(Engine& engine) : engine_(engine) {}

  void begin(const Event& event, Verdict verdict) {
    Running running;
    running.id = event.id;
    running.user = event.user;
    if (!event.arguments.destinations.empty()) running.destination = event.arguments.destinations.front();
    running.outcome = event.ok ? Outcome::kOk : Outcome::kToolError;
    running.cost = event.cost;
    running.ended = verdict.ticket == 0;
    running.verdict = std::move(verdict);
    if (!running.ended) ends_.emplace(event.ts + event.duration, first_ + running_.size());
    running_.push_back(std::move(running));
  }

  // Ends what ended by then.
  void until(double now) {
    while (!ends_.empty() && (ends_.top().first <= now || ends_.size() > InFlight::kMost)) {
      const auto [at, number] = ends_.top();
      ends_.pop();
      Running& running = running_[number - first_];
      running.after = engine_.observe(running.verdict.ticket, running.outcome, running.cost, at);
      running.ended = true;
    }
  }

  // The next event whose score is complete, nullptr when there is none; valid until forget().
  const Running* next() const {
    return !running_.empty() && running_.front().ended ? &running_.front() : nullptr;
  }
  void forget() {
    running_.pop_front();
    ++first_;
  }

 private:
  using End = std::pair<double, std::uint64_t>;  // time and number
  Engine& engine_;
  std::deque<Running> running_;
  std::uint64_t first_ = 0;  // number of the front
  std::priority_queue<End, std::vector<End>, std::greater<>> ends_;
};

}  // namespace

ReplayResult replay(Engine& engine, const InstancePolicy& policy, const ReplayJob& job,
                    const ReplayProgress& progress) {
  LineReader lines(job.source);
  if (same_file(job.source, job.target)) throw ReplayError(job.target + ": is the source as well");
  LineWriter scores(job.target);
  EventReader reader(engine.hasher());
  Callers callers(engine);
  Course course(engine);
  ReplayResult result;
  std::string out;
  const auto write_complete = [&] {
    for (const Running* done = course.next(); done != nullptr; done = course.next()) {
      ++result.verdicts[static_cast<std::size_t>(std::max(done->verdict.decision, done->after.decision))];
      append_score(out, *done);
      course.forget();
    }
  };
  std::string_view line;
  for (std::uint64_t number = 1; lines.next(line); ++number) {
    if (line.empty() || line == "\r") continue;
    const Event* event = nullptr;
    try {
      event = &reader.read(line);
    } catch (const ReplayError& error) {
      if (!job.skip_bad) throw ReplayError("line " + std::to_string(number) + ": " + error.what());
      ++result.skipped;
      continue;
    }
    course.until(event->ts);
    course.begin(*event, engine.check(policy, callers.of(*event), event->server, event->tool,
                                      event->arguments, event->ts));
    ++result.events;
    write_complete();
    if (out.size() >= kBuffer / 2) {
      scores.write(out);
      out.clear();
    }
    if (result.events % kProgressEvery == 0) progress(lines.at(), lines.size(), result.events);
  }
  course.until(std::numeric_limits<double>::infinity());
  write_complete();
  scores.write(out);
  scores.close();
  progress(lines.size(), lines.size(), result.events);
  return result;
}

}  // namespace tool_firewall
