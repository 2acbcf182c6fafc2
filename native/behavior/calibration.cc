// SPDX-License-Identifier: Apache-2.0
#include "behavior/calibration.h"

#include <algorithm>
#include <cmath>

namespace tool_firewall {
namespace {

constexpr double kMostSurprise = 20;

const std::array<double, Prior::kSurvival.size()>& levels() {
  static const auto logs = [] {
    std::array<double, Prior::kSurvival.size()> out{};
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = -std::log(Prior::kSurvival[i]);
    return out;
  }();
  return logs;
}

}  // namespace

double Prior::surprise(double score) const {
  const auto& level = levels();
  if (score <= raw.front()) return raw.front() > 0 ? level.front() * std::max(0.0, score / raw.front()) : 0;
  for (std::size_t i = 1; i < raw.size(); ++i) {
    if (score > raw[i]) continue;
    return level[i - 1] +
           (level[i] - level[i - 1]) * (score - raw[i - 1]) / std::max(1e-9, raw[i] - raw[i - 1]);
  }
  const std::size_t last = raw.size() - 1;
  const double slope =
      std::max(.15 * raw[last] / level[last], (raw[last] - raw[last - 3]) / (level[last] - level[last - 3]));
  return std::min(kMostSurprise, level[last] + (score - raw[last]) / slope);
}

int Calibrator::bin(double prior_surprise) {
  // Compared this way around, what is not a number ends in the first bin.
  const double at = prior_surprise * kBinsPerNat;
  return at >= kBins - 1 ? kBins - 1 : at > 0 ? static_cast<int>(at) : 0;
}

double Calibrator::tail(double prior_surprise, double parent, double strength) const {
  const double at = prior_surprise * kBinsPerNat;
  const int own = bin(prior_surprise);
  const auto i = static_cast<std::size_t>(own);
  const double above = above_[i];
  const double inside =
      (own == 0 ? static_cast<double>(samples_) : static_cast<double>(above_[i - 1])) - above;
  const double larger = above + inside * (own < kBins - 1 ? 1 - (at - own) : .5);
  return (larger + strength * parent) / (static_cast<double>(samples_) + strength);
}

void Calibrator::learn(double prior_surprise) {
  const auto own = static_cast<std::size_t>(bin(prior_surprise));
  for (std::size_t i = 0; i < own; ++i) above_[i] += 1;
  samples_ += 1;
  if (samples_ > kFull) {
    for (float& count : above_) count *= .5F;
    samples_ *= .5F;
  }
}

void Calibrators::learn_later(std::size_t channel, double prior_surprise, double now) {
  if (waiting_.size() >= kMostWaiting) take_oldest();
  waiting_.push_back({now, prior_surprise, channel});
}

void Calibrators::take_oldest() {
  learn(waiting_.front().channel, waiting_.front().prior_surprise);
  waiting_.pop_front();
}

void Calibrators::write(StateWriter& out) const {
  for (const Calibrator& channel : channels_) Calibrator::fields(channel, out);
  out(static_cast<std::uint32_t>(waiting_.size()));
  for (const Waiting& one : waiting_)
    out(one.since, one.prior_surprise, static_cast<std::uint32_t>(one.channel));
}

void Calibrators::read(StateReader& in, Places places) {
  for (const std::optional<std::size_t>& place : places) {
    Calibrator gone;
    Calibrator::fields(place ? channels_[*place] : gone, in);
  }
  std::size_t left = in.count(sizeof(double) * 2 + sizeof(std::uint32_t));
  if (left > kMostWaiting) StateReader::wrong("too many waiting scores");
  while (left-- > 0) {
    const auto since = in.number<double>();
    const auto prior_surprise = in.number<double>();
    const auto channel = in.number<std::uint32_t>();
    if (channel >= places.size()) StateReader::wrong("a waiting score of no channel");
    if (places[channel]) waiting_.push_back({since, prior_surprise, *places[channel]});
  }
}

}  // namespace tool_firewall
