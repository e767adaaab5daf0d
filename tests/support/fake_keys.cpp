// Keys in memory, as small as the contract allows: for tests of rooms that only need a claim.
#include <map>
#include <mutex>

#include "sluice/idempotency/keys.hpp"

namespace sluice::idempotency {

namespace {
struct Entry {
  Bytes scope;
  Digest fingerprint;
  ExchangeId exchange;
  milliseconds ttl;
  std::vector<PendingClaim*> waiters;
};
}  // namespace

struct Keys::Impl {
  store::Store* store;
  std::mutex mutex;
  std::map<Bytes, std::unique_ptr<Entry>> running;
  std::map<Bytes, std::shared_ptr<const Cached>> done;
};

Bytes make_scope(const Namespace& ns, std::string_view principal, std::string_view command,
                 std::uint32_t version, std::string_view key) {
  Bytes scope;
  ByteWriter w(scope);
  w.bytes(ns.text());
  w.bytes(principal);
  w.bytes(command);
  w.varint(version);
  w.bytes(key);
  return scope;
}

Keys::Keys(Clock&, store::Store* store, KeysOptions) : impl_(new Impl) { impl_->store = store; }
Keys::~Keys() = default;
std::shared_ptr<const Cached> Keys::lookup(ByteView scope) noexcept {
  std::lock_guard lock(impl_->mutex);
  const auto found = impl_->done.find(Bytes(scope));
  return found == impl_->done.end() ? nullptr : found->second;
}
bool Keys::claim(PendingClaim& p) {
  std::lock_guard lock(impl_->mutex);
  if (const auto found = impl_->done.find(p.scope); found != impl_->done.end()) {
    if (found->second->fingerprint != p.fingerprint)
      p.answer = Claimed{Mismatch{}};
    else
      p.answer = Claimed{Replay{found->second}};
    return true;
  }
  auto& entry = impl_->running[p.scope];
  if (entry) {
    if (entry->fingerprint != p.fingerprint)
      p.answer = Claimed{Mismatch{}};
    else if (!p.policy.wait)
      p.answer = Claimed{InProgress{entry->exchange, milliseconds(1000)}};
    else {
      entry->waiters.push_back(&p);
      return false;
    }
    return true;
  }
  entry = std::make_unique<Entry>(Entry{p.scope, p.fingerprint, p.exchange, p.policy.ttl, {}});
  Run run;
  run.claim.keys_ = this;
  run.claim.entry_ = entry.get();
  p.answer = Claimed{std::move(run)};
  return true;
}
bool Keys::forget(PendingClaim& p) {
  std::lock_guard lock(impl_->mutex);
  const auto found = impl_->running.find(p.scope);
  if (found == impl_->running.end()) return false;
  return std::erase(found->second->waiters, &p) > 0;
}
KeysStats Keys::stats() const noexcept { return {}; }

Claim::Claim(Claim&& o) noexcept
    : keys_(std::exchange(o.keys_, nullptr)), entry_(std::exchange(o.entry_, nullptr)) {}
Claim& Claim::operator=(Claim&& o) noexcept {
  if (keys_ != nullptr) release();
  keys_ = std::exchange(o.keys_, nullptr);
  entry_ = std::exchange(o.entry_, nullptr);
  return *this;
}
Claim::~Claim() {
  if (keys_ != nullptr) release();
}
const Bytes& Claim::scope() const noexcept { return static_cast<Entry*>(entry_)->scope; }
ExchangeId Claim::exchange() const noexcept { return static_cast<Entry*>(entry_)->exchange; }
void Claim::complete_in(store::Commit& commit, ByteView reply) const {
  auto* e = static_cast<Entry*>(entry_);
  commit.requires_.push_back({store::KeyFree{e->scope}, "idempotency_key", -1});
  store::KeyRow row;
  row.exchange = e->exchange;
  row.scope = e->scope;
  row.fingerprint = e->fingerprint;
  row.state = store::KeyState::completed;
  row.reply = reply;
  commit.then.emplace_back(store::KeyPut{std::move(row), e->ttl});
}
void Claim::claim_in(store::Commit&) const {}
void Claim::claimed(std::uint64_t) noexcept {}
void Claim::completed(Bytes reply) {
  Keys* keys = std::exchange(keys_, nullptr);
  auto* e = static_cast<Entry*>(entry_);
  std::lock_guard lock(keys->impl_->mutex);
  Cached made;
  made.reply = std::move(reply);
  made.fingerprint = e->fingerprint;
  made.exchange = e->exchange;
  made.expires_at = WallTime::max();
  auto cached = std::make_shared<const Cached>(std::move(made));
  for (auto* waiter : e->waiters) {
    waiter->answer = Claimed{Replay{cached}};
    waiter->lane->post(*waiter);
  }
  keys->impl_->done[e->scope] = cached;
  keys->impl_->running.erase(Bytes(e->scope));
}
void Claim::lost(const store::KeyRow& winner) { completed(winner.reply); }
void Claim::release() {
  Keys* keys = std::exchange(keys_, nullptr);
  auto* e = static_cast<Entry*>(entry_);
  std::lock_guard lock(keys->impl_->mutex);
  if (e->waiters.empty()) {
    keys->impl_->running.erase(Bytes(e->scope));
    return;
  }
  auto* next = e->waiters.front();
  e->waiters.erase(e->waiters.begin());
  e->exchange = next->exchange;
  Run run;
  run.claim.keys_ = keys;
  run.claim.entry_ = e;
  next->answer = Claimed{std::move(run)};
  next->lane->post(*next);
}

}  // namespace sluice::idempotency
