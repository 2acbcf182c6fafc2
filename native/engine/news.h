// SPDX-License-Identifier: Apache-2.0
// The "new behaviours" list: what was first seen in a call worth listing and waits for an operator.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.h"

namespace tool_firewall {

struct NewsItem {
  std::string tenant, user;
  std::string id;    // "i-" and sixteen hex digits
  std::string kind;  // tool | step | argument
  std::string what;  // of an argument: address | host | account | domain | folder
  std::string tool, from;
  double since = 0;   // s
  double risk = 0;    // of that call
  std::string state;  // listed | held | rejected
  double until = 0;   // s, of a held one
};

// "" for tenant or user means all. Oldest first for each user. Skips are left out: they go with their tools.
std::vector<NewsItem> news_of(const Engine& engine, std::string_view tenant, std::string_view user);

// The cell an id names; nothing when it is none.
std::optional<std::uint64_t> news_item(std::string_view id);

}  // namespace tool_firewall
