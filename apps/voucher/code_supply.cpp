#include "apps/voucher/code_supply.hpp"

#include <algorithm>
#include <unordered_set>

#include "apps/voucher/loose_ask.hpp"
#include "apps/voucher/rows.hpp"

namespace sluice::voucher {

CodeHold::~CodeHold() {
  if (owner_ != nullptr) owner_->give_back(pool_, segment_, ordinal_, std::move(text_));
}

void CodeHold::assigned() noexcept {
  if (owner_ != nullptr) std::exchange(owner_, nullptr)->assigned(pool_, segment_, ordinal_);
}

void CodeHold::unknown() noexcept {
  if (owner_ != nullptr) std::exchange(owner_, nullptr)->unknown(pool_, segment_, ordinal_, std::move(text_));
}

std::shared_ptr<CodeHold> CodeSupply::take(const std::string& ns, const std::string& voucher, Instant now) {
  const std::string name = ns + "/" + voucher;
  const std::scoped_lock lock(mutex_);
  const auto found = pools_.find(name);
  if (found == pools_.end()) return nullptr;
  if (!found->second.universal.empty() && found->second.universal_until > now)
    return std::make_shared<CodeHold>(found->second.universal);
  auto& segments = found->second.segments;
  for (auto at = segments.begin(); at != segments.end();) {
    auto& [first, segment] = *at;
    if (segment.until <= now) {  // the lease is over: what is held is still settled by the store
      at = segments.erase(at);
      continue;
    }
    if (!segment.free.empty()) {
      auto code = segment.free.extract(segment.free.begin());
      segment.held.insert(code.key());
      return std::make_shared<CodeHold>(*this, name, first, code.key(), std::move(code.mapped()));
    }
    ++at;
  }
  return nullptr;
}

Task<Status> CodeSupply::add(std::string ns, LeasedSegment leased, Instant until) {
  store::ListRows query{.ns = ns,
                                .collection = std::string(kAssigned),
                                .prefix = leased.voucher + "/",
                                .after = leased.first == 0 ? "" : ordinal_key(leased.voucher, leased.first - 1),
                                .limit = leased.codes.size()};
  auto asking = ask_loosely(store_, std::move(query));
  const auto assigned = co_await asking;
  if (!assigned) co_return fail(assigned.error());
  std::unordered_set<std::int64_t> taken;
  for (const auto& item : *assigned) taken.insert(ordinal_of(item.key.key));
  Segment segment;
  segment.token = leased.token;
  segment.until = until;
  for (std::size_t i = 0; i < leased.codes.size(); ++i) {
    const std::int64_t ordinal = leased.first + static_cast<std::int64_t>(i);
    if (!taken.contains(ordinal)) segment.free.emplace(ordinal, std::move(leased.codes[i]));
  }
  const std::scoped_lock lock(mutex_);
  Pool& pool = pool_of(ns, leased.voucher);
  pool.came = true;
  const auto [at, fresh] = pool.segments.try_emplace(leased.first, std::move(segment));
  Segment& own = at->second;
  if (!fresh) {
    // Renewed: what is held of it stays so. It may have been another's in between, who assigned some.
    own.until = until;
    own.token = leased.token;
    // What was told pending is settled: whichever is assigned in spite of that is run again by who comes second.
    own.free.merge(own.unsettled);
    own.unsettled.clear();
    std::erase_if(own.free, [&](const auto& code) { return taken.contains(code.first); });
  }
  pool.dry = pool.dry && own.free.empty();
  if (own.finished()) {
    finished_[ns].push_back({leased.voucher, leased.first, leased.token});
    pool.segments.erase(at);
  }
  co_return Status();
}

void CodeSupply::not_told(const std::string& ns, std::vector<Finished> finished) {
  const std::scoped_lock lock(mutex_);
  auto& all = finished_[ns];
  all.insert(all.end(), std::make_move_iterator(finished.begin()), std::make_move_iterator(finished.end()));
}

void CodeSupply::add_universal(const std::string& ns, const std::string& voucher, std::string text, Instant until) {
  const std::scoped_lock lock(mutex_);
  Pool& pool = pool_of(ns, voucher);
  pool.came = true;
  pool.universal = std::move(text);
  pool.universal_until = until;
}

bool CodeSupply::has(const std::string& ns, const std::string& voucher, Instant now) const {
  const std::scoped_lock lock(mutex_);
  const Pool* const pool = find(ns, voucher);
  if (pool == nullptr) return false;
  if (!pool->universal.empty() && pool->universal_until > now) return true;
  return std::ranges::any_of(pool->segments, [&](const auto& one) {
    return one.second.until > now && !one.second.free.empty();
  });
}

CodeSupply::Pool& CodeSupply::pool_of(const std::string& ns, const std::string& voucher) {
  Pool& pool = pools_[ns + "/" + voucher];
  pool.ns = ns;
  pool.voucher = voucher;
  return pool;
}

const CodeSupply::Pool* CodeSupply::find(const std::string& ns, const std::string& voucher) const {
  const auto found = pools_.find(ns + "/" + voucher);
  return found == pools_.end() ? nullptr : &found->second;
}

bool CodeSupply::resumes(const std::string& ns, const std::string& voucher) const {
  const std::scoped_lock lock(mutex_);
  const Pool* const pool = find(ns, voucher);
  return pool == nullptr || !pool->came || pool->dry;
}

void CodeSupply::set_dry(const std::string& ns, const std::string& voucher) {
  const std::scoped_lock lock(mutex_);
  pool_of(ns, voucher).dry = true;
}

bool CodeSupply::all_held(const std::string& ns, const std::string& voucher) const {
  const std::scoped_lock lock(mutex_);
  const Pool* const pool = find(ns, voucher);
  return pool != nullptr && pool->dry && !pool->segments.empty() &&
         std::ranges::all_of(pool->segments, [](const auto& one) { return one.second.free.empty(); });
}

void CodeSupply::all_leased(const std::string& ns, const std::string& voucher, Instant until) {
  const std::scoped_lock lock(mutex_);
  pool_of(ns, voucher).leased_until = until;
}

std::optional<Instant> CodeSupply::leased_until(const std::string& ns, const std::string& voucher, Instant now) const {
  const std::scoped_lock lock(mutex_);
  const Pool* const pool = find(ns, voucher);
  if (pool == nullptr || pool->leased_until <= now) return std::nullopt;
  return pool->leased_until;
}

std::vector<CodeSupply::Finished> CodeSupply::take_finished(const std::string& ns, std::size_t limit) {
  const std::scoped_lock lock(mutex_);
  auto& all = finished_[ns];
  if (all.size() <= limit) return std::exchange(all, {});
  std::vector<Finished> some(all.end() - static_cast<std::ptrdiff_t>(limit), all.end());
  all.resize(all.size() - limit);
  return some;
}

void CodeSupply::give_back(const std::string& pool, std::int64_t segment, std::int64_t ordinal, std::string text) {
  const std::scoped_lock lock(mutex_);
  auto& segments = pools_[pool].segments;
  // Of an earlier lease of it: the segment came again with this code in it.
  if (const auto found = segments.find(segment); found != segments.end() && found->second.held.erase(ordinal) != 0)
    found->second.free.emplace(ordinal, std::move(text));
}

void CodeSupply::unknown(const std::string& pool, std::int64_t segment, std::int64_t ordinal, std::string text) {
  const std::scoped_lock lock(mutex_);
  auto& segments = pools_[pool].segments;
  if (const auto found = segments.find(segment); found != segments.end() && found->second.held.erase(ordinal) != 0)
    found->second.unsettled.emplace(ordinal, std::move(text));
}

void CodeSupply::assigned(const std::string& name, std::int64_t first, std::int64_t ordinal) {
  const std::scoped_lock lock(mutex_);
  Pool& pool = pools_[name];
  const auto found = pool.segments.find(first);
  if (found == pool.segments.end()) return;
  Segment& segment = found->second;
  segment.held.erase(ordinal);
  segment.free.erase(ordinal);
  if (!segment.finished()) return;
  finished_[pool.ns].push_back({pool.voucher, first, found->second.token});
  pool.segments.erase(found);
}

}  // namespace sluice::voucher
