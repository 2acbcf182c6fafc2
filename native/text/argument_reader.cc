// SPDX-License-Identifier: Apache-2.0
#include "text/argument_reader.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cmath>

namespace tool_firewall {
namespace {

constexpr std::uint64_t kFactKinds = 2000;  // of Hasher::pair(); one each
constexpr int kInfinite = 1025;             // a power of two above every double

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
  if (kind != ArgumentKind::kHost || destinations_.size() >= kMostDestinations) return;
  const std::string_view host = value.substr(0, kLongestDestination);
  if (std::find(destinations_.begin(), destinations_.end(), host) == destinations_.end())
    destinations_.emplace_back(host);
}

std::uint64_t ArgumentReader::result() const {
  const std::uint64_t sums[2] = {low_, high_};
  return hasher_.text({reinterpret_cast<const char*>(sums), sizeof sums});
}

}  // namespace tool_firewall
