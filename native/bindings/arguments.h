// SPDX-License-Identifier: Apache-2.0
// From Python objects to what the engine takes. The only place that walks a call's arguments.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

#include "engine/call.h"
#include "text/hash.h"

namespace tool_firewall {

// A Python str as UTF-8, borrowed where possible. Lone surrogates are kept as their three bytes, as in
// str.encode("utf-8", "surrogatepass"). Throws pybind11::type_error for anything but str. Valid while the str
// lives.
class Text {
 public:
  explicit Text(pybind11::handle value);
  std::string_view view() const { return view_; }

 private:
  std::string owned_;
  std::string_view view_;
};

// The reverse of Text.
pybind11::str to_python(std::string_view text);

// Walks `args` (a dict, or None for no arguments) in place: dict and list subclasses too, nothing is written,
// nothing is copied but strings outside ASCII. Never raises; what cannot be what a tool receives is reported
// as such.
Arguments inspect(pybind11::handle args, const Hasher& hasher);

}  // namespace tool_firewall
