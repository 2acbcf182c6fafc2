// SPDX-License-Identifier: Apache-2.0
#include "text/phrase.h"

#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace tool_firewall {

std::string phrase(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  const int size = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string text(static_cast<std::size_t>(size > 0 ? size : 0), '\0');
  std::vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

std::string quantity(double value) {
  const double rounded = std::round(value * 10) / 10;
  return std::abs(rounded - std::round(rounded)) < 1e-9 ? phrase("%.0f", rounded) : phrase("%.1f", rounded);
}

std::string amount(double value) { return phrase("%.3g", value); }

std::string hour_of_week(int hour) {
  constexpr std::array<const char*, 7> kDays = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                                "Friday", "Saturday", "Sunday"};
  return phrase("%s %02d:00 UTC", kDays.at(static_cast<std::size_t>(hour / 24 % 7)), hour % 24);
}

int whole(double value, int most) { return value >= 0 && value <= most ? static_cast<int>(value) : 0; }

std::string odds(double p) {
  if (p >= .1) return phrase("%.0f %%", p * 100);
  if (p <= 1e-9) return "less than 1 in 1,000,000,000";
  return phrase("1 in %.0f", 1 / p);
}

}  // namespace tool_firewall
