// SPDX-License-Identifier: Apache-2.0
// The reading side of snapshot.h. Everything is read into parts of its own first; only when all of it fits,
// they are moved into the engine.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "journal/snapshot.h"
#include "journal/snapshot_format.h"

namespace tool_firewall {
namespace {

using snapshot::Section;

template <class T>
T at(std::string_view bytes, std::size_t where) {
  T value;
  std::memcpy(&value, bytes.data() + where, sizeof value);
  return value;
}

// What stays the same in every format. Returns the format.
std::uint16_t check_fixed(std::string_view bytes) {
  if (bytes.size() < snapshot::kFixedBytes + sizeof(std::uint64_t) ||
      bytes.substr(0, snapshot::kMagic.size()) != snapshot::kMagic)
    throw SnapshotError("damaged: does not begin as a snapshot does");
  std::size_t where = snapshot::kMagic.size();
  if (at<std::uint32_t>(bytes, where) != snapshot::kByteOrder)
    throw SnapshotError("written on a machine with another byte order");
  where += sizeof(std::uint32_t);
  const auto format = at<std::uint16_t>(bytes, where);
  if (format > kSnapshotFormat)
    throw SnapshotError("written by a newer release: its format is " + std::to_string(format) +
                        ", this release reads up to " + std::to_string(kSnapshotFormat));
  if (format < kOldestSnapshotFormat)
    throw SnapshotError("written by a release too old for this one: its format is " + std::to_string(format) +
                        ", the oldest this one reads is " + std::to_string(kOldestSnapshotFormat));
  if (at<std::uint16_t>(bytes, where + sizeof format) != 0)
    throw SnapshotError("damaged: its header is not what it should be");
  if (at<std::uint64_t>(bytes, snapshot::kSizeAt) != bytes.size())
    throw SnapshotError("damaged: holds " + std::to_string(bytes.size()) + " bytes where " +
                        std::to_string(at<std::uint64_t>(bytes, snapshot::kSizeAt)) + " were written");
  return format;
}

constexpr std::size_t kFingerprintAt = snapshot::kSizeAt + sizeof(std::uint64_t);
constexpr std::size_t kLabelAt = kFingerprintAt + Seal::kFingerprintBytes;

}  // namespace

class SnapshotReader {
 public:
  SnapshotReader(Engine& engine, std::string_view bytes)
      : engine_(engine),
        format_(check_fixed(bytes)),
        in_(content(bytes), format_),
        principals_(model().principals_.another()),
        decay_(model().settings_.half_life) {}

  std::string restore() {
    std::string label = in_.text();
    section(Section::kSignals, &SnapshotReader::signals);
    section(Section::kTime, &SnapshotReader::time);
    section(Section::kTools, &SnapshotReader::tools);
    section(Section::kTenants, &SnapshotReader::tenants);
    section(Section::kPrincipals, &SnapshotReader::principals);
    section(Section::kInFlight, &SnapshotReader::in_flight);
    section(Section::kModes, &SnapshotReader::modes);
    section(Section::kFollowed, &SnapshotReader::followed);
    section(Section::kTotals, &SnapshotReader::totals);
    if (format_ > kFirstFormat) section(Section::kSnoozes, &SnapshotReader::snoozes);
    in_.end();
    move_in();
    return label;
  }

 private:
  static constexpr std::uint32_t kLargestState = 1U << 20;  // bytes
  static constexpr std::uint16_t kFirstFormat = 1;

  // What one signal wrote, and which it is now; nullptr when it is gone.
  struct Placed {
    const Signal* signal;
    std::uint32_t user, peers, session;  // bytes
  };

  Model& model() { return engine_.model_; }

  std::string_view content(std::string_view bytes) const {
    if (bytes.size() < kLabelAt + Seal::kSumBytes) throw SnapshotError("damaged: cut short");
    const Seal::Fingerprint key = engine_.seal_.fingerprint();
    if (bytes.substr(kFingerprintAt, key.size()) != std::string_view(key.data(), key.size()))
      throw SnapshotError("written with another key");
    const std::string_view sealed = bytes.substr(0, bytes.size() - Seal::kSumBytes);
    const Seal::Sum sum = engine_.seal_.of(sealed);
    if (bytes.substr(sealed.size()) != std::string_view(sum.data(), sum.size()))
      throw SnapshotError("damaged: its checksum is wrong");
    return sealed.substr(kLabelAt);
  }

  void section(Section name, void (SnapshotReader::*read)(StateReader&)) {
    if (in_.number<std::uint32_t>() != static_cast<std::uint32_t>(name))
      StateReader::wrong("sections out of order");
    const auto length = in_.number<std::uint64_t>();
    StateReader in(in_.raw(length), format_);
    (this->*read)(in);
    in.end();
  }

