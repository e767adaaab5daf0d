#include "idempotency/keys_impl.hpp"

namespace sluice::idempotency {
namespace {

KeyEntry& entry_of(void* entry) noexcept {
  SLUICE_ASSERT(entry != nullptr, "an empty or ended claim was used");
  return *static_cast<KeyEntry*>(entry);
}

// A claim without a durable row needs the key to be free; with one, that the row is still ours.
void require_ours(store::Commit& commit, const KeyEntry& entry) {
  store::Requirement ours;
  ours.name = "idempotency_key";
  if (entry.token == 0)
    ours.what = store::KeyFree{entry.scope};
  else
    ours.what = store::KeyHeldBy{entry.scope, entry.exchange, entry.token};
  commit.requires_.push_back(std::move(ours));
}

// Longer than any store lives.
constexpr milliseconds kUntilItEnds = std::chrono::hours(24 * 365 * 1000);

void put(store::Commit& commit, const KeyEntry& entry, store::KeyState state, ByteView reply) {
  store::KeyPut put;
  put.row.exchange = entry.exchange;
  put.row.scope = entry.scope;
  put.row.fingerprint = entry.fingerprint;
  put.row.state = state;
  put.row.reply = reply;
  put.row.token = entry.token;
  put.ttl = state == store::KeyState::claimed ? kUntilItEnds : entry.kept;
  commit.then.emplace_back(std::move(put));
}

// Of the whole there is no claim in the store: any of its parts may be the first to complete.
void require_whole(store::Commit& commit, const KeyEntry& entry) {
  store::Requirement fits;
  fits.name = "idempotency_key_of_whole";
  fits.what = store::KeyFits{entry.whole, entry.fingerprint};
  commit.requires_.push_back(std::move(fits));
}

void put_whole(store::Commit& commit, const KeyEntry& entry) {
  store::KeyPut put;
  put.row.exchange = entry.exchange;
  put.row.scope = entry.whole;
  put.row.fingerprint = entry.fingerprint;
  put.row.state = store::KeyState::completed;
  put.ttl = entry.whole_ttl;
  commit.then.emplace_back(std::move(put));
}

}  // namespace

const Bytes& Claim::scope() const noexcept { return entry_of(entry_).scope; }
ExchangeId Claim::exchange() const noexcept { return entry_of(entry_).exchange; }
const Digest& Claim::fingerprint() const noexcept { return entry_of(entry_).fingerprint; }

void Claim::complete_in(store::Commit& commit, ByteView reply) const {
  const KeyEntry& entry = entry_of(entry_);
  if (keys_->impl_->store == nullptr) return;  // such keys live in memory alone
  // The whole first: a part that another request completed is no reply to this one.
  if (!entry.whole.empty()) require_whole(commit, entry);
  require_ours(commit, entry);
  put(commit, entry, store::KeyState::completed, reply);
  if (!entry.whole.empty() && entry.whole_ttl > milliseconds(0)) put_whole(commit, entry);
}

milliseconds Claim::kept() const noexcept { return entry_of(entry_).kept; }

void Claim::claim_in(store::Commit& commit) const {
  const KeyEntry& entry = entry_of(entry_);
  SLUICE_ASSERT(entry.whole.empty(), "a part of a whole has no durable claim of its own");
  if (keys_->impl_->store == nullptr) return;
  require_ours(commit, entry);
  put(commit, entry, store::KeyState::claimed, {});
}

void Claim::claimed(std::uint64_t token) noexcept { entry_of(entry_).token = token; }

void Claim::completed(Bytes reply) {
  KeyEntry& entry = entry_of(entry_);
  auto& impl = *std::exchange(keys_, nullptr)->impl_;
  entry_ = nullptr;
  const WallTime now = impl.now();
  impl.finish(entry,
              std::make_shared<const Cached>(Cached{std::move(reply), entry.fingerprint,
                                                    entry.exchange, now, expiry(now, entry.ttl)}));
}

void Claim::lost(const store::KeyRow& winner) {
  KeyEntry& entry = entry_of(entry_);
  auto& impl = *std::exchange(keys_, nullptr)->impl_;
  entry_ = nullptr;
  if (winner.state != store::KeyState::completed) return impl.give_up_to(entry, winner);
  impl.finish(entry, std::make_shared<const Cached>(Cached{winner.reply, winner.fingerprint,
                                                           winner.exchange, winner.stored_at,
                                                           Keys::Impl::expiry_of(winner, entry.ttl, entry.kept)}));
}

void Claim::release() {
  KeyEntry& entry = entry_of(entry_);
  auto& impl = *std::exchange(keys_, nullptr)->impl_;
  entry_ = nullptr;
  impl.hand_on(entry);
}

}  // namespace sluice::idempotency
