// SPDX-License-Identifier: Apache-2.0
// Numbers in sentences.
#pragma once

#include <string>

namespace tool_firewall {

// printf-style, into a string.
[[gnu::format(printf, 1, 2)]] std::string phrase(const char* format, ...);

// A count with at most one decimal, and none when it is whole: "3", "2.5".
std::string quantity(double value);

// An amount of money or the like with three digits that count: "0.00213", "17.5".
std::string amount(double value);

// An hour of the week, 0..167 from Monday midnight UTC: "Tuesday 14:00 UTC".
std::string hour_of_week(int hour);

// A whole number out of a record, which may hold anything: 0 when it is none of 0..most.
int whole(double value, int most);

// A probability as people say it: "1 in 250", "40 %".
std::string odds(double p);

}  // namespace tool_firewall
