// SPDX-License-Identifier: Apache-2.0
// How often something happens, divided back beyond a window. Two 32-bit floats; all zero is the first state,
// in which a prior speaks.
#pragma once

#include <algorithm>

namespace tool_firewall {

struct RatePrior {
  double hits;
  double total;
  double window;
};

struct Rate {
  float hits, total;  // no initialisers: all zero is the first state

  double value(const RatePrior& prior) const {
    return total > 0 ? static_cast<double>(hits) / static_cast<double>(total) : prior.hits / prior.total;
  }
  void learn(bool hit, const RatePrior& prior) {
    const double had = total > 0 ? static_cast<double>(hits) : prior.hits;
    const double of = total > 0 ? static_cast<double>(total) : prior.total;
    const double fade = of > prior.window ? prior.window / (of + 1) : 1;
    hits = static_cast<float>(had * fade + (hit ? 1 : 0));
    total = static_cast<float>(of * fade + 1);
  }
};

}  // namespace tool_firewall
