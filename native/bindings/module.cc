// SPDX-License-Identifier: Apache-2.0
// The whole Python surface of the engine. Conversion only: what decides something belongs in the core.
//
// The GIL is kept throughout. It is the engine's lock, and arguments are read in place, where another thread
// could free them.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arguments.h"
#include "bindings/dicts.h"
#include "bindings/screener.h"
#include "engine/engine.h"
#include "journal/chain.h"
#include "journal/pack.h"
#include "journal/record.h"
#include "journal/snapshot.h"
#include "replay/replay.h"

#ifdef Py_GIL_DISABLED
#error "The engine relies on the GIL: build it with an ordinary CPython, not a free-threaded one"
#endif

namespace py = pybind11;

namespace tool_firewall {
namespace {

std::string owned(py::handle text) { return std::string(Text(text).view()); }

py::tuple to_tuple(const Pack& pack) {
  return py::make_tuple(static_cast<int>(pack.worth), pack.count, py::bytes(pack.bytes));
}

struct PyReason {
  Reason reason;
  std::string user, tool, previous, destination;
};

struct PyAftermath {
  Aftermath after;
};

py::list reasons_of(const std::vector<Reason>& reasons, const Caller& caller, const Tool& tool,
                    const Tool* previous, const std::string& destination) {
  py::list out;
  for (const Reason& reason : reasons)
    out.append(
        PyReason{reason, caller.user, tool.name, previous == nullptr ? "" : previous->name, destination});
  return out;
}

Mode mode_or_throw(const std::string& name) {
  const std::optional<Mode> mode = mode_named(name);
  if (!mode) throw py::value_error("mode: '" + name + "' is not one of learning, warn, shadow, block");
  return *mode;
}

Outcome outcome_or_throw(std::string_view name) {
  const std::optional<Outcome> outcome = outcome_named(name);
  if (!outcome)
    throw py::value_error("outcome: '" + std::string(name) +
                          "' is not one of ok, tool_error, timeout, unreachable");
  return *outcome;
}

std::uint64_t digest_or_throw(std::string_view text) {
  std::uint64_t digest = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), digest, 16);
  if (!text.empty() && (text.size() != 16 || read.ec != std::errc() || read.ptr != text.data() + text.size()))
    throw py::value_error("arguments: 16 hex digits were expected");
  return digest;
}

std::vector<ArgumentFact> facts_or_throw(std::string_view text) {
  std::optional<std::vector<ArgumentFact>> facts = facts_from(text);
  if (!facts) throw py::value_error("facts: kind, place and value of each were expected");
  return *std::move(facts);
}

std::map<std::string, Zone> zones_of(const py::dict& zones) {
  std::map<std::string, Zone> out;
  for (const auto& [name, offsets] : zones) {
    Zone zone;
    for (const py::handle entry : offsets)
      zone.offsets.push_back(entry.cast<std::pair<double, std::int32_t>>());
    out.emplace(owned(name), std::move(zone));
  }
  return out;
}

std::map<std::string, std::string> names_of(const py::dict& names) {
  std::map<std::string, std::string> out;
  for (const auto& [from, to] : names) out.emplace(owned(from), owned(to));
  return out;
}

std::map<std::string, double, std::less<>> thresholds_of(const char* what, const py::dict& thresholds) {
  std::map<std::string, double, std::less<>> out;
  for (const auto& [name, value] : thresholds) {
    const auto threshold = value.cast<double>();
    if (!(threshold > 0 && threshold <= 1))
      throw py::value_error(std::string(what) + ": must be over 0 and at most 1");
    out.emplace(owned(name), threshold);
  }
  return out;
}

// One run over a file; kept as an object so that Python can name the arguments.
struct PyReplay {
  std::shared_ptr<Engine> engine;
  InstancePolicy policy;
  ReplayJob job;
};

