// SPDX-License-Identifier: Apache-2.0
// cost: how dear this call, and the user's last calls together, are for what they do; and what only grows
// slowly.
//
//   usual   ln cost = usual of the tool in this tenant + usual of the user (shrunk to the peer group); both
//           learned from what the other leaves over
//   z       of this call against that, with the uncertainty of young means
//   run     the largest sum of the last k z of the user over sqrt(k), k up to 10, while this call is dear too
// The larger counts. Measured after the call, when its cost is known; before it, the run of its session so
// far.
//
//   drift   a floor for slow ramps, against a frozen reference: tools as they cost at first, users as they
//   spent
//           on their first five days. A cumulative sum of ln(cost / reference), less ln 1.5 a call, that
//           reaches 10 puts the risk at .5 and begins anew (Page, Continuous inspection schemes, 1954).
//   budget  an absolute limit for a session or a day of a user, where one is set: risk .5 beyond it.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "behavior/fusion.h"
#include "behavior/moments.h"
#include "behavior/signal.h"
#include "text/phrase.h"

namespace tool_firewall {
namespace {

constexpr double kShrinkTool = 2;  // calls
constexpr double kLeastVariance = .04;
constexpr double kYoung = .25;      // variance of a mean of one call
constexpr std::size_t kRun = 10;    // calls of a user
constexpr double kRunLeast = -2.5;  // standard deviations of one call in a run
constexpr double kRunMost = 3.5;
constexpr double kRunEnds = 1800;  // s without a call that costs
constexpr double kDear = 1.5;      // standard deviations
constexpr double kClip = 3;        // standard deviations one call may teach

constexpr std::uint32_t kFirstCalls = 50;  // of a tool, for the frozen reference
constexpr double kFirstOfAll = 500;        // of a tenant
constexpr std::uint32_t kFirstDays = 5;    // of a user
constexpr double kFirstOfUser = 50;        // calls
const double kTolerated = std::log(1.5);
constexpr double kMostOfOne = 1.5;  // nats that one call adds
constexpr double kDrifted = 10;     // nats

struct UserCost {
  double last;  // s, of the last call that cost something
  double last_z;
  std::uint64_t last_session;
  std::array<float, kRun> run;  // z of the last calls, a ring
  std::uint32_t next;
  std::uint32_t filled;
  Moments usual;  // ln cost over what the tool usually costs
  // drift
  double reference, reference_calls;
  double drift;
  std::int32_t reference_day;
  std::uint32_t reference_days;  // with calls, up to kFirstDays + 1: then the reference is frozen
  // budget
  double day_spent;
  std::int32_t day;
  std::uint32_t reserved;
};

struct PeersCost {
  Moments usual;              // of the users
  Moments all;                // ln cost, of a tenant
  double first, first_calls;  // mean ln cost of the first calls, of a tenant
};

struct SessionCost {
  double spent;
};

// The usual ln cost of a tool: how many calls (up to `most`) it is the mean of, and the mean, in one cell of
// the tenant's table.
struct ToolCost {
  static constexpr std::uint32_t kShift = 22;
  static constexpr double kUnit = 1U << 16;
  static constexpr double kOffset = 32;  // ln of any cost lies within +-32

  explicit ToolCost(std::uint32_t bits)
      : calls(bits >> kShift), mean((bits & ((1U << kShift) - 1)) / kUnit - kOffset) {}
  std::uint32_t bits() const {
    const double units = std::floor((mean + kOffset) * kUnit + .5);
    return calls << kShift |
           static_cast<std::uint32_t>(std::clamp(units, 0., static_cast<double>((1U << kShift) - 1)));
  }
  void learn(double ln_cost, std::uint32_t most) {
    calls = std::min(calls + 1, most);
    mean += (ln_cost - mean) / calls;
  }

  std::uint32_t calls;
  double mean;
};

// Whether a call's day is another one than that of the last call. A call that began before midnight and ended
// later is one of today; what is further back comes from a clock that was wrong, now or then.
bool another_day(std::int32_t day, std::int32_t last) { return day > last || day < last - 1; }

double shrunk(const ToolCost& tool, double all) {
  const double own = tool.calls > 0 ? tool.calls * tool.mean : 0;
  return (own + kShrinkTool * all) / (tool.calls + kShrinkTool);
}

enum Kind : std::uint8_t {
  kNothing,
  kCall,
  kTogether,
  kDrift,
  kSessionBudget,
  kDayBudget,
  kLastKind = kDayBudget
};

constexpr Channel kChannels[] = {
    {.name = "cost",
     .prior = {{0, .78, 1.21, 1.63, 2.30, 2.78, 3.32, 3.94, 4.34, 4.68, 5.12}},
     .alone_group = 2.2,
     .after = true},
};

class Cost final : public Signal {
 public:
  explicit Cost(const SignalSettings& settings)
      : hasher_(*settings.hasher),
        session_budget_(settings.session_budget),
        day_budget_(settings.day_budget) {}

