// SPDX-License-Identifier: Apache-2.0
// Whether a tool's name says that something leaves, or changes hands.
#pragma once

#include <string_view>

namespace tool_firewall {

// By the words of the name (my_tool, my-tool2, myTool, MYTool): one for sending, and none for reading. What
// stands before the last slash is the name of a server and does not count.
bool sends(std::string_view tool);

}  // namespace tool_firewall
