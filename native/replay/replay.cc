// SPDX-License-Identifier: Apache-2.0
#include "replay/replay.h"

#include <sys/stat.h>
#include <zlib.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/arguments_digest.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

using nlohmann::json;

constexpr std::size_t kBuffer = 1U << 18;
constexpr std::size_t kMostLine = 1U << 26;  // bytes
constexpr std::size_t kMostCallers = 1U << 16;
constexpr std::uint64_t kProgressEvery = 4096;  // events
constexpr int kFastest = 1;                     // zlib level

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

  // The next line without its end; false at the end of the file. The view is valid until the next call.
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
    if (end_ == buffer_.size()) {
      if (buffer_.size() >= kMostLine) throw ReplayError("a line is longer than 64 MiB");
      buffer_.resize(buffer_.size() * 2);
    }
    const int got = gzread(file_, buffer_.data() + end_, static_cast<unsigned>(buffer_.size() - end_));
    if (got < 0) {
      int code = 0;
      throw ReplayError(std::string("damaged input: ") + gzerror(file_, &code));
    }
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

struct Event {
  std::string id, tenant, user, agent, session, tool;
  double ts = 0;
  bool ok = true;
  Arguments arguments;
};

// Reads one event without building a tree of it.
class EventReader : public nlohmann::json_sax<json> {
 public:
  explicit EventReader(const Hasher& hasher) : hasher_(hasher) {}

  // Throws ReplayError saying what is wrong with the line.
  const Event& read(std::string_view line) {
    event_ = {};
    stack_.clear();
    key_ = Key::kOther;
    seen_ = 0;
    digest_.emplace(hasher_);
    error_.clear();
    if (!json::sax_parse(line, this)) throw ReplayError(error_);
    for (const auto& [key, name] : kNames)
      if (required(key) && (seen_ & bit(key)) == 0)
        throw ReplayError(phrase("'%s' is missing", std::string(name).c_str()));
    if (event_.arguments.inspection == Inspection::kInspected) event_.arguments.digest = digest_->result();
    return event_;
  }