void bind_engine(py::module_& m) {
  py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine", py::is_final())
      .def(py::init([](const py::bytes& key, std::uint64_t worker, int burst_threshold, double burst_window,
                       double half_life_days, double new_for_hours, double session_idle, double learning_days,
                       std::size_t max_users_per_tenant, std::size_t max_memory_mb, const py::dict& zones,
                       const std::string& default_zone, const py::dict& tenant_zones,
                       const py::dict& user_zones, bool journaling, double rate_spike_floor,
                       double burn_spike_floor, double session_budget, double day_budget,
                       const py::dict& tenant_thresholds, const py::dict& tool_thresholds,
                       const py::dict& user_thresholds, bool record_destinations, bool learn_groups) {
             if (burst_threshold < 1) throw py::value_error("burst_threshold: must be at least 1");
             if (!(burst_window > 0)) throw py::value_error("burst_window: must be more than 0");
             if (!(half_life_days > 0)) throw py::value_error("half_life_days: must be more than 0");
             if (max_users_per_tenant < 1) throw py::value_error("max_users_per_tenant: must be at least 1");
             if (max_memory_mb < 1) throw py::value_error("max_memory_mb: must be at least 1");
             EngineSettings settings;
             settings.model.signals.burst_threshold = static_cast<std::uint32_t>(burst_threshold);
             settings.model.signals.burst_window = burst_window;
             settings.model.half_life = half_life_days * 86400;
             settings.model.new_for = new_for_hours * 3600;
             settings.model.session_idle = session_idle;
             settings.model.users_per_tenant = max_users_per_tenant;
             settings.model.memory = max_memory_mb << 20;
             settings.model.signals.rate_spike_floor = rate_spike_floor;
             settings.model.signals.burn_spike_floor = burn_spike_floor;
             settings.model.signals.session_budget = session_budget;
             settings.model.signals.day_budget = day_budget;
             settings.tenant_thresholds = thresholds_of("tenant_thresholds", tenant_thresholds);
             settings.tool_thresholds = thresholds_of("tool_thresholds", tool_thresholds);
             settings.user_thresholds = thresholds_of("user_thresholds", user_thresholds);
             settings.record_destinations = record_destinations;
             settings.learn_groups = learn_groups;
             settings.worker = worker;
             settings.learning_days = learning_days;
             settings.journaling = journaling;
             settings.default_zone = default_zone;
             settings.zones = zones_of(zones);
             settings.tenant_zones = names_of(tenant_zones);
             settings.user_zones = names_of(user_zones);
             const std::string_view secret = key;
             return std::make_shared<Engine>(
                 settings, std::span(reinterpret_cast<const unsigned char*>(secret.data()), secret.size()));
           }),
           py::arg("key"), py::kw_only(), py::arg("worker") = 0, py::arg("burst_threshold") = 20,
           py::arg("burst_window") = 60., py::arg("half_life_days") = 14., py::arg("new_for_hours") = 48.,
           py::arg("session_idle") = 1800., py::arg("learning_days") = 0.,
           py::arg("max_users_per_tenant") = 100'000, py::arg("max_memory_mb") = 256,
           py::arg("zones") = py::dict(), py::arg("default_zone") = "UTC",
           py::arg("tenant_zones") = py::dict(), py::arg("user_zones") = py::dict(),
           py::arg("journaling") = false, py::arg("rate_spike_floor") = 100.,
           py::arg("burn_spike_floor") = 1., py::arg("session_budget") = 0., py::arg("day_budget") = 0.,
           py::arg("tenant_thresholds") = py::dict(), py::arg("tool_thresholds") = py::dict(),
           py::arg("user_thresholds") = py::dict(), py::arg("record_destinations") = true,
           py::arg("learn_groups") = false)
      .def(
          "caller",
          [](const Engine&, py::handle tenant, py::handle user, py::handle agent, py::handle group,
             py::handle session, py::handle token) {
            auto caller = std::make_shared<Caller>();
            caller->tenant = owned(tenant);
            caller->user = owned(user);
            caller->agent = owned(agent);
            caller->group = owned(group);
            caller->session = owned(session);
            caller->token = owned(token);
            return caller;
          },
          py::arg("tenant"), py::arg("user"), py::kw_only(), py::arg("agent") = "", py::arg("group") = "",
          py::arg("session") = "", py::arg("token") = "")
      .def(
          "policy",
          [](const Engine&, const std::string& mode, double threshold, const py::iterable& exempt_tools,
             bool own_threshold) {
            auto policy = std::make_shared<InstancePolicy>();
            policy->mode = mode_or_throw(mode);
            if (!(threshold > 0 && threshold <= 1))
              throw py::value_error("threshold: must be over 0 and at most 1");
            policy->threshold = threshold;
            policy->own_threshold = own_threshold;
            for (const py::handle tool : exempt_tools) policy->exempt_tools.insert(owned(tool));
            return policy;
          },
          py::kw_only(), py::arg("mode") = "learning", py::arg("threshold") = .5,
          py::arg("exempt_tools") = py::tuple(), py::arg("own_threshold") = false)
      .def(
          "check",
          [](const std::shared_ptr<Engine>& engine, const InstancePolicy& policy, const CallerPtr& caller,
             py::handle server, py::handle tool, py::handle args, double now) {
            const Text server_text(server);
            const Text tool_text(tool);
            const Arguments arguments = inspect(args, engine->hasher());
            return PyVerdict{
                engine->check(policy, caller, server_text.view(), tool_text.view(), arguments, now), caller,
                engine, arguments.destinations.empty() ? "" : arguments.destinations.front()};
          },
          py::arg("policy"), py::arg("caller"), py::arg("server"), py::arg("tool"),
          py::arg("args").none(true), py::arg("now"))
      .def(
          "facts",
          [](const Engine& engine, py::handle args) {
            const Arguments arguments = inspect(args, engine.hasher());
            py::dict out;
            out["arguments"] = digits(arguments.digest);
            out["facts"] = to_python(to_text({arguments.facts.begin(), arguments.facts.size()}));
            py::list destinations;
            for (const std::string& host : arguments.destinations) destinations.append(to_python(host));
            out["destinations"] = destinations;
            return out;
          },
          py::arg("args").none(true))
      .def(
          "observe",
          [](Engine& engine, std::uint64_t ticket, std::string_view outcome, double now,
             double cost) -> py::object {
            Aftermath after = engine.observe(ticket, outcome_or_throw(outcome), cost, now);
            if (after.decision == Decision::kAllow) return py::bool_(after.known);
            return py::cast(PyAftermath{std::move(after)});
          },
          py::arg("ticket"), py::arg("outcome"), py::arg("now"),
          py::arg("cost") = std::numeric_limits<double>::quiet_NaN())
      .def(
          "drain",
          [](Engine& engine, std::size_t limit) {
            py::list out;
            for (const Pack& pack : engine.drain(limit)) out.append(to_tuple(pack));
            return out;
          },
          py::arg("limit"))
      .def(
          "note",
          [](Engine& engine, py::handle action, py::handle value, double now) {
            engine.note(owned(action), owned(value), now);
          },
          py::arg("action"), py::arg("value"), py::arg("now"))
      .def(
          "apply",
          [](Engine& engine, const py::iterable& packs) {
            std::size_t applied = 0;
            for (const py::handle pack : packs) applied += engine.apply(pack.cast<std::string_view>());
            return applied;
          },
          py::arg("packs"))
      .def(
          "snapshot",
          [](const Engine& engine, py::handle label) {
            return py::bytes(take_snapshot(engine, owned(label)));
          },
          py::arg("label"))
      .def(
          "restore",
          [](Engine& engine, std::string_view data) { return to_python(restore_snapshot(engine, data)); },
          py::arg("data"))
      .def_property_readonly("read_digest", &Engine::read_digest)
      .def("forget_digest", &Engine::forget_digest)
      .def(
          "mode_in_force",
          [](const Engine& engine, const InstancePolicy& policy, py::handle tenant, py::handle user,
             py::handle tool, double now) {
            return to_python(
                name_of(engine.mode_in_force(policy, owned(tenant), owned(tool), owned(user), now)));
          },
          py::arg("policy"), py::kw_only(), py::arg("tenant") = "", py::arg("user") = "",
          py::arg("tool") = "", py::arg("now") = 0.)
      .def("modes", &modes_list)
      .def("snoozes", &snoozes_list)
      .def(
          "news",
          [](const Engine& engine, py::handle tenant, py::handle user) {
            return news_list(engine, Text(tenant).view(), Text(user).view());
          },
          py::arg("tenant") = "", py::arg("user") = "")
      .def("summary", &summary_dict)
      .def("principals", &principals_list)
      .def(
          "baseline",
          [](Engine& engine, py::handle tenant, py::handle user) {
            return baseline_dict(engine, Text(tenant).view(), Text(user).view());
          },
          py::arg("tenant"), py::arg("user"))
      .def("counters", &counters_dict)
      .def("metrics", &metrics_dict);
}