  void signals(StateReader& in) {
    for (std::size_t left = in.count(16); left > 0; --left) {
      const std::string name = in.text();
      const auto& own = model().signals_;
      const auto found =
          std::find_if(own.begin(), own.end(), [&](const SignalPtr& s) { return s->name() == name; });
      Placed placed{found == own.end() ? nullptr : found->get(), 0, 0, 0};
      in(placed.user, placed.peers);
      if (format_ > kFirstFormat) in(placed.session);
      if (std::max({placed.user, placed.peers, placed.session}) > kLargestState)
        StateReader::wrong("a state is too large");
      signals_.push_back(placed);
      for (std::size_t channels = in.count(4); channels > 0; --channels)
        channels_.push_back(channel_of(placed.signal, in.text()));
    }
    if (channels_.size() > kMostChannels * 4) StateReader::wrong("too many channels");
  }

  std::optional<std::size_t> channel_of(const Signal* signal, std::string_view name) {
    for (std::size_t i = 0; i < model().channels_.size(); ++i) {
      const Model::Placed& own = model().channels_[i];
      if (model().signals_[own.signal].get() == signal && own.channel->name == name) return i;
    }
    return std::nullopt;
  }

  void time(StateReader& in) {
    Decay::fields(written_, in);
    growth_ = decay_.follow(written_);
    Clock::State clock;
    snapshot::clock_fields(clock, in);
    clock_.restore(clock);
  }

  // Brings a table that was written with another half-life up to date.
  template <class Table>
  void settle(Table& counts, std::uint32_t& epoch) const {
    if (epoch > written_.epoch()) StateReader::wrong("a table of the future");
    if (growth_ == 1) return;
    counts.rescale(static_cast<float>(growth_ * written_.factor(epoch)), Decay::kForgotten);
    epoch = decay_.epoch();
  }

  void tools(StateReader& in) {
    const std::size_t size = in.count(8);
    if (size > Engine::kMostTools + 1) StateReader::wrong("too many tools");
    for (std::size_t i = 0; i < size; ++i) {
      const std::string server = in.text();
      auto tool = std::make_unique<Tool>(engine_.hasher_, server, in.text());
      tool_order_.push_back(tool.get());
      const std::uint64_t id = tool->id;
      if (!tools_.emplace(id, std::move(tool)).second) StateReader::wrong("a tool is there twice");
    }
  }

  template <class T>
  static T picked(StateReader& in, const std::vector<T>& from) {
    const auto position = in.number<std::uint32_t>();
    if (position == 0 || position > from.size()) StateReader::wrong("a reference to nothing");
    return from[position - 1];
  }
  const Tool* tool_or_none(StateReader& in) const {
    const auto position = in.number<std::uint32_t>();
    if (position > tool_order_.size()) StateReader::wrong("a reference to no tool");
    return position == 0 ? nullptr : tool_order_[position - 1];
  }

  void tenants(StateReader& in) {
    in(most_bytes_, look_again_, fullest_);
    for (std::size_t left = in.count(16); left > 0; --left) {
      const std::string name = in.text();
      TenantState& tenant = principals_.tenant(name);
      if (tenants_.size() == principals_.tenants().size()) StateReader::wrong("a tenant is there twice");
      tenants_.push_back(&tenant);
      peers(in, tenant.peers);
      const std::size_t groups = in.count(16);
      if (groups > Principals::kGroupsPerTenant) StateReader::wrong("too many groups");
      for (std::size_t i = 0; i < groups; ++i) {
        const std::string group = in.text();
        if (group.empty() || tenant.groups.contains(group)) StateReader::wrong("a group is there twice");
        peers(in, principals_.group(tenant, group));
      }
    }
    if (fullest_ > tenants_.size()) StateReader::wrong("a reference to no tenant");
  }

  void peers(StateReader& in, Peers& one) {
    peers_.push_back(&one);
    in(one.epoch);
    one.counts.read(in);
    settle(one.counts, one.epoch);
    if (format_ > kFirstFormat) one.shares.read(in);
    one.calibrators.read(in, channels_);
    for (const Placed& placed : signals_) adopt(placed.signal, in.raw(placed.peers), one);
  }

  template <class Owner>
  static void adopt(const Signal* signal, std::string_view saved, const Owner& owner) {
    if (signal != nullptr && !saved.empty())
      signal->adopt(std::as_bytes(std::span(saved.data(), saved.size())), signal->bytes_in(owner));
  }

