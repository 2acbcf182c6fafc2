// SPDX-License-Identifier: Apache-2.0
#include "engine/news.h"

#include <algorithm>
#include <charconv>

#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr std::string_view kPrefix = "i-";
constexpr std::size_t kDigits = 16;

std::string_view name_of(ItemKind kind) {
  return kind == ItemKind::kTool ? "tool" : kind == ItemKind::kStep ? "step" : "argument";
}

std::string_view name_of(const HeldItem& item, double now, double new_for) {
  if (item.state == HeldItem::State::kRejected) return "rejected";
  return item.lasts(now, new_for) ? "held" : "listed";
}

NewsItem described(const Principal& user, const HeldItem& item, double now, double new_for) {
  NewsItem news;
  news.tenant = user.tenant;
  news.user = user.user;
  news.id = phrase("i-%016llx", static_cast<unsigned long long>(item.cell));
  news.kind = name_of(item.kind);
  if (item.kind == ItemKind::kArgument) news.what = tool_firewall::name_of(item.argument);
  news.tool = item.tool->name;
  if (item.from != nullptr) news.from = item.from->name;
  news.since = item.since;
  news.risk = item.risk;
  news.state = name_of(item, now, new_for);
  if (news.state == "held") news.until = item.since + new_for;
  return news;
}

}  // namespace

std::vector<NewsItem> news_of(const Engine& engine, std::string_view tenant, std::string_view user) {
  std::vector<NewsItem> out;
  for (const auto& [name, state] : engine.model().principals().tenants()) {
    if (!tenant.empty() && name != tenant) continue;
    for (const auto& [who, principal] : state->principals) {
      if (!user.empty() && who != user) continue;
      for (const HeldItem& item : principal->held)
        if (item.kind != ItemKind::kSkip)
          out.push_back(described(*principal, item, engine.last_call(), engine.model().new_for()));
    }
  }
  std::sort(out.begin(), out.end(), [](const NewsItem& a, const NewsItem& b) {
    return std::tie(a.tenant, a.user, a.since, a.id) < std::tie(b.tenant, b.user, b.since, b.id);
  });
  return out;
}

std::optional<std::uint64_t> news_item(std::string_view id) {
  if (id.size() != kPrefix.size() + kDigits || id.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  std::uint64_t cell = 0;
  const auto read = std::from_chars(id.data() + kPrefix.size(), id.data() + id.size(), cell, 16);
  if (read.ec != std::errc() || read.ptr != id.data() + id.size()) return std::nullopt;
  return cell;
}

}  // namespace tool_firewall
