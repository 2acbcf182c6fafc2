// SPDX-License-Identifier: Apache-2.0
// novel_path (m3: trans, skip, path): how improbable this tool is after the previous one, and after each of
// the last six distinct tools of the session. Both are Witten-Bell chains over user, peer group and tenant,
// on top of how probable the tool is at all.
#include <cmath>

#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr Channel kChannels[] = {
    {.name = "transition",
     .prior = {{.569, 1.690, 2.398, 3.237, 4.997, 6.659, 9.220, 10.594, 12.209, 13.735, 16.501}},
     .weight = 1.2,
     .alone_tenant = 2.8},
    {.name = "skip",
     .prior = {{.878, 1.867, 2.394, 2.994, 3.956, 5.070, 6.401, 7.941, 9.566, 11.641, 13.549}},
     .weight = 1.6},
    {.name = "path",
     .prior = {{1.599, 3.114, 4.367, 5.682, 8.266, 10.565, 12.663, 16.576, 19.888, 23.030, 26.855}},
     .alone_group = 2.8},
};

class NovelPath final : public Signal {
 public:
  std::string_view name() const override { return "novel_path"; }
  std::span<const Channel> channels() const override { return kChannels; }

  void measure(const Sight& sight, std::span<double> raw) override {
    const Usage& usage = sight.usage;
    tool_ = witten_bell(usage.tool(), sight.weight, 0);
    step_ = witten_bell(usage.step(), sight.weight, tool_);
    const double transition = -std::log(step_);
    // The mean of the logarithms as one logarithm: six probabilities of at least 1e-12 cannot underflow.
    double together = 1;
    for (const Item& item : usage.skips()) together *= witten_bell(item, sight.weight, tool_);
    const double skip =
        usage.skips().empty() ? 0 : -std::log(together) / static_cast<double>(usage.skips().size());
    raw[0] = transition;
    raw[1] = skip;
    raw[2] = transition + skip;
  }

  Numbers numbers(const Sight& sight) const override {
    const Tally& user = sight.usage.step().level(Level::kUser);
    const double count = user.count / sight.weight;
    const double total = user.total / sight.weight;
    return {step_, tool_, {static_cast<float>(count), static_cast<float>(total), 0, 0}};
  }

  std::string explain(const Numbers& n, const Names& names) const override {
    const std::string step =
        names.previous.empty()
            ? phrase("%.*s as the first call of a session", static_cast<int>(names.tool.size()),
                     names.tool.data())
            : phrase("%.*s after %.*s", static_cast<int>(names.tool.size()), names.tool.data(),
                     static_cast<int>(names.previous.size()), names.previous.data());
    return phrase("%s was expected with %s (the tool anywhere: %s); the user did it %s of %s times",
                  step.c_str(), odds(n.value).c_str(), odds(n.baseline).c_str(),
                  quantity(n.detail[0]).c_str(), quantity(n.detail[1]).c_str());
  }

 private:
  double tool_ = 0;
  double step_ = 0;
};

}  // namespace

SignalPtr make_novel_path(const SignalSettings&) { return std::make_unique<NovelPath>(); }

}  // namespace tool_firewall