void bind_values(py::module_& m) {
  const auto text = [](const std::string Caller::*field) {
    return [field](const Caller& caller) { return to_python(caller.*field); };
  };
  py::class_<Caller, CallerPtr>(m, "Caller", py::is_final())
      .def_property_readonly("tenant", text(&Caller::tenant))
      .def_property_readonly("user", text(&Caller::user))
      .def_property_readonly("agent", text(&Caller::agent))
      .def_property_readonly("group", text(&Caller::group))
      .def_property_readonly("session", text(&Caller::session))
      .def_property_readonly("token", text(&Caller::token));
  py::class_<InstancePolicy, std::shared_ptr<InstancePolicy>>(m, "Policy", py::is_final())
      .def_property_readonly("mode",
                             [](const InstancePolicy& policy) { return to_python(name_of(policy.mode)); })
      .def_readonly("threshold", &InstancePolicy::threshold);
  py::class_<PyReason>(m, "Reason", py::is_final())
      .def_property_readonly("signal",
                             [](const PyReason& r) { return to_python(signal_name(r.reason.signal)); })
      .def_property_readonly("p", [](const PyReason& r) { return r.reason.p; })
      .def_property_readonly("value", [](const PyReason& r) { return r.reason.numbers.value; })
      .def_property_readonly("baseline", [](const PyReason& r) { return r.reason.numbers.baseline; })
      .def_property_readonly("text", [](const PyReason& r) {
        return to_python(
            explain(r.reason.signal, r.reason.numbers, {r.user, r.tool, r.previous, r.destination}));
      });
  py::class_<PyVerdict>(m, "Verdict", py::is_final())
      .def_property_readonly("ticket", [](const PyVerdict& v) { return v.verdict.ticket; })
      .def_property_readonly("risk", [](const PyVerdict& v) { return v.verdict.risk; })
      .def_property_readonly("decision",
                             [](const PyVerdict& v) { return to_python(name_of(v.verdict.decision)); })
      .def_property_readonly("blocked", [](const PyVerdict& v) { return v.verdict.blocked; })
      .def_property_readonly("mode", [](const PyVerdict& v) { return to_python(name_of(v.verdict.mode)); })
      .def_property_readonly("notable",
                             [](const PyVerdict& v) { return v.verdict.decision != Decision::kAllow; })
      .def_property_readonly("uninspectable",
                             [](const PyVerdict& v) { return to_python(name_of(v.verdict.inspection)); })
      .def_property_readonly("incident", [](const PyVerdict& v) { return incident_name(v.verdict.incident); })
      .def_property_readonly(
          "session_context",
          [](const PyVerdict& v) {
            return to_python(v.verdict.previous == nullptr ? "" : v.verdict.previous->name);
          })
      .def_property_readonly("snoozed", [](const PyVerdict& v) { return v.verdict.snoozed; })
      .def_property_readonly("reasons", [](const PyVerdict& v) {
        return reasons_of(v.verdict.reasons, *v.caller, *v.verdict.tool, v.verdict.previous, v.destination);
      });
  py::class_<PyAftermath>(m, "Aftermath", py::is_final())
      .def_property_readonly("told", [](const PyAftermath& a) { return a.after.told; })
      .def_property_readonly("risk", [](const PyAftermath& a) { return a.after.risk; })
      .def_property_readonly("decision",
                             [](const PyAftermath& a) { return to_python(name_of(a.after.decision)); })
      .def_property_readonly("mode", [](const PyAftermath& a) { return to_python(name_of(a.after.mode)); })
      .def_property_readonly("snoozed", [](const PyAftermath& a) { return a.after.snoozed; })
      .def_property_readonly("incident", [](const PyAftermath& a) { return incident_name(a.after.incident); })
      .def_property_readonly("tool", [](const PyAftermath& a) { return to_python(a.after.tool->name); })
      .def_property_readonly("user", [](const PyAftermath& a) { return to_python(a.after.caller->user); })
      .def_property_readonly("reasons", [](const PyAftermath& a) {
        return reasons_of(a.after.reasons, *a.after.caller, *a.after.tool, a.after.previous, "");
      });
}

