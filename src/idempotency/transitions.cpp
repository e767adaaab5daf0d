#include <algorithm>

#include "idempotency/keys_impl.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::idempotency {
namespace {

// What a duplicate is told to wait; a running command usually ends within it.
constexpr milliseconds kRetryAfter{1000};

/// Waiters that have their answer, in the order they came.
class Answered {
 public:
  void add(PendingClaim& pending) noexcept {
    pending.waiting.next = nullptr;
    (last_ != nullptr ? last_->waiting.next : first_) = &pending;
    last_ = &pending;
  }
  /// After run or post the claim is its owner's again and may be gone.
  void run(PendingClaim* except) noexcept {
    while (first_ != nullptr) {
      PendingClaim* pending = std::exchange(first_, first_->waiting.next);
      if (pending == except) continue;
      if (pending->lane != nullptr)
        pending->lane->post(*pending);
      else
        pending->run(pending);
    }
  }

 private:
  PendingClaim* first_ = nullptr;
  PendingClaim* last_ = nullptr;
};

Claimed by_reply(KeyShard& shard, const PendingClaim& pending,
                 const std::shared_ptr<const Cached>& cached) {
  if (!pending.same_request(cached->fingerprint)) {
    ++shard.stats.mismatches;
    return Mismatch{};
  }
  ++shard.stats.replays;
  return Replay{cached};
}

Claimed by_holder(KeyShard& shard, const PendingClaim& pending, ExchangeId holder,
                  const Digest& fingerprint) {
  if (!pending.same_request(fingerprint)) {
    ++shard.stats.mismatches;
    return Mismatch{};
  }
  return InProgress{holder, kRetryAfter};
}

template <class Judge>
void answer_all(KeyEntry& entry, Answered& answered, Judge judge) {
  while (PendingClaim* pending = entry.waiters.pop()) {
    pending->answer = judge(*pending);
    answered.add(*pending);
  }
}

Result<Claimed> waited_too_long(const KeyEntry& entry) {
  if (entry.state == KeyEntry::State::running) return InProgress{entry.exchange, kRetryAfter};
  return fail(FailureKind::timeout, "key_lookup_timeout",
              "the store did not say within the deadline whether the idempotency key is known; "
              "nothing was run");
}

std::shared_ptr<const Cached> cached_from(const store::KeyRow& row, WallTime expires_at) {
  return std::make_shared<const Cached>(
      Cached{row.reply, row.fingerprint, row.exchange, row.stored_at, expires_at});
}

}  // namespace

WallTime expiry(WallTime now, milliseconds ttl) noexcept {
  return ttl > WallTime::max() - now ? WallTime::max() : now + ttl;
}

// The row of a key that is refused after its expiry outlives it.
WallTime Keys::Impl::expiry_of(const store::KeyRow& row, milliseconds ttl, milliseconds kept) noexcept {
  return kept == ttl ? row.expires_at : std::min(row.expires_at, expiry(row.stored_at, ttl));
}

