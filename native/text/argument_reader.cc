// SPDX-License-Identifier: Apache-2.0
#include "text/argument_reader.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::uint64_t kFactKinds = 2000;  // of Hasher::pair(); one each
// Hosts are recorded in clear. What a faulty URL has in the place of its host is not.
bool shows_nothing_else(std::string_view host) {
  return std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' || c == ':' ||
           (static_cast<unsigned char>(c) & 0x80) != 0;
  });
}

bool read_hex(std::string_view text, std::uint64_t& value) {
  const auto read = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  return text.size() == 16 && read.ec == std::errc() && read.ptr == text.data() + text.size();
}

constexpr int kInfinite = 1025;  // a power of two above every double

}  // namespace

ArgumentReader::Path ArgumentReader::member(const Path& parent, std::string_view key) const {
  const std::uint64_t name = XXH3_64bits_withSeed(key.data(), key.size(), hasher_.seed());
  Path path;
  path.exact = hasher_.pair('.', parent.exact, name);
  path.place = parent.exact == parent.place ? path.exact : hasher_.pair('.', parent.place, name);
  path.beyond = parent.beyond;
  return path;
}

ArgumentReader::Path ArgumentReader::element(const Path& parent, std::size_t index) const {
  return {hasher_.pair('[', parent.exact, index), hasher_.pair('[', parent.place, kMostElements),
          parent.beyond || index >= kMostElements};
}

void ArgumentReader::digest(const Path& path, char type, const void* data, std::size_t size) {
  const XXH128_hash_t hash =
      XXH3_128bits_withSeed(data, size, hasher_.seed() + path.exact * 31 + static_cast<unsigned char>(type));
  low_ += hash.low64;
  high_ += hash.high64;
}

void ArgumentReader::nothing(const Path& path) {
  digest(path, 'n', nullptr, 0);
  if (!path.beyond) ++leaves_;
}

void ArgumentReader::number(const Path& path, char type, const void* data, std::size_t size, double value) {
  digest(path, type, data, size);
  if (path.beyond || ++leaves_ > kMostLeaves) return;
  // Sign, and the power of two above it.
  int exponent = 0;
  std::frexp(value, &exponent);
  if (!std::isfinite(value)) exponent = kInfinite;
  const std::int32_t magnitude[2] = {value > 0 ? 1 : value < 0 ? -1 : 0, value == 0 ? 0 : exponent};
  fact(path, ArgumentKind::kMagnitude, {reinterpret_cast<const char*>(magnitude), sizeof magnitude}, false);
}

void ArgumentReader::truth(const Path& path, bool value) {
  digest(path, value ? 't' : 'f', nullptr, 0);
  if (path.beyond || ++leaves_ > kMostLeaves) return;
  // Not a text that anybody can send.
  fact(path, ArgumentKind::kValue, {value ? "\0true" : "\0false", 5}, false);
}

void ArgumentReader::text(const Path& path, std::string_view value) {
  digest(path, 's', value.data(), value.size());
  if (path.beyond || ++leaves_ > kMostLeaves) return;
  const TextFacts found = facts_of(value, buffer_);
  for (int i = 0; i < found.count; ++i) fact(path, found.of[i].kind, found.of[i].value, i > 0);
}

void ArgumentReader::fact(const Path& path, ArgumentKind kind, std::string_view value, bool second) {
  // SipHash first, unlike for the rest: these go into records one by one, and values can be short.
  const std::uint64_t place = hasher_.text({reinterpret_cast<const char*>(&path.place), sizeof path.place});
  const auto which = kFactKinds + static_cast<std::uint64_t>(kind);
  facts_.add({hasher_.pair(which, place), hasher_.pair(which, hasher_.text(value)), kind, second});
  if (kind != ArgumentKind::kHost || destinations_.size() >= kMostDestinations || !shows_nothing_else(value))
    return;
  const std::string_view host = value.substr(0, kLongestDestination);
  if (std::find(destinations_.begin(), destinations_.end(), host) == destinations_.end())
    destinations_.emplace_back(host);
}

std::string to_text(std::span<const ArgumentFact> facts) {
  std::string text;
  for (const ArgumentFact& fact : facts) {
    if (!text.empty()) text.append(1, ';');
    text.append(name_of(fact.kind)).append(fact.second ? "+" : "");
    text.append(phrase(" %016llx %016llx", static_cast<unsigned long long>(fact.place),
                       static_cast<unsigned long long>(fact.value)));
  }
  return text;
}

std::optional<std::vector<ArgumentFact>> facts_from(std::string_view text) {
  std::vector<ArgumentFact> facts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(';'), text.size());
    std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    ArgumentFact fact;
    const std::size_t space = std::min(one.find(' '), one.size());
    std::string_view kind = one.substr(0, space);
    if (kind.ends_with('+')) {
      fact.second = true;
      kind.remove_suffix(1);
    }
    const std::optional<ArgumentKind> known = kind_named(kind);
    if (!known || one.size() != space + 34 || one[space + 17] != ' ' ||
        !read_hex(one.substr(space + 1, 16), fact.place) || !read_hex(one.substr(space + 18), fact.value) ||
        (fact.second && facts.empty()) || facts.size() == ArgumentFacts::kMost)
      return std::nullopt;
    fact.kind = *known;
    facts.push_back(fact);
  }
  return facts;
}

std::uint64_t ArgumentReader::result() const {
  const std::uint64_t sums[2] = {low_, high_};
  return hasher_.text({reinterpret_cast<const char*>(sums), sizeof sums});
}

}  // namespace tool_firewall