std::array<py::dict, 4> by_mode(const py::dict& templates) {
  std::array<py::dict, 4> out;
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = py::dict(templates[to_python(name_of(static_cast<Mode>(i)))]);
  return out;
}

void bind_screener(py::module_& m) {
  py::class_<ModelCopier>(m, "ModelCopier", py::is_final())
      .def(py::init<const py::object&, py::str, const py::iterable&>(), py::arg("model"), py::arg("field"),
           py::arg("lists"))
      .def("__call__", &ModelCopier::copy, py::arg("value"));
  m.def(
      "screener",
      [](const std::shared_ptr<Engine>& engine, const std::shared_ptr<InstancePolicy>& policy,
         const py::object& make_result, const py::str& label, const py::str& handover,
         const py::dict& ordinary, const py::dict& notable) {
        return make_screener(engine, policy, make_result, label, handover,
                             {by_mode(ordinary), by_mode(notable)});
      },
      py::kw_only(), py::arg("engine"), py::arg("policy"), py::arg("make_result"), py::arg("label"),
      py::arg("handover"), py::arg("ordinary"), py::arg("notable"));
}

void bind_packs(py::module_& m) {
  m.def(
      "pack",
      [](const py::iterable& records) {
        std::vector<Pack> packs;
        for (const py::handle record : records) {
          const auto bytes = record.cast<std::string_view>();
          const RecordClass worth = class_of(bytes);
          if (packs.empty() || !packs.back().takes(worth)) packs.emplace_back();
          packs.back().add(worth, bytes);
        }
        py::list out;
        for (const Pack& pack : packs) out.append(to_tuple(pack));
        return out;
      },
      py::arg("records"));
  m.def(
      "unpack",
      [](std::string_view pack) {
        py::list out;
        PackReader records(pack);
        for (std::string_view record; records.next(record);) out.append(py::bytes(record));
        return out;
      },
      py::arg("pack"));
  m.def(
      "record_class", [](std::string_view record) { return static_cast<int>(class_of(record)); },
      py::arg("record"));
  py::class_<Chain>(m, "Chain", py::is_final())
      .def(py::init([](std::string_view key) {
             return Chain({reinterpret_cast<const unsigned char*>(key.data()), key.size()});
           }),
           py::arg("key"))
      .def(
          "link",
          [](const Chain& chain, std::string_view previous, std::uint64_t cursor, std::string_view pack) {
            Chain::Digest digest{};
            if (previous.size() != digest.size()) throw py::value_error("previous: must be 16 bytes");
            std::copy(previous.begin(), previous.end(), digest.begin());
            return py::bytes(chain.link(digest, cursor, pack));
          },
          py::arg("previous"), py::arg("cursor"), py::arg("pack"));
}