  std::string_view name() const override { return "cost"; }
  std::span<const Channel> channels() const override { return kChannels; }
  StateSize state() const override { return {sizeof(UserCost), sizeof(PeersCost), sizeof(SessionCost)}; }

  void measure(const Sight& sight, std::span<double> raw) override {
    const auto& user = of<UserCost>(*sight.levels.user);
    numbers_ = {};
    raw[0] = 0;
    if (user.last > 0 && user.last_session == sight.session->id && user.last_z >= kDear &&
        sight.now - user.last <= kRunEnds) {
      const Run run = run_of(user);
      raw[0] = run.score;
      numbers_ = {run.calls, 0, {kTogether, 0, 0, 0}};
    }
    floor_ =
        over_budget(of<SessionCost>(*sight.session).spent, user.day == sight.local.day ? user.day_spent : 0);
  }

  double floor() const override { return floor_; }
  double floor_after() const override { return floor_; }
  Numbers numbers(const Sight&) const override { return numbers_; }
  Numbers numbers_after() const override { return numbers_; }

  bool measure_after(const Ran& ran, std::span<double> raw) override {
    floor_ = 0;
    if (!(ran.cost > 0)) return false;
    auto& user = of<UserCost>(*ran.levels.user);
    auto& group = of<PeersCost>(*ran.levels.group);
    auto& tenant = of<PeersCost>(*ran.levels.tenant);
    ShardedCountTable& costs = ran.levels.tenant->counts;
    const std::uint64_t key = hasher_.pair(static_cast<std::uint64_t>(KeyKind::kToolCost), ran.tool->id);
    ToolCost tool(costs.bits(key));
    const double ln_cost = std::log(ran.cost);
    // The first call of a tenant says what its costs are like; until then 1 would be as good as any.
    const double of_tool = tenant.all.n > 0 ? shrunk(tool, tenant.all.mean) : ln_cost;
    const double of_user = expected_mean(user.usual, group.usual);
    const double deviation = deviation_of(user.usual, group.usual, tool);
    const double z = (ln_cost - of_tool - of_user) / deviation;

    const Run run = remember(user, ran, z);
    const bool together = z >= kDear && run.score > z;
    raw[0] = std::max({0., z, z >= kDear ? run.score : 0});
    numbers_ = {ran.cost,
                std::exp(of_tool + of_user),
                {static_cast<float>(together ? kTogether : kCall), static_cast<float>(run.calls), 0, 0}};
    drift(ran, user, tenant, ln_cost);
    spend(ran, user);

    const double learned = of_tool + of_user + std::clamp(z, -kClip, kClip) * deviation;
    tool.learn(learned - of_user, static_cast<std::uint32_t>(Moments::kMemory));
    costs.set_bits(key, tool.bits());
    tenant.all.learn(learned - of_user);
    user.usual.learn(learned - of_tool);
    group.usual.learn(learned - of_tool);
    return true;
  }

  // A dearer way of working that is fine: the reference begins anew.
  void accept(Principal& principal, std::string_view what) override {
    if (what != name()) return;
    auto& user = of<UserCost>(principal);
    user.reference = user.reference_calls = user.drift = 0;
    user.reference_days = 0;
  }

  std::vector<Fact> facts(const Levels& levels, double) const override {
    const auto& user = of<UserCost>(*levels.user);
    if (user.usual.n <= 0) return {};
    return {{"calls", user.usual.n},
            {"times_usual", std::exp(expected_mean(user.usual, of<PeersCost>(*levels.group).usual))},
            {"times_at_first", std::exp(user.reference)},
            {"spent_today", user.day_spent}};
  }

  std::string explain(const Numbers& n, const Names& names) const override {
    const int length = static_cast<int>(names.tool.size());
    switch (static_cast<Kind>(whole(static_cast<double>(n.detail[0]), kLastKind))) {
      case kTogether:
        if (n.baseline <= 0)
          return phrase("the last %s calls of this user together were far dearer than usual",
                        quantity(n.value).c_str());
        return phrase(
            "this call of %.*s cost %s where %s is usual, and the last %s calls together were dearer than "
            "usual",
            length, names.tool.data(), amount(n.value).c_str(), amount(n.baseline).c_str(),
            quantity(static_cast<double>(n.detail[1])).c_str());
      case kDrift:
        return phrase(
            "this user's calls have become dearer and dearer: this call of %.*s cost %s, at first it would "
            "have cost about %s",
            length, names.tool.data(), amount(n.value).c_str(), amount(n.baseline).c_str());
      case kSessionBudget:
        return phrase("this session has cost %s; its budget is %s", amount(n.value).c_str(),
                      amount(n.baseline).c_str());
      case kDayBudget:
        return phrase("this user has spent %s today; the budget is %s", amount(n.value).c_str(),
                      amount(n.baseline).c_str());
      default:
        return phrase("this call of %.*s cost %s; usual is %s", length, names.tool.data(),
                      amount(n.value).c_str(), amount(n.baseline).c_str());
    }
  }

