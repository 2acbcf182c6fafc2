// SPDX-License-Identifier: Apache-2.0
#include "journal/snapshot.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "journal/snapshot_format.h"

namespace tool_firewall {

using snapshot::Section;

class SnapshotWriter {
 public:
  explicit SnapshotWriter(const Engine& engine) : engine_(engine) {}

  std::string take(std::string_view label) {
    if (label.size() > kLongestLabel) throw std::invalid_argument("label: longer than 4096 bytes");
    out_.reserve(likely_size());
    out_.raw(snapshot::kMagic);
    out_(snapshot::kByteOrder, kSnapshotFormat, std::uint16_t{0}, std::uint64_t{0});
    const Seal::Fingerprint key = engine_.seal_.fingerprint();
    out_.raw({key.data(), key.size()});
    out_(std::string(label));
    section(Section::kSignals, &SnapshotWriter::signals);
    section(Section::kTime, &SnapshotWriter::time);
    section(Section::kTools, &SnapshotWriter::tools);
    section(Section::kTenants, &SnapshotWriter::tenants);
    section(Section::kPrincipals, &SnapshotWriter::principals);
    section(Section::kInFlight, &SnapshotWriter::in_flight);
    section(Section::kModes, &SnapshotWriter::modes);
    section(Section::kFollowed, &SnapshotWriter::followed);
    section(Section::kTotals, &SnapshotWriter::totals);
    section(Section::kSnoozes, &SnapshotWriter::snoozes);
    const std::uint64_t size = out_.size() + Seal::kSumBytes;
    std::memcpy(out_.bytes().data() + snapshot::kSizeAt, &size, sizeof size);
    const Seal::Sum sum = engine_.seal_.of(out_.bytes());
    out_.raw({sum.data(), sum.size()});
    return std::move(out_.bytes());
  }

 private:
  const Model& model() const { return engine_.model_; }

  // Of the tables, which are nearly all of it.
  std::size_t likely_size() const {
    std::size_t sum = 1U << 16;
    for (const auto& [name, tenant] : model().principals_.tenants()) {
      sum += tenant->peers.counts.bytes();
      for (const auto& [group, peers] : tenant->groups) sum += peers->counts.bytes();
      for (const auto& [user, principal] : tenant->principals) sum += principal->counts.bytes() + 1024;
    }
    return sum;
  }

  void section(Section name, void (SnapshotWriter::*content)()) {
    out_(name, std::uint64_t{0});
    const std::size_t begin = out_.size();
    (this->*content)();
    const std::uint64_t length = out_.size() - begin;
    std::memcpy(out_.bytes().data() + begin - sizeof length, &length, sizeof length);
  }

  void count(std::size_t number) { out_(static_cast<std::uint32_t>(number)); }

  void signals() {
    count(model().signals_.size());
    for (const SignalPtr& signal : model().signals_) {
      const StateSize size = signal->state();
      out_(std::string(signal->name()));
      count(size.user);
      count(size.peers);
      count(size.session);
      count(signal->channels().size());
      for (const Channel& channel : signal->channels()) out_(std::string(channel.name));
    }
  }

  void time() {
    Decay::fields(model().decay_, out_);
    snapshot::clock_fields(engine_.clock_.state(), out_);
  }

  void tools() {
    count(engine_.tool_order_.size());
    for (const Tool* tool : engine_.tool_order_) {
      out_(tool->server, tool->name);
      tools_.emplace(tool, static_cast<std::uint32_t>(tools_.size() + 1));
    }
  }
  void tool(const Tool* which) { out_(which == nullptr ? 0 : tools_.at(which)); }

  template <class Map>
  static auto sorted(const Map& map) {
    std::vector<std::pair<std::string_view, typename Map::mapped_type::element_type*>> entries;
    entries.reserve(map.size());
    for (const auto& [name, entry] : map) entries.emplace_back(name, entry.get());
    std::sort(entries.begin(), entries.end());
    return entries;
  }

  void tenants() {
    const Principals& all = model().principals_;
    for (const auto& tenant : all.in_order()) tenants_.push_back(tenant.get());
    const auto fullest = std::find(tenants_.begin(), tenants_.end(), all.fullest_);
    const bool none = fullest == tenants_.end();
    out_(std::uint64_t{all.most_bytes_}, none ? 0 : all.look_again_);
    count(none ? 0 : static_cast<std::size_t>(fullest - tenants_.begin()) + 1);
    count(tenants_.size());
    for (const TenantState* tenant : tenants_) {
      peers(tenant->peers);
      count(tenant->groups.size());
      for (const auto& [name, group] : sorted(tenant->groups)) peers(*group);
    }
  }

  void peers(const Peers& one) {
    peers_.emplace(&one, static_cast<std::uint32_t>(peers_.size() + 1));
    out_(one.name, one.epoch);
    one.counts.write(out_);
    one.shares.write(out_);
    one.calibrators.write(out_);
    for (const SignalPtr& signal : model().signals_) block(signal->bytes_in(one));
  }