void bind_records(py::module_& m) {
  m.def(
      "snapshot_label", [](std::string_view data) { return to_python(snapshot_label(data)); },
      py::arg("data"));
  m.def(
      "decode_record", [](std::string_view record) { return to_dict(decode(record)); }, py::arg("record"));
  m.def(
      "encode_control",
      [](double ts, std::uint64_t worker, std::uint64_t seq, py::handle action, py::handle tenant,
         py::handle tool, py::handle user, py::handle value, py::handle by, py::handle why) {
        return py::bytes(encode(ControlRecord{{worker, seq, ts},
                                              owned(action),
                                              owned(tenant),
                                              owned(tool),
                                              owned(user),
                                              owned(value),
                                              owned(by),
                                              owned(why)}));
      },
      py::kw_only(), py::arg("ts"), py::arg("worker"), py::arg("seq"), py::arg("action"), py::arg("tenant"),
      py::arg("tool"), py::arg("user"), py::arg("value"), py::arg("by"), py::arg("why"));
  m.def(
      "encode_call",
      [](double ts, std::uint64_t worker, std::uint64_t seq, py::handle tenant, py::handle user,
         py::handle agent, py::handle group, py::handle session, py::handle token, py::handle server,
         py::handle tool, bool blocked, py::handle arguments, py::handle facts,
         const py::iterable& destinations) {
        CallRecord record;
        record.arguments = digest_or_throw(Text(arguments).view());
        record.facts = facts_or_throw(Text(facts).view());
        for (const py::handle host : destinations)
          if (record.destinations.size() < kMostDestinations)
            record.destinations.push_back(owned(host).substr(0, kLongestDestination));
        record.id = {worker, seq, ts};
        record.blocked = blocked;
        record.tenant = owned(tenant);
        record.user = owned(user);
        record.agent = owned(agent);
        record.group = owned(group);
        record.session = owned(session);
        record.token = owned(token);
        record.server = owned(server);
        record.tool = owned(tool);
        return py::bytes(encode(record));
      },
      py::kw_only(), py::arg("ts"), py::arg("worker"), py::arg("seq"), py::arg("tenant"), py::arg("user"),
      py::arg("agent") = "", py::arg("group") = "", py::arg("session") = "", py::arg("token") = "",
      py::arg("server") = "", py::arg("tool"), py::arg("blocked") = false, py::arg("arguments") = "",
      py::arg("facts") = "", py::arg("destinations") = py::tuple());
  m.def(
      "encode_outcome",
      [](double ts, std::uint64_t worker, std::uint64_t seq, std::string_view outcome, double cost) {
        OutcomeRecord record;
        record.id = {worker, seq, ts};
        record.outcome = outcome_or_throw(outcome);
        record.cost = cost;
        return py::bytes(encode(record));
      },
      py::kw_only(), py::arg("ts"), py::arg("worker"), py::arg("seq"), py::arg("outcome"),
      py::arg("cost") = std::numeric_limits<double>::quiet_NaN());
}

