// SPDX-License-Identifier: Apache-2.0
// What is kept of a call's arguments: a keyed digest of all of them, and for each leaf a keyed digest of what
// it says. Made in one pass over whatever holds them, without copying.
//
// digest    Every leaf hashes its exact path, its type and its value (XXH3, secret seed); the 128-bit hashes
//           are added up, so that the order of keys does not matter, and the sum goes through SipHash with
//           the secret key: it says nothing without the installation's key. Text counts as UTF-8.
// facts     The first kMostLeaves leaves, in the order of the text: a place (path without the positions in
//           lists, and kind), a kind (argument_kind.h) and a value. Of a list the first kMostElements.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/argument_kind.h"
#include "text/hash.h"

namespace tool_firewall {

// Limits of what is inspected. Cyclic values run into the depth, shared ones into the size.
inline constexpr int kMostDepth = 64;
inline constexpr std::size_t kMostBytes = 1U << 20;  // text bytes, plus kNodeBytes for each key and value
inline constexpr std::size_t kNodeBytes = 8;

inline constexpr std::size_t kMostLeaves = 16;
inline constexpr std::size_t kMostElements = 8;
inline constexpr std::size_t kMostDestinations = 4;
inline constexpr std::size_t kLongestDestination = 255;  // bytes; longer ones are cut

// One thing an argument says. `place` and `value` are keyed digests.
struct ArgumentFact {
  std::uint64_t place = 0;
  std::uint64_t value = 0;
  ArgumentKind kind = ArgumentKind::kValue;
  bool second = false;  // of the same text as the fact before it
};

// Up to two a leaf, without memory of its own; a copy copies what is there.
class ArgumentFacts {
 public:
  static constexpr std::size_t kMost = 2 * kMostLeaves;

  ArgumentFacts() {}  // NOLINT(modernize-use-equals-default): must not fill the array
  ArgumentFacts(const ArgumentFacts& other) { *this = other; }
  ArgumentFacts& operator=(const ArgumentFacts& other) {
    count_ = other.count_;
    std::memcpy(of_.data(), other.of_.data(), count_ * sizeof(ArgumentFact));
    return *this;
  }
  ~ArgumentFacts() = default;

  void add(const ArgumentFact& fact) {
    if (count_ < kMost) of_[count_++] = fact;
  }
  void clear() { count_ = 0; }
  std::size_t size() const { return count_; }
  const ArgumentFact& operator[](std::size_t i) const { return of_[i]; }
  const ArgumentFact* begin() const { return of_.data(); }
  const ArgumentFact* end() const { return of_.data() + count_; }

 private:
  union {  // so that nothing is written before add()
    std::array<ArgumentFact, kMost> of_;
  };
  std::size_t count_ = 0;
};

class ArgumentReader {
 public:
  struct Path {
    std::uint64_t exact = 0;
    std::uint64_t place = 0;  // without positions in lists
    bool beyond = false;      // past kMostElements of a list: digested only
  };

  ArgumentReader(const Hasher& hasher, ArgumentFacts& facts, std::vector<std::string>& destinations)
      : hasher_(hasher), facts_(facts), destinations_(destinations) {}

  // False once the size limit is passed: stop reading.
  bool spend(std::size_t bytes) {
    spent_ += bytes + kNodeBytes;
    return spent_ <= kMostBytes;
  }

  Path member(const Path& parent, std::string_view key) const;  // of an object
  Path element(const Path& parent, std::size_t index) const;    // of a list
  void structure(const Path& path, char type) {
    digest(path, type, nullptr, 0);
  }                                // the end of an object or list
  void nothing(const Path& path);  // null
  // `value`: its magnitude counts, infinite for what is too large; the bytes are what is digested.
  void number(const Path& path, char type, const void* data, std::size_t size, double value);
  void truth(const Path& path, bool value);
  void text(const Path& path, std::string_view value);

  std::uint64_t result() const;

 private:
  void digest(const Path& path, char type, const void* data, std::size_t size);
  void fact(const Path& path, ArgumentKind kind, std::string_view value, bool second);

  const Hasher& hasher_;
  ArgumentFacts& facts_;
  std::vector<std::string>& destinations_;
  std::string buffer_;
  std::size_t leaves_ = 0;
  std::size_t spent_ = 0;
  std::uint64_t low_ = 0;
  std::uint64_t high_ = 0;
};

// Facts as text that survives any file format, and back: "host 0123456789abcdef fedcba9876543210;value+ ...",
// with a + where a fact is of the same text as the one before. Nothing for what is no such text.
std::string to_text(std::span<const ArgumentFact> facts);
std::optional<std::vector<ArgumentFact>> facts_from(std::string_view text);

}  // namespace tool_firewall