  bool null() override {
    return value('n', nullptr, 0, [&] { return optional_text(); });
  }
  bool boolean(bool v) override {
    return value(v ? 't' : 'f', nullptr, 0, [&] {
      if (key_ != Key::kOk) return wrong("true or false is not accepted here");
      event_.ok = v;
      return true;
    });
  }
  bool number_integer(number_integer_t v) override {
    return value('i', &v, sizeof v, [&] { return number(static_cast<double>(v)); });
  }
  bool number_unsigned(number_unsigned_t v) override {
    return value('i', &v, sizeof v, [&] { return number(static_cast<double>(v)); });
  }
  bool number_float(number_float_t v, const string_t&) override {
    return value('d', &v, sizeof v, [&] { return number(v); });
  }
  bool string(string_t& v) override {
    return value('s', v.data(), v.size(), [&] { return text(v); });
  }
  bool binary(binary_t&) override { return wrong("binary values are not JSON"); }
  bool start_object(std::size_t) override { return open(true); }
  bool start_array(std::size_t) override { return open(false); }
  bool end_object() override { return close('o'); }
  bool end_array() override { return close('l'); }
  bool key(string_t& name) override {
    if (stack_.size() == 1) {
      key_ = Key::kOther;
      for (const auto& [key, known] : kNames)
        if (known == name) key_ = key;
      seen_ |= bit(key_);
    } else if (in_arguments()) {
      if (!digest_->spend(name.size())) event_.arguments.inspection = Inspection::kTooLarge;
      stack_.back().next = digest_->member(stack_.back().path, name.data(), name.size());
    }
    return true;
  }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception& error) override {
    // Without nlohmann's error number in front, and without the text it quotes behind: that may be an
    // argument.
    std::string what = error.what();
    if (const std::size_t detail = what.find("] "); detail != std::string::npos) what.erase(0, detail + 2);
    if (const std::size_t quoted = what.find("; last read"); quoted != std::string::npos) what.erase(quoted);
    error_ = phrase("not JSON, at byte %zu: %s", at, what.c_str());
    return false;
  }

 private:
  enum class Key : std::uint8_t { kId, kTs, kTenant, kUser, kAgent, kSession, kTool, kArgs, kOk, kOther };
  static constexpr std::array<std::pair<Key, std::string_view>, 9> kNames = {{{Key::kId, "event_id"},
                                                                              {Key::kTs, "ts"},
                                                                              {Key::kTenant, "tenant"},
                                                                              {Key::kUser, "user"},
                                                                              {Key::kAgent, "agent"},
                                                                              {Key::kSession, "session"},
                                                                              {Key::kTool, "tool"},
                                                                              {Key::kArgs, "args"},
                                                                              {Key::kOk, "ok"}}};
  struct Level {
    bool object;
    ArgumentsDigest::Path path;
    ArgumentsDigest::Path next;
    std::size_t index;
  };

  static std::uint32_t bit(Key key) { return 1U << static_cast<unsigned>(key); }
  static bool required(Key key) {
    return key == Key::kId || key == Key::kTs || key == Key::kUser || key == Key::kTool;
  }
  static std::string_view name_of_key(Key key) {
    for (const auto& [known, name] : kNames)
      if (known == key) return name;
    return "";
  }
  bool wrong(const std::string& what) {
    error_ =
        key_ == Key::kOther ? what : phrase("'%s': %s", std::string(name_of_key(key_)).c_str(), what.c_str());
    return false;
  }

  bool in_arguments() const { return stack_.size() > 1 && key_ == Key::kArgs; }
  ArgumentsDigest::Path path_here() {
    Level& level = stack_.back();
    return level.object ? level.next : digest_->element(level.path, level.index++);
  }

  template <class AtTop>
  bool value(char type, const void* data, std::size_t size, const AtTop& at_top) {
    if (stack_.empty()) return wrong("an object was expected");
    if (stack_.size() == 1) return at_top();
    if (!in_arguments()) return true;
    if (!digest_->spend(size)) event_.arguments.inspection = Inspection::kTooLarge;
    if (event_.arguments.inspection == Inspection::kInspected) digest_->leaf(path_here(), type, data, size);
    return true;
  }

  bool open(bool object) {
    if (stack_.empty()) {
      if (!object) return wrong("an object was expected");
      stack_.push_back({true, 0, 0, 0});
      return true;
    }
    if (stack_.size() == 1) {
      if (key_ != Key::kArgs && key_ != Key::kOther) return wrong("a single value was expected");
      if (key_ == Key::kArgs && !object) return wrong("an object was expected");
      stack_.push_back({object, ArgumentsDigest::kRoot, 0, 0});
      return true;
    }
    if (in_arguments() && stack_.size() > kMostDepth + 1) event_.arguments.inspection = Inspection::kTooDeep;
    stack_.push_back({object, path_here(), 0, 0});
    return true;
  }
  bool close(char type) {
    if (in_arguments() && event_.arguments.inspection == Inspection::kInspected)
      digest_->leaf(stack_.back().path, type, nullptr, 0);
    stack_.pop_back();
    return true;
  }

  bool optional_text() {
    if (required(key_)) return wrong("null is not accepted");
    return true;
  }
  bool number(double v) {
    if (key_ == Key::kTs) {
      if (!std::isfinite(v) || v < 0 || v > 1e11) return wrong("seconds since 1970 were expected");
      event_.ts = v;
      return true;
    }
    if (key_ == Key::kId) {
      event_.id = phrase("%.17g", v);
      return true;
    }
    return key_ == Key::kOther ? true : wrong("a number is not accepted here");
  }
  bool text(std::string& v) {
    switch (key_) {
      case Key::kId:
        event_.id.swap(v);
        return true;
      case Key::kTenant:
        event_.tenant.swap(v);
        return true;
      case Key::kUser:
        event_.user.swap(v);
        return true;
      case Key::kAgent:
        event_.agent.swap(v);
        return true;
      case Key::kSession:
        event_.session.swap(v);
        return true;
      case Key::kTool:
        event_.tool.swap(v);
        return true;
      case Key::kOther:
        return true;
      default:
        return wrong("text is not accepted here");
    }
  }

  const Hasher& hasher_;
  Event event_;
  std::vector<Level> stack_;
  Key key_ = Key::kOther;
  std::uint32_t seen_ = 0;
  std::optional<ArgumentsDigest> digest_;
  std::string error_;
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
    out += json(text).dump(-1, ' ', false, json::error_handler_t::replace);
  }
}

