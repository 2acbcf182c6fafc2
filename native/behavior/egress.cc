// SPDX-License-Identifier: Apache-2.0
#include "behavior/egress.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

namespace tool_firewall {
namespace {

constexpr std::array<std::string_view, 23> kSending = {
    "send",    "post",    "upload",   "share",  "invite",   "transfer", "publish",    "forward",
    "reply",   "webhook", "export",   "submit", "schedule", "tweet",    "mail",       "email",
    "webpage", "http",    "download", "curl",   "pay",      "money",    "transaction"};
constexpr std::array<std::string_view, 8> kReading = {"search",    "list", "find",    "read",
                                                      "calculate", "view", "display", "lookup"};

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }

bool among(std::string_view word, const auto& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

bool sends(std::string_view tool) {
  tool.remove_prefix(tool.rfind('/') + 1);  // npos + 1 is 0
  bool sending = false;
  std::string word;
  for (std::size_t i = 0; i <= tool.size(); ++i) {
    const char c = i < tool.size() ? tool[i] : '\0';
    const bool inside = is_lower(c) || is_upper(c);
    const bool before_lower = i + 1 < tool.size() && is_lower(tool[i + 1]);
    const bool next_word = is_upper(c) && i > 0 && (is_lower(tool[i - 1]) || before_lower);
    if (!inside || next_word) {
      if (among(word, kReading)) return false;
      sending |= among(word, kSending);
      word.clear();
    }
    if (inside) word.push_back(is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c);
  }
  return sending;
}

}  // namespace tool_firewall
