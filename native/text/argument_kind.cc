// SPDX-License-Identifier: Apache-2.0
#include "text/argument_kind.h"

#include <uriparser/Uri.h>

#include <algorithm>
#include <array>

namespace tool_firewall {
namespace {

constexpr std::array<std::string_view, 7> kNames = {"address", "domain", "host",     "account",
                                                    "folder",  "value",  "magnitude"};

constexpr std::size_t kMostLetters = 4;  // of an account
constexpr std::size_t kLeastDigits = 8;
constexpr std::string_view kScheme = "://";
constexpr std::string_view kWww = "www.";

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_word(char c) {
  return is_letter(c) || is_digit(c) || c == '_' || (static_cast<unsigned char>(c) & 0x80) != 0;
}
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// label(.label)+ of word characters and dashes.
bool is_dotted(std::string_view text) {
  std::size_t labels = 0;
  std::size_t length = 0;
  for (const char c : text) {
    if (c == '.') {
      if (length == 0) return false;
      ++labels;
      length = 0;
    } else if (is_word(c) || c == '-') {
      ++length;
    } else {
      return false;
    }
  }
  return labels > 0 && length > 0;
}

bool is_address(std::string_view text) {
  const std::size_t at = text.find('@');
  if (at == 0 || at == std::string_view::npos || !is_dotted(text.substr(at + 1))) return false;
  return std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at),
                     [](char c) { return is_word(c) || c == '.' || c == '+' || c == '-'; });
}

bool is_account(std::string_view text) {
  std::size_t letters = 0;
  while (letters < text.size() && letters < kMostLetters && is_letter(text[letters])) ++letters;
  const std::string_view digits = text.substr(letters);
  return digits.size() >= kLeastDigits && std::all_of(digits.begin(), digits.end(), is_digit);
}

// "notes.txt", "a/b/report.md", "/srv/data": what a bare host with a path may look like, and is not.
bool is_file(std::string_view text) {
  const auto in_name = [](char c) { return is_word(c) || c == '.' || c == '/' || c == '-'; };
  if (text.front() == '/')
    return std::all_of(text.begin(), text.end(), in_name) && text.find("//") == std::string_view::npos;
  const std::size_t dot = text.rfind('.');
  if (dot == std::string_view::npos) return false;
  const std::string_view suffix = text.substr(dot + 1);
  return suffix.size() >= 2 && suffix.size() <= 4 && std::all_of(suffix.begin(), suffix.end(), is_letter) &&
         std::all_of(text.begin(), text.end(), [&](char c) { return in_name(c) || c == ' '; });
}

// Whether this is an absolute URL: a scheme and "://" before anything else.
bool has_scheme(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == 0 || colon == std::string_view::npos || text.substr(colon, kScheme.size()) != kScheme)
    return false;
  return is_letter(text.front()) &&
         std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(colon),
                     [](char c) { return is_letter(c) || is_digit(c) || c == '+' || c == '-' || c == '.'; });
}

// False when RFC 3986 does not allow such a URL.
bool parse_host(std::string_view url, std::string_view& host) {
  UriUriA uri;
  const char* wrong = nullptr;
  if (uriParseSingleUriExA(&uri, url.data(), url.data() + url.size(), &wrong) != URI_SUCCESS) return false;
  host = uri.hostText.first == nullptr
             ? std::string_view()
             : std::string_view(uri.hostText.first,
                                static_cast<std::size_t>(uri.hostText.afterLast - uri.hostText.first));
  uriFreeUriMembersA(&uri);
  return true;
}

// The host of a URL. Where only what follows the host is wrong, as unescaped letters often are, the host
// still says where it leads. Of anything else all of it counts, which is just as new a destination.
std::string_view host_of_url(std::string_view text) {
  std::string_view host;
  if (parse_host(text, host)) return host;
  if (std::any_of(text.begin(), text.end(), is_space)) return text;
  const std::size_t after = text.find_first_of("/?#", text.find(kScheme) + kScheme.size());
  return parse_host(text.substr(0, after), host) ? host : text;
}

bool has_www(std::string_view text) {
  return text.size() > kWww.size() &&
         std::equal(kWww.begin(), kWww.end(), text.begin(), [](char a, char b) { return a == lower(b); });
}