void append_number(std::string& out, double value) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end.ptr);
}

void append_score(std::string& out, const Event& event, const Verdict& verdict) {
  out.append("{\"event_id\":");
  quote(out, event.id);
  out.append(",\"risk\":");
  append_number(out, verdict.risk);
  out.append(",\"risk_pre\":");
  append_number(out, verdict.risk);
  out.append(",\"verdict\":\"").append(name_of(verdict.decision)).append("\",\"signals\":[");
  bool first = true;
  for (const Reason& reason : verdict.reasons) {
    if (!std::exchange(first, false)) out.append(1, ',');
    out.append("{\"name\":\"").append(signal_name(reason.signal)).append("\",\"p\":");
    append_number(out, static_cast<double>(reason.p));
    out.append(",\"value\":");
    append_number(out, reason.numbers.value);
    out.append(",\"baseline\":");
    append_number(out, reason.numbers.baseline);
    out.append(",\"explanation\":");
    quote(out, explain(reason.signal, reason.numbers,
                       {event.user, verdict.tool->name,
                        verdict.previous == nullptr ? std::string_view() : verdict.previous->name}));
    out.append(1, '}');
  }
  out.append("]}\n");
}

// Callers of a stream by their texts, so that each is resolved once.
class Callers {
 public:
  explicit Callers(Engine& engine) : engine_(engine) {}
  const CallerPtr& of(const Event& event) {
    const Hasher& hasher = engine_.hasher();
    const std::uint64_t key = hasher.pair(hasher.text(event.tenant, event.user), hasher.text(event.agent),
                                          hasher.text(event.session));
    if (known_.size() >= kMostCallers) known_.clear();
    CallerPtr& caller = known_[key];
    if (!caller) {
      caller = std::make_shared<Caller>();
      caller->tenant = event.tenant;
      caller->user = event.user;
      caller->agent = caller->group = event.agent;
      caller->session = event.session;
    }
    return caller;
  }

 private:
  Engine& engine_;
  std::unordered_map<std::uint64_t, CallerPtr> known_;
};

}  // namespace

ReplayResult replay(Engine& engine, const InstancePolicy& policy, const ReplayJob& job,
                    const ReplayProgress& progress) {
  LineReader lines(job.source);
  LineWriter scores(job.target);
  EventReader reader(engine.hasher());
  Callers callers(engine);
  ReplayResult result;
  std::string out;
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
    const Verdict verdict =
        engine.check(policy, callers.of(*event), "", event->tool, event->arguments, event->ts);
    if (verdict.ticket != 0)
      engine.observe(verdict.ticket, event->ok ? Outcome::kOk : Outcome::kToolError, event->ts);
    ++result.events;
    ++result.verdicts[static_cast<std::size_t>(verdict.decision)];
    append_score(out, *event, verdict);
    if (out.size() >= kBuffer / 2) {
      scores.write(out);
      out.clear();
    }
    if (result.events % kProgressEvery == 0) progress(lines.at(), lines.size(), result.events);
  }
  scores.write(out);
  scores.close();
  progress(lines.size(), lines.size(), result.events);
  return result;
}

}  // namespace tool_firewall