bool Keys::Impl::reserve() noexcept {
  if (running.fetch_add(1, std::memory_order_relaxed) < options.max_claims) return true;
  running.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

void Keys::Impl::start(KeyShard&, KeyEntry& entry, PendingClaim& pending, std::uint64_t token) {
  entry.state = KeyEntry::State::running;
  entry.fingerprint = pending.fingerprint;
  entry.whole = pending.whole;
  entry.whole_ttl = pending.whole_ttl;
  entry.exchange = pending.exchange;
  entry.ttl = pending.policy.ttl;
  entry.kept = pending.policy.kept();
  entry.token = token;
  Run run;
  run.claim.keys_ = &keys;
  run.claim.entry_ = &entry;
  pending.answer = Claimed{std::move(run)};
}

bool Keys::Impl::wait(KeyShard& shard, KeyEntry& entry, PendingClaim& pending) {
  const bool runs = entry.state == KeyEntry::State::running;
  if (runs && (!pending.policy.wait || !pending.same_request(entry.fingerprint))) {
    pending.answer = by_holder(shard, pending, entry.exchange, entry.fingerprint);
    return true;
  }
  Instant until = kNever;
  if (pending.lane != nullptr) {
    const Instant now = pending.lane->clock().now();
    until = pending.deadline;
    // Compared in milliseconds: a max_wait of "for ever" does not fit into nanoseconds.
    if (pending.policy.wait &&
        pending.policy.max_wait < std::chrono::duration_cast<milliseconds>(until - now))
      until = now + pending.policy.max_wait;
    if (until <= now) {
      pending.answer = waited_too_long(entry);
      return true;
    }
  }
  ++shard.stats.waits;
  entry.waiters.push(pending, &entry);
  if (until != kNever) pending.waiting.timer.arm(*pending.lane, until, &on_deadline, &pending);
  return false;
}

void Keys::Impl::question_to(KeyEntry& entry) {
  entry.question = std::make_unique<KeyQuestion>();
  KeyQuestion& question = *entry.question;
  question.keys = &keys;
  question.entry = &entry;
  question.query = store::FindKey{entry.scope};
  question.run = [](Job* job) noexcept {
    auto* asked = static_cast<KeyQuestion*>(static_cast<store::PendingQuery*>(job));
    Impl& impl = *asked->keys->impl_;
    KeyEntry& about = *asked->entry;
    if (!impl.settle(about, nullptr)) impl.ask_on(about, nullptr);
  };
}

bool Keys::Impl::ask(KeyEntry& entry, PendingClaim& pending) {
  // Read first: with no lane of its own the pending claim may be gone when ask() returns.
  Lane* const lane = pending.lane;
  const Instant deadline = pending.deadline;
  question_to(entry);
  if (ask_on(entry, &pending)) return true;
  if (lane != nullptr && deadline != kNever)
    pending.waiting.timer.arm(*lane, deadline, &on_deadline, &pending);
  return false;
}

bool Keys::Impl::ask_on(KeyEntry& entry, PendingClaim* caller) {
  while (store->ask(*entry.question))
    if (settle(entry, caller)) return true;
  return false;
}

bool Keys::Impl::settle(KeyEntry& entry, PendingClaim* caller) {
  Answered answered;
  std::unique_ptr<KeyQuestion> question;  // outlives the lock: `answer` is inside it
  KeyShard& shard = shard_of(entry.hash);
  std::unique_lock lock(shard.mutex);
  if (PendingClaim* first = entry.waiters.first(); first != nullptr && entry.question->answer &&
      !std::get<store::FindKey::Answer>(*entry.question->answer) && entry.question->others < first->also_under.size()) {
    entry.question->query = store::FindKey{first->also_under[entry.question->others++]};
    return false;
  }
  question = std::move(entry.question);
  const Result<store::Answer>& answer = question->answer;
  const auto leave = [&] {
    running.fetch_sub(1, std::memory_order_relaxed);
    shard.erase(entry);
  };
  if (entry.waiters.empty()) {  // all of them were forgotten or timed out
    SLUICE_PROBE("keys.asked_for_nobody");
    leave();
    return true;
  }

  if (!answer) {
    answer_all(entry, answered, [&](const PendingClaim& pending) -> Result<Claimed> {
      if (pending.policy.fail_open) return Run{};
      return fail(answer.error().at("looking an idempotency key up; nothing was run"));
    });
    leave();
  } else if (const auto& row = std::get<store::FindKey::Answer>(*answer);
             row && row->state == store::KeyState::completed) {
    const KeyPolicy& policy = entry.waiters.first()->policy;
    const auto cached = cached_from(*row, expiry_of(*row, policy.ttl, policy.kept()));
    const bool refused = policy.refuse_expired && cached->expired(now());
    entry.fingerprint = row->fingerprint;
    answer_all(entry, answered, [&](const PendingClaim& p) -> Claimed {
      if (refused) return ExpiredKey{};
      return by_reply(shard, p, cached);
    });
    running.fetch_sub(1, std::memory_order_relaxed);
    shard.complete(entry, cached);
  } else if (row && row->exchange != entry.waiters.first()->exchange) {
    SLUICE_PROBE("keys.held_by_an_exchange_of_before");
    answer_all(entry, answered, [&](const PendingClaim& p) {
      return by_holder(shard, p, row->exchange, row->fingerprint);
    });
    leave();
  } else {
    PendingClaim* first = entry.waiters.pop();
    start(shard, entry, *first, row ? row->token : 0);
    answered.add(*first);
    // Those who came while the store was asked are judged now that somebody runs.
    Waiters came = std::exchange(entry.waiters, Waiters{});
    while (PendingClaim* pending = came.pop()) {
      if (pending->policy.wait && pending->same_request(entry.fingerprint)) {
        entry.waiters.push(*pending, &entry);
        continue;
      }
      pending->answer = by_holder(shard, *pending, entry.exchange, entry.fingerprint);
      answered.add(*pending);
    }
  }
  lock.unlock();
  answered.run(caller);
  return true;
}

void Keys::Impl::finish(KeyEntry& entry, std::shared_ptr<const Cached> cached) {
  Answered answered;
  KeyShard& shard = shard_of(entry.hash);
  {
    const std::lock_guard lock(shard.mutex);
    entry.fingerprint = cached->fingerprint;
    Bytes().swap(entry.whole);
    entry.exchange = cached->exchange;
    answer_all(entry, answered, [&](const PendingClaim& p) { return by_reply(shard, p, cached); });
    running.fetch_sub(1, std::memory_order_relaxed);
    shard.complete(entry, std::move(cached));
  }
  answered.run(nullptr);
}

void Keys::Impl::give_up_to(KeyEntry& entry, const store::KeyRow& holder) {
  Answered answered;
  KeyShard& shard = shard_of(entry.hash);
  {
    const std::lock_guard lock(shard.mutex);
    answer_all(entry, answered, [&](const PendingClaim& p) {
      return by_holder(shard, p, holder.exchange, holder.fingerprint);
    });
    running.fetch_sub(1, std::memory_order_relaxed);
    shard.erase(entry);
  }
  answered.run(nullptr);
}

void Keys::Impl::hand_on(KeyEntry& entry) {
  Answered answered;
  KeyShard& shard = shard_of(entry.hash);
  {
    const std::lock_guard lock(shard.mutex);
    if (entry.waiters.empty()) {
      running.fetch_sub(1, std::memory_order_relaxed);
      shard.erase(entry);
      return;
    }
    if (store == nullptr) {
      PendingClaim* next = entry.waiters.pop();
      start(shard, entry, *next, 0);
      answered.add(*next);
    } else {
      entry.state = KeyEntry::State::looking;
    }
  }
  if (store == nullptr) return answered.run(nullptr);
  SLUICE_PROBE("keys.asked_again_after_a_release");
  // Whoever let go may not know whether its Commit happened: the next one asks before it runs.
  question_to(entry);
  ask_on(entry, nullptr);
}

void Keys::Impl::on_deadline(void* owner) noexcept {
  auto& pending = *static_cast<PendingClaim*>(owner);
  Impl& impl = *pending.waiting.keys->impl_;
  {
    KeyShard& shard = impl.shard_of(pending.waiting.hash);
    const std::lock_guard lock(shard.mutex);
    auto* entry = static_cast<KeyEntry*>(pending.waiting.entry);
    if (entry == nullptr) return;  // answered meanwhile; run is on its way
    entry->waiters.remove(pending);
    pending.answer = waited_too_long(*entry);
  }
  pending.run(&pending);
}

}  // namespace sluice::idempotency
