// SPDX-License-Identifier: Apache-2.0
// What a text in the arguments of a call is, as far as it shows by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tool_firewall {

// Values are written into records: append. Addresses, domains, hosts, accounts and places of files say who or
// where, whatever argument they stand in: identities. The rest means something only at its place.
enum class ArgumentKind : std::uint8_t { kAddress, kDomain, kHost, kAccount, kFolder, kValue, kMagnitude };
inline constexpr ArgumentKind kLastArgumentKind = ArgumentKind::kMagnitude;

constexpr bool is_identity(ArgumentKind kind) { return kind < ArgumentKind::kValue; }

// address | domain | host | account | folder | value | magnitude
std::string_view name_of(ArgumentKind kind);
std::optional<ArgumentKind> kind_named(std::string_view name);

inline constexpr std::size_t kLongestValue = 40;  // bytes; longer text is prose, and always new
inline constexpr std::size_t kLongestUrl = 200;   // bytes; what is longer, and no URL with a scheme, is prose
inline constexpr std::size_t kLongestPath = 200;  // bytes
inline constexpr int kFolders = 3;

// What one text says. Views are into the text or into `buffer`; at most two of them.
struct TextFacts {
  struct Fact {
    ArgumentKind kind;
    std::string_view value;  // in lower case where upper case means the same
  };
  Fact of[2];
  int count = 0;
};

// An e-mail address gives the address and its domain; a URL, or a host with a path, its host; up to four
// letters and eight or more digits are an account; a path gives its first kFolders folders and itself as a
// value; other text of up to kLongestValue bytes is a value; longer text gives nothing. Whatever is not ASCII
// counts as a letter. `buffer` keeps what had to be rewritten.
TextFacts facts_of(std::string_view text, std::string& buffer);

}  // namespace tool_firewall