  void adopt(std::span<const std::byte> saved, std::span<std::byte> own) const override {
    if (saved.size() != own.size()) return;
    if (saved.size() == sizeof(UserCost)) {
      UserCost user;
      std::memcpy(&user, saved.data(), sizeof user);
      if (user.next >= kRun || user.filled > kRun) return;
    }
    std::copy(saved.begin(), saved.end(), own.begin());
  }

 private:
  struct Run {
    double score = 0;
    double calls = 0;
  };

  static double deviation_of(const Moments& user, const Moments& group, const ToolCost& tool) {
    const double prior = group.n > 5 ? std::max(group.variance, kFirstVariance * .1) : kFirstVariance;
    const double variance = (user.n * user.variance + kShrink * prior) / (user.n + kShrink);
    return std::sqrt(std::max(variance, kLeastVariance) + kYoung / (tool.calls + 1.) + kYoung / (user.n + 1));
  }

  static Run remember(UserCost& user, const Ran& ran, double z) {
    if (!(user.last > 0) || ran.now - user.last > kRunEnds) user.filled = user.next = 0;
    user.run[user.next] = static_cast<float>(std::clamp(z, kRunLeast, kRunMost));
    user.next = user.next + 1 == kRun ? 0 : user.next + 1;
    user.filled = std::min<std::uint32_t>(kRun, user.filled + 1);
    user.last = later(user.last, ran.now);
    user.last_z = z;
    user.last_session = ran.session == nullptr ? 0 : ran.session->id;
    return run_of(user);
  }

  static Run run_of(const UserCost& user) {
    Run best;
    double total = 0;
    std::size_t at = user.next;
    for (std::uint32_t calls = 1; calls <= user.filled; ++calls) {
      at = at == 0 ? kRun - 1 : at - 1;
      total += static_cast<double>(user.run[at]);
      const double score = total / std::sqrt(static_cast<double>(calls));
      if (score > best.score) best = {score, static_cast<double>(calls)};
    }
    return best;
  }

  void drift(const Ran& ran, UserCost& user, PeersCost& tenant, double ln_cost) {
    ShardedCountTable& costs = ran.levels.tenant->counts;
    const std::uint64_t key = hasher_.pair(static_cast<std::uint64_t>(KeyKind::kToolFirstCost), ran.tool->id);
    ToolCost tool(costs.bits(key));
    const double above = tenant.first_calls > 0 ? ln_cost - shrunk(tool, tenant.first) : 0;
    if (tool.calls < kFirstCalls) {
      tool.learn(ln_cost, kFirstCalls);
      costs.set_bits(key, tool.bits());
    }
    if (tenant.first_calls < kFirstOfAll) tenant.first += (ln_cost - tenant.first) / ++tenant.first_calls;

    if (user.reference_days <= kFirstDays) {
      if (user.reference_days == 0 || another_day(ran.local.day, user.reference_day)) {
        const bool enough = user.reference_days == kFirstDays && user.reference_calls >= kFirstOfUser;
        if (user.reference_days < kFirstDays || enough) ++user.reference_days;
        user.reference_day = ran.local.day;
      }
      if (user.reference_days <= kFirstDays) {
        user.reference += (above - user.reference) / ++user.reference_calls;
        return;
      }
    }
    user.drift = std::max(0., user.drift + std::min(kMostOfOne, above - user.reference) - kTolerated);
    if (user.drift < kDrifted) return;
    user.drift = 0;
    floor_ = kHighRisk;
    numbers_.baseline = std::exp(ln_cost - above + user.reference);
    numbers_.detail[0] = kDrift;
  }

  void spend(const Ran& ran, UserCost& user) {
    if (another_day(ran.local.day, user.day)) {
      user.day = ran.local.day;
      user.day_spent = 0;
    }
    user.day_spent += ran.cost;
    double session_spent = 0;
    if (ran.session != nullptr) session_spent = of<SessionCost>(*ran.session).spent += ran.cost;
    floor_ = std::max(floor_, over_budget(session_spent, user.day_spent));
  }

  // The floor, and the numbers when it says something.
  double over_budget(double session_spent, double day_spent) {
    if (session_budget_ > 0 && session_spent > session_budget_)
      numbers_ = {session_spent, session_budget_, {kSessionBudget, 0, 0, 0}};
    else if (day_budget_ > 0 && day_spent > day_budget_)
      numbers_ = {day_spent, day_budget_, {kDayBudget, 0, 0, 0}};
    else
      return 0;
    return kHighRisk;
  }

  const Hasher& hasher_;
  double session_budget_;
  double day_budget_;
  Numbers numbers_;
  double floor_ = 0;
};

}  // namespace

SignalPtr make_cost(const SignalSettings& settings) { return std::make_unique<Cost>(settings); }

}  // namespace tool_firewall
