// SPDX-License-Identifier: Apache-2.0
#include "text/argument_kind.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace tool_firewall {
namespace {

// "kind value|kind value".
std::string said(std::string_view text) {
  std::string buffer, out;
  const TextFacts facts = facts_of(text, buffer);
  for (int i = 0; i < facts.count; ++i) {
    if (i > 0) out += '|';
    out.append(name_of(facts.of[i].kind)).append(" ").append(facts.of[i].value);
  }
  return out;
}

struct Row {
  std::string text;
  std::string says;
};

void expect_all(const std::vector<Row>& rows) {
  for (const Row& row : rows) EXPECT_EQ(said(row.text), row.says) << row.text;
}

TEST(ArgumentKind, Addresses) {
  expect_all({{"bob@example.com", "address bob@example.com|domain example.com"},
              {"Bob.B@Example.COM", "address bob.b@example.com|domain example.com"},
              {"bob+tag@mail.example.com", "address bob+tag@mail.example.com|domain mail.example.com"},
              {"zo\xc3\xab@b\xc3\xbc"
               "cher.example",
               "address zo\xc3\xab@b\xc3\xbc"
               "cher.example|domain b\xc3\xbc"
               "cher.example"},
              {"a@b", "value a@b"},
              {"@example.com", "value @example.com"},
              {"bob@", "value bob@"},
              {"a@b@example.com", "value a@b@example.com"},
              {"bob@example..com", "value bob@example..com"},
              {"bob@example.com ", "value bob@example.com "},
              {"Bob <bob@example.com>", "value Bob <bob@example.com>"}});
}

TEST(ArgumentKind, Urls) {
  expect_all({{"https://example.com", "host example.com"},
              {"https://Example.COM:8443/a?b=c#d", "host example.com"},
              {"HTTPS://WWW.Example.com/", "host example.com"},
              {"http://user:secret@evil.example/x", "host evil.example"},
              {"http://trusted.example@evil.example/", "host evil.example"},
              {"http://127.0.0.1:8080/admin", "host 127.0.0.1"},
              {"http://[2001:DB8::1]:80/x", "host 2001:db8::1"},
              {"http://localhost/", "host localhost"},
              {"ftp://files.example.com/x", "host files.example.com"},
              {"s3://bucket/key", "host bucket"},
              {"git+ssh://git.example.com/r", "host git.example.com"},
              {"wss://a_b.example/", "host a_b.example"},
              {"http://www.com/", "host www.com"},
              {"file:///etc/passwd", ""},
              {"http:///x", ""}});
}

TEST(ArgumentKind, OfAUrlThatIsNoneAllIsTheDestination) {
  expect_all({{"http://exa mple.com/", "host http://exa mple.com/"},
              {"http://b\xc3\xbc"
               "cher.example/",
               "host http://b\xc3\xbc"
               "cher.example/"},
              {"http://[::1/", "host http://[::1/"},
              {"http://a.exa%mple/", "host http://a.exa%mple/"},
              {"http://example.com:port/", "host http://example.com:port/"},
              {"1http://example.com", "folder 1http:/|value 1http://example.com"},
              {"://example.com", "folder :/|value ://example.com"},
              {"mailto:bob@example.com", "value mailto:bob@example.com"}});
}

TEST(ArgumentKind, WhereOnlyWhatFollowsTheHostIsWrongTheHostIsIt) {
  expect_all({{"http://a.example/%zz", "host a.example"},
              {"https://A.example/caf\xc3\xa9", "host a.example"},
              {"https://a.example?q={x}", "host a.example"},
              {"https://a.example#\"", "host a.example"},
              {"https://a.example/two words", "host https://a.example/two words"},
              {"https://caf\xc3\xa9.example/caf\xc3\xa9", "host https://caf\xc3\xa9.example/caf\xc3\xa9"}});
}

TEST(ArgumentKind, AreFoundByTheirNames) {
  for (std::size_t i = 0; i <= static_cast<std::size_t>(kLastArgumentKind); ++i)
    EXPECT_EQ(kind_named(name_of(static_cast<ArgumentKind>(i))), static_cast<ArgumentKind>(i));
  for (const char* name : {"", "Host", "hosts", "host ", "0"}) EXPECT_FALSE(kind_named(name)) << name;
}

TEST(ArgumentKind, HostsWithoutASchemeAreNotFiles) {
  expect_all({{"evil.example", "host evil.example"},
              {"EVIL.example/path?q", "host evil.example"},
              {"example.com/path", "host example.com"},
              {"example.com:443", "host example.com"},
              {"example.com:443/x", "host example.com"},
              {"www.example.com", "host example.com"},
              {"10.0.0.1", "host 10.0.0.1"},
              {"10.0.0.1:22", "host 10.0.0.1"},
              {"example.com", "value example.com"},  // as report.pdf
              {"report.pdf", "value report.pdf"},
              {"notes.txt", "value notes.txt"},
              {"example.com:abc", "value example.com:abc"},
              {"example.com:", "value example.com:"},
              {"3.14", "value 3.14"},
              {"v1.2", "value v1.2"},
              {"1.2.3", "value 1.2.3"},
              {"a..b", "value a..b"},
              {".hidden", "value .hidden"},
              {"two words.example", "value two words.example"}});
}

TEST(ArgumentKind, PathsEitherWay) {
  expect_all(
      {{"/srv/data/x/y/z.txt", "folder /srv/data/x|value /srv/data/x/y/z.txt"},
       {"/etc/passwd", "folder /etc|value /etc/passwd"},
       {"/", "folder |value /"},
       {"a/b/report.md", "folder a/b|value a/b/report.md"},
       {"one/two/three/four/five", "folder one/two/three|value one/two/three/four/five"},
       {"C:\\Users\\bob\\Documents\\x.doc", "folder C:/Users/bob|value C:\\Users\\bob\\Documents\\x.doc"},
       {"\\\\server\\share\\dir\\x", "folder //server/share|value \\\\server\\share\\dir\\x"},
       {"mixed/slashes\\here", "folder mixed/slashes|value mixed/slashes\\here"},
       {"either / or", "value either / or"},
       {"/srv/" + std::string(60, 'a'), "folder /srv"},
       {"/srv/" + std::string(300, 'a'), ""}});
}

TEST(ArgumentKind, Accounts) {
  expect_all({{"DE89370400440532013000", "account DE89370400440532013000"},
              {"12345678", "account 12345678"},
              {"ABCD12345678", "account ABCD12345678"},
              {"1234567", "value 1234567"},
              {"ABCDE12345678", "value ABCDE12345678"},
              {"12345678a", "value 12345678a"},
              {"1234 5678", "value 1234 5678"},
              {std::string(100, '7'), "account " + std::string(100, '7')}});
}

TEST(ArgumentKind, TheRestIsAValueOrProse) {
  expect_all({{"", "value "},
              {"hello", "value hello"},
              {"Zo\xc3\xab", "value Zo\xc3\xab"},
              {std::string("a\0b", 3), std::string("value a\0b", 9)},
              {std::string(40, 'x'), "value " + std::string(40, 'x')},
              {std::string(41, 'x'), ""},
              {"please write to all of our customers, and soon", ""},
              {"\xff\xfe", "value \xff\xfe"}});
}

TEST(ArgumentKind, LongTextIsTakenInItsStride) {
  const std::string much(1U << 20, 'a');
  EXPECT_EQ(said(much), "");
  EXPECT_EQ(said("https://" + much + ".example/"), "host " + much + ".example");
  EXPECT_EQ(said(much + ".example/x"), "") << "no scheme: prose";
  EXPECT_EQ(said("https://evil.example/" + much), "host evil.example");
  EXPECT_EQ(said(much + "@example.com"), "address " + much + "@example.com|domain example.com");
  EXPECT_EQ(said(std::string(1U << 20, '/')), "");
  EXPECT_EQ(said(std::string(1U << 20, '.')), "");
}

TEST(ArgumentKind, WhateverTheTextItSaysAtMostTwoThingsOfIt) {
  std::mt19937 random(31);
  const std::string pieces[] = {"http",
                                "://",
                                "@",
                                ".",
                                "/",
                                "\\",
                                "www.",
                                "a",
                                "B",
                                "9",
                                "\xc3\xab",
                                ":",
                                "[",
                                "]",
                                "%",
                                "?",
                                "#",
                                " ",
                                std::string(1, '\0'),
                                "\n",
                                "example",
                                "com",
                                "12345678"};
  std::string buffer;
  for (int i = 0; i < 50'000; ++i) {
    std::string text;
    for (auto n = random() % 9; n > 0; --n) text += pieces[random() % std::size(pieces)];
    const TextFacts facts = facts_of(text, buffer);
    ASSERT_GE(facts.count, 0);
    ASSERT_LE(facts.count, 2);
    for (int k = 0; k < facts.count; ++k) {
      ASSERT_LE(facts.of[k].kind, kLastArgumentKind);
      ASSERT_LE(facts.of[k].value.size(), text.size());
      std::string copy(facts.of[k].value);  // it can be read
      ASSERT_EQ(copy.size(), facts.of[k].value.size());
    }
  }
}

TEST(ArgumentKind, NamesAreKnownAndIdentitiesComeFirst) {
  const char* const names[] = {"address", "domain", "host", "account", "folder", "value", "magnitude"};
  for (std::size_t i = 0; i < std::size(names); ++i) {
    EXPECT_EQ(name_of(static_cast<ArgumentKind>(i)), names[i]) << "written into records";
    EXPECT_EQ(is_identity(static_cast<ArgumentKind>(i)), i < 5) << names[i];
  }
}

}  // namespace
}  // namespace tool_firewall