  void principals(StateReader& in) {
    for (TenantState* tenant : tenants_) {
      for (auto* queue : {&tenant->newcomers, &tenant->established}) {
        for (std::size_t left = in.count(32); left > 0; --left) {
          PrincipalPtr user = principal(in, tenant->peers.name);
          if (!tenant->principals.emplace(user->user, user).second)
            StateReader::wrong("a user is there twice");
          queue->push_back(std::move(user));
        }
      }
    }
    for (std::size_t left = in.count(32); left > 0; --left) {
      const auto tenant = principals_.tenants().find(in.text());
      if (tenant == principals_.tenants().end()) StateReader::wrong("somebody of no tenant");
      const PrincipalPtr user = principal(in, tenant->first);
      user->evicted = true;
      user->home = tenant->second;
    }
  }

  PrincipalPtr principal(StateReader& in, const std::string& tenant) {
    auto user = std::make_shared<Principal>(tenant, in.text(), principals_.sizes_.state.user);
    users_.push_back(user);
    user->zone = &engine_.zone_of(tenant, user->user);
    snapshot::principal_fields(*user, in);
    if (format_ > kFirstFormat) in(user->learned_group);
    user->counts.read(in);
    settle(user->counts, user->epoch);
    for (const Placed& placed : signals_) adopt(placed.signal, in.raw(placed.user), *user);
    const std::size_t sessions = in.count(24);
    if (sessions > kSessionsPerUser) StateReader::wrong("too many sessions");
    for (std::size_t i = 0; i < sessions; ++i)
      user->sessions.push_back(std::make_unique<Session>(session(in)));
    const std::size_t held = in.count(33);
    if (held > kHeldPerUser) StateReader::wrong("too many held items");
    user->held.resize(held);
    for (HeldItem& one : user->held) {
      snapshot::held_fields(one, in);
      one.tool = picked(in, tool_order_);
      one.from = tool_or_none(in);
      one.kind = in.choice(ItemKind::kArgument);
      if (one.kind == ItemKind::kSkip && one.from == nullptr) StateReader::wrong("a skip from nowhere");
      if (format_ > kFirstFormat) {
        one.state = in.choice(HeldItem::State::kRejected);
        one.argument = in.choice(kLastArgumentKind);
      }
    }
    return user;
  }

  Session session(StateReader& in) {
    Session session;
    session.begin(0, model().session_bytes_);
    snapshot::session_fields(session, in);
    for (const std::optional<std::size_t>& channel : channels_) {
      const auto rare = in.number<double>();
      if (channel) session.rare_at[*channel] = rare;
    }
    session.previous = tool_or_none(in);
    const std::size_t earlier = in.count(4);
    if (earlier > kEarlierTools) StateReader::wrong("too many earlier tools");
    session.earlier_count = static_cast<std::uint32_t>(earlier);
    for (std::size_t i = 0; i < earlier; ++i) session.earlier[i] = picked(in, tool_order_);
    for (const Placed& placed : signals_)
      if (placed.session > 0) adopt(placed.signal, in.raw(placed.session), session);
    return session;
  }

  void in_flight(StateReader& in) {
    const std::size_t size = in.count(64);
    if (size > InFlight::kMost) StateReader::wrong("too many running calls");
    std::optional<InFlight::Call> overflow;
    for (std::size_t i = 0; i < size; ++i) {
      InFlight::Call& call = in_flight_.next(overflow);
      Scored& scored = call.scored;
      snapshot::id_fields(call.id, in);
      snapshot::scored_fields(scored, in);
      if (format_ > kFirstFormat) snapshot::scored_ending_fields(scored, in);
      if (scored.local.hour_bin >= Zone::kHourBins) StateReader::wrong("an hour that is none");
      scored.tool = picked(in, tool_order_);
      scored.user = picked(in, users_);
      scored.group = picked(in, peers_);
      scored.tenant = picked(in, peers_);
      scored.item_count = in.count(21);
      if (scored.item_count == 0 || scored.item_count > scored.items.size())
        StateReader::wrong("too many items");
      for (std::size_t item = 0; item < scored.item_count; ++item) {
        ItemKey& key = scored.items[item];
        in(key.row, key.cell);
        key.kind = in.choice(ItemKind::kSkip);
        key.from = tool_or_none(in);
      }
      if (format_ > kFirstFormat) arguments(in, scored.arguments);
      in_flight_.add(true);
    }
  }