void bind_replay(py::module_& m) {
  py::class_<PyReplay>(m, "Replay", py::is_final())
      .def(py::init([](const std::shared_ptr<Engine>& engine, const InstancePolicy& policy,
                       std::string source, std::string target, bool skip_bad) {
             return PyReplay{engine, policy, {std::move(source), std::move(target), skip_bad}};
           }),
           py::arg("engine"), py::arg("policy"), py::arg("source"), py::arg("target"), py::kw_only(),
           py::arg("skip_bad") = false)
      .def(
          "run",
          [](const PyReplay& self, const std::optional<py::function>& progress) {
            const auto start = std::chrono::steady_clock::now();
            const ReplayResult result =
                replay(*self.engine, self.policy, self.job,
                       [&](std::uint64_t at, std::uint64_t size, std::uint64_t events) {
                         if (PyErr_CheckSignals() != 0) throw py::error_already_set();
                         if (progress) (*progress)(at, size, events);
                       });
            py::dict verdicts;
            for (std::size_t i = 0; i < result.verdicts.size(); ++i)
              verdicts[to_python(name_of(static_cast<Decision>(i)))] = result.verdicts[i];
            py::dict out;
            out["events"] = result.events;
            out["skipped"] = result.skipped;
            out["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            out["verdicts"] = verdicts;
            return out;
          },
          py::arg("progress") = py::none());
}

}  // namespace
}  // namespace tool_firewall

PYBIND11_MODULE(_native, m) {
  using namespace tool_firewall;
  m.doc() = "Scoring engine. Use the cpex_tool_firewall package, not this module.";
  m.attr("__version__") = TOOL_FIREWALL_VERSION;
  py::list signals;
  for (std::uint8_t i = 0; !signal_name(i).empty(); ++i) signals.append(to_python(signal_name(i)));
  m.attr("SIGNALS") = py::tuple(signals);
  m.attr("RECORD_VERSION") = static_cast<int>(kRecordVersion);
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(std::move(error));
    } catch (const RecordError& e) {
      PyErr_SetObject(PyExc_ValueError, to_python(e.what()).ptr());
    } catch (const SnapshotError& e) {
      PyErr_SetObject(PyExc_ValueError, to_python(e.what()).ptr());
    } catch (const ReplayError& e) {
      PyErr_SetObject(PyExc_ValueError, to_python(e.what()).ptr());
    }
  });
  bind_values(m);
  bind_engine(m);
  bind_screener(m);
  bind_records(m);
  bind_packs(m);
  bind_replay(m);
}