// Dotted, and ends as names of hosts do, or is an IPv4 address: "3.14" and "v1.2" are neither.
bool is_host(std::string_view text) {
  if (!is_dotted(text)) return false;
  const std::string_view last = text.substr(text.rfind('.') + 1);
  if (last.size() >= 2 &&
      std::none_of(last.begin(), last.end(), [](char c) { return is_digit(c) || c == '_'; }))
    return true;
  return std::count(text.begin(), text.end(), '.') == 3 &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_digit(c) || c == '.'; });
}

// The host of "host", "host/path" and "host:port/path" without a scheme; empty for anything else.
std::string_view bare_host(std::string_view text) {
  if (text.size() >= kLongestUrl || std::any_of(text.begin(), text.end(), is_space)) return {};
  const std::string_view authority = text.substr(0, text.find_first_of("/?#"));
  const std::size_t colon = authority.find(':');
  const std::string_view host = authority.substr(0, colon);
  if (!is_host(host)) return {};
  if (colon == std::string_view::npos) return is_file(text) && !has_www(text) ? std::string_view() : host;
  const std::string_view port = authority.substr(colon + 1);
  return !port.empty() && std::all_of(port.begin(), port.end(), is_digit) ? host : std::string_view();
}

std::string_view lowered(std::string_view text, std::string& buffer) {
  if (std::none_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; })) return text;
  buffer.resize(text.size());
  std::transform(text.begin(), text.end(), buffer.begin(), lower);
  return buffer;
}

std::string_view without_www(std::string_view host) {
  return has_www(host) && is_dotted(host.substr(kWww.size())) ? host.substr(kWww.size()) : host;
}

// The first folders of a path, slashes either way; false for what is no path.
bool folder_of(std::string_view text, std::string& buffer, std::string_view& folder) {
  if (text.size() > kLongestPath || std::any_of(text.begin(), text.end(), is_space)) return false;
  const auto is_slash = [](char c) { return c == '/' || c == '\\'; };
  int left = kFolders + (is_slash(text.front()) ? 1 : 0);
  std::size_t end = std::string_view::npos;  // of the folders so far
  for (std::size_t i = 0; i < text.size() && left > 0; ++i) {
    if (!is_slash(text[i])) continue;
    end = i;
    --left;
  }
  if (end == std::string_view::npos) return false;
  folder = text.substr(0, end);
  if (folder.find('\\') != std::string_view::npos) {
    buffer = folder;
    std::replace(buffer.begin(), buffer.end(), '\\', '/');
    folder = buffer;
  }
  return true;
}

}  // namespace

std::string_view name_of(ArgumentKind kind) { return kNames.at(static_cast<std::size_t>(kind)); }

std::optional<ArgumentKind> kind_named(std::string_view name) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end()) return std::nullopt;
  return static_cast<ArgumentKind>(found - kNames.begin());
}

TextFacts facts_of(std::string_view text, std::string& buffer) {
  TextFacts facts;
  const auto says = [&facts](ArgumentKind kind, std::string_view value) {
    facts.of[facts.count++] = {kind, value};
  };
  if (text.empty()) {
    says(ArgumentKind::kValue, text);
  } else if (is_address(text)) {
    const std::string_view address = lowered(text, buffer);
    says(ArgumentKind::kAddress, address);
    says(ArgumentKind::kDomain, address.substr(address.find('@') + 1));
  } else if (has_scheme(text)) {
    const std::string_view host = without_www(lowered(host_of_url(text), buffer));
    if (!host.empty()) says(ArgumentKind::kHost, host);
  } else if (const std::string_view host = bare_host(text); !host.empty()) {
    says(ArgumentKind::kHost, without_www(lowered(host, buffer)));
  } else if (is_account(text)) {
    says(ArgumentKind::kAccount, text);
  } else {
    if (std::string_view folder; folder_of(text, buffer, folder)) says(ArgumentKind::kFolder, folder);
    if (text.size() <= kLongestValue) says(ArgumentKind::kValue, text);
  }
  return facts;
}

}  // namespace tool_firewall
