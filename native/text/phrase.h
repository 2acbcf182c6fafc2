// SPDX-License-Identifier: Apache-2.0
// Numbers in sentences.
#pragma once

#include <string>

namespace tool_firewall {

// printf-style, into a string.
[[gnu::format(printf, 1, 2)]] std::string phrase(const char* format, ...);

// A count with at most one decimal, and none when it is whole: "3", "2.5".
std::string quantity(double value);

// A probability as people say it: "1 in 250", "40 %".
std::string odds(double p);

}  // namespace tool_firewall
