#include "apps/voucher/sold_out.hpp"

namespace sluice::voucher {

bool SoldOut::has(const std::string& ns, const std::string& voucher, Instant now) const {
  const std::scoped_lock lock(mutex_);
  const auto found = until_.find(ns + "/" + voucher);
  return found != until_.end() && now < found->second;
}

std::uint64_t SoldOut::mark() const {
  const std::scoped_lock lock(mutex_);
  return restocks_;
}

// Who was refused by this memory adds nothing to it: another node's restock is seen in time, however many ask.
void SoldOut::add(const std::string& ns, const std::string& voucher, Instant now, std::uint64_t mark) {
  const std::string name = ns + "/" + voucher;
  const std::scoped_lock lock(mutex_);
  if (const auto found = restocked_.find(name); found != restocked_.end() && found->second > mark) return;
  Instant& until = until_[name];
  if (until <= now) until = now + kSoldOutFor;
}

void SoldOut::remove(const std::string& ns, const std::string& voucher) {
  const std::scoped_lock lock(mutex_);
  until_.erase(ns + "/" + voucher);
  restocked_[ns + "/" + voucher] = ++restocks_;
}

}  // namespace sluice::voucher