  static void arguments(StateReader& in, ArgumentKeys& keys) {
    const std::size_t size = in.count(19);
    if (size > ArgumentFacts::kMost) StateReader::wrong("too many arguments");
    for (std::size_t i = 0; i < size; ++i) {
      ArgumentKey key;
      in(key.known, key.place);
      key.kind = in.choice(kLastArgumentKind);
      in(key.second, key.again);
      keys.add(key);
    }
  }

  void modes(StateReader& in) {
    for (std::size_t left = in.count(33); left > 0; --left) {
      ModeRecord record;
      in(record.scope.tenant, record.scope.tool, record.scope.user);
      record.mode = in.choice(Mode::kBlock);
      in(record.since, record.by, record.why);
      modes_.set(std::move(record));
    }
  }

  void snoozes(StateReader& in) {
    for (std::size_t left = in.count(40); left > 0; --left) {
      Snooze one;
      in(one.scope.tenant, one.scope.tool, one.scope.user, one.until, one.first, one.by, one.why);
      snoozes_.restore(std::move(one));
    }
  }

  void followed(StateReader& in) {
    for (std::size_t left = in.count(16); left > 0; --left) {
      const auto worker = in.number<std::uint64_t>();
      const auto seq = in.number<std::uint64_t>();
      followed_[worker] = {seq, ++follow_order_};
    }
    in(read_digest_);
  }

  void totals(StateReader& in) {
    in(calls_, first_call_);
    for (auto& by_mode : verdicts_)
      for (std::uint64_t& number : by_mode) in(number);
  }

  // From here on nothing can go wrong.
  void move_in() {
    principals_.trim(most_bytes_);
    // After the trimming, which may look for it anew, and forget the one that was it.
    if (principals_.fullest_ == nullptr && fullest_ > 0 && tenants_[fullest_ - 1]->known) {
      principals_.fullest_ = tenants_[fullest_ - 1];
      principals_.look_again_ = look_again_;
    }
    model().principals_ = std::move(principals_);
    model().decay_ = decay_;
    engine_.clock_ = clock_;
    engine_.tools_ = std::move(tools_);
    engine_.tool_order_ = std::move(tool_order_);
    engine_.in_flight_ = std::move(in_flight_);
    engine_.modes_ = std::move(modes_);
    engine_.snoozes_ = std::move(snoozes_);
    // Its own numbers go on where they ended, or nobody would read its next records.
    if (const auto own = followed_.find(engine_.settings_.worker); own != followed_.end())
      engine_.seq_ = std::max(engine_.seq_, own->second.seq);
    engine_.followed_ = std::move(followed_);
    engine_.follow_order_ = follow_order_;
    engine_.read_digest_ = read_digest_;
    engine_.calls_ = calls_;
    engine_.first_call_ = first_call_;
    engine_.counts_.applied_verdicts = verdicts_;
  }

  Engine& engine_;
  std::uint16_t format_;
  StateReader in_;

  std::vector<Placed> signals_;
  std::vector<std::optional<std::size_t>> channels_;  // of the snapshot: where they are now
  Principals principals_;
  Decay decay_;
  Decay written_{1};
  double growth_ = 1;  // of sums, for another half-life
  Clock clock_;
  decltype(Engine::tools_) tools_;
  std::vector<const Tool*> tool_order_;
  std::vector<TenantState*> tenants_;
  std::uint64_t most_bytes_ = 0;  // that the writer might use
  std::uint32_t look_again_ = 0;
  std::uint32_t fullest_ = 0;  // position in tenants_, from 1
  std::vector<Peers*> peers_;
  std::vector<PrincipalPtr> users_;
  InFlight in_flight_;
  Modes modes_;
  Snoozes snoozes_;
  decltype(Engine::followed_) followed_;
  std::uint64_t follow_order_ = 0;
  std::uint64_t read_digest_ = 0;
  std::uint64_t calls_ = 0;
  double first_call_ = 0;
  decltype(Engine::Counts::applied_verdicts) verdicts_{};
};

std::string restore_snapshot(Engine& engine, std::string_view snapshot) {
  const bool fresh = engine.calls() == 0 && engine.tools().empty() && engine.in_flight().size() == 0 &&
                     engine.model().principals().tenants().empty() && engine.modes().all().empty() &&
                     engine.snoozes().all().empty();
  if (!fresh) throw std::invalid_argument("snapshot: only an engine that has seen nothing can restore one");
  return SnapshotReader(engine, snapshot).restore();
}

std::string snapshot_label(std::string_view snapshot) {
  const std::uint16_t format = check_fixed(snapshot);
  if (snapshot.size() < kLabelAt) throw SnapshotError("damaged: cut short");
  return StateReader(snapshot.substr(kLabelAt), format).text();
}

}  // namespace tool_firewall