  void block(std::span<const std::byte> bytes) {
    out_.raw({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }

  void principals() {
    for (const TenantState* tenant : tenants_) {
      for (const auto* queue : {&tenant->newcomers, &tenant->established}) {
        count(queue->size());
        for (const PrincipalPtr& user : *queue) principal(*user);
      }
    }
    // Those who were evicted and still have a call running: it will teach their peers.
    std::vector<const Principal*> gone;
    engine_.in_flight_.each([&](const InFlight::Call& call) {
      const Principal* user = call.scored.user.get();
      if (lives(call) && user->evicted && numbered(user)) gone.push_back(user);
    });
    count(gone.size());
    for (const Principal* user : gone) {
      out_(user->tenant);
      principal(*user);
    }
  }

  // Whether there still is a tenant that the call could teach.
  bool lives(const InFlight::Call& call) const { return peers_.contains(call.scored.tenant); }

  // False when it has its number already.
  bool numbered(const Principal* user) {
    return principals_.emplace(user, static_cast<std::uint32_t>(principals_.size() + 1)).second;
  }

  void principal(const Principal& user) {
    numbered(&user);
    out_(user.user);
    snapshot::principal_fields(user, out_);
    out_(user.learned_group);
    user.counts.write(out_);
    for (const SignalPtr& signal : model().signals_) block(signal->bytes_in(user));
    count(user.sessions.size());
    for (const auto& session : user.sessions) {
      snapshot::session_fields(*session, out_);
      for (std::size_t i = 0; i < model().channels_.size(); ++i) out_(session->rare_at[i]);
      tool(session->previous);
      count(session->earlier_count);
      for (std::uint32_t i = 0; i < session->earlier_count; ++i) tool(session->earlier[i]);
      for (const SignalPtr& signal : model().signals_) block(signal->bytes_in(*session));
    }
    count(user.held.size());
    for (const HeldItem& held : user.held) {
      snapshot::held_fields(held, out_);
      tool(held.tool);
      tool(held.from);
      out_(held.kind, held.state, held.argument);
    }
  }

  // Of all processes, this one's own among them: whoever restores it will read their ends in the journal.
  void in_flight() {
    std::size_t living = 0;
    engine_.in_flight_.each([&](const InFlight::Call& call) { living += lives(call) ? 1 : 0; });
    count(living);
    engine_.in_flight_.each([&](const InFlight::Call& call) {
      if (!lives(call)) return;
      const Scored& scored = call.scored;
      snapshot::id_fields(call.id, out_);
      snapshot::scored_fields(scored, out_);
      snapshot::scored_ending_fields(scored, out_);
      tool(scored.tool);
      out_(principals_.at(scored.user.get()), peers_.at(scored.group), peers_.at(scored.tenant));
      count(scored.item_count);
      for (std::size_t i = 0; i < scored.item_count; ++i) {
        const ItemKey& item = scored.items[i];
        out_(item.row, item.cell, item.kind);
        tool(item.from);
      }
      count(scored.arguments.size());
      for (const ArgumentKey& key : scored.arguments)
        out_(key.known, key.place, key.kind, key.second, key.again);
    });
  }

  void modes() {
    const std::vector<ModeRecord> records = engine_.modes_.all();
    count(records.size());
    for (const ModeRecord& r : records)
      out_(r.scope.tenant, r.scope.tool, r.scope.user, r.mode, r.since, r.by, r.why);
  }

  void snoozes() {
    const std::vector<Snooze> all = engine_.snoozes_.all();
    count(all.size());
    for (const Snooze& one : all)
      out_(one.scope.tenant, one.scope.tool, one.scope.user, one.until, one.first, one.by, one.why);
  }

  // How far each worker was read, the longest quiet first; this one too, as it need not read its own.
  void followed() {
    struct Worker {
      std::uint64_t order, name, seq;
    };
    const std::uint64_t own = engine_.settings_.worker;
    std::vector<Worker> workers;
    for (const auto& [name, known] : engine_.followed_)
      if (own == 0 || name != own) workers.push_back({known.order, name, known.seq});
    std::sort(workers.begin(), workers.end(),
              [](const Worker& a, const Worker& b) { return a.order < b.order; });
    if (own != 0 && engine_.seq_ > 0) workers.push_back({0, own, engine_.seq_});
    count(workers.size());
    for (const Worker& worker : workers) out_(worker.name, worker.seq);
    out_(engine_.read_digest_);
  }

  void totals() {
    out_(engine_.calls_, engine_.first_call_);
    const Engine::Counts& counts = engine_.counts_;
    for (std::size_t i = 0; i < counts.verdicts.size(); ++i)
      for (std::size_t mode = 0; mode < counts.verdicts[i].size(); ++mode)
        out_(counts.verdicts[i][mode] + counts.applied_verdicts[i][mode]);
  }

  const Engine& engine_;
  StateWriter out_;
  std::vector<const TenantState*> tenants_;
  std::unordered_map<const Tool*, std::uint32_t> tools_;
  std::unordered_map<const Peers*, std::uint32_t> peers_;
  std::unordered_map<const Principal*, std::uint32_t> principals_;
};

std::string take_snapshot(const Engine& engine, std::string_view label) {
  return SnapshotWriter(engine).take(label);
}

}  // namespace tool_firewall
