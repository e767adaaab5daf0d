#include "apps/voucher/books.hpp"

#include <functional>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "apps/voucher/rows.hpp"
#include "fmt/format.h"

namespace sluice::voucher {
namespace {

struct Account {
  Voucher voucher;
  std::int64_t stock = 0, budget = 0, codes = 0;  // as the rows say now
  std::int64_t issued = 0, spent = 0;             // as the assignments say
  std::string universal;                          // the one code for all; empty: none
};

class Auditor {
 public:
  Auditor(store::Store& store, const std::string& ns, store::Store& codes) : store_(store), codes_(codes), ns_(ns) {}

  Result<Books> audit() {
    SLUICE_TRY(each(kVouchers, [this](const auto& key, const auto& row) {
      auto voucher = decode_voucher(row.value);
      if (!voucher) return wrong("voucher {} does not read back as written", key);
      books_.stock += voucher->stock;
      accounts_[key].voucher = *std::move(voucher);
    }));
    SLUICE_TRY(each(kStock, [this](const auto& k, const auto& r) { books_.left += accounts_[k].stock = r.number; }));
    SLUICE_TRY(each(kBudget, [this](const auto& k, const auto& r) { accounts_[k].budget = r.number; }));
    SLUICE_TRY(each(kPool, [this](const auto& k, const auto& r) { accounts_[k].codes = r.number, accounts_[k].universal = r.value; }, &codes_));
    SLUICE_TRY(each(kUsers, [this](const auto&, const auto&) { ++books_.users; }));
    SLUICE_TRY(each(kAssigned, [this](const auto& k, const auto& r) { assignment(k, r, false); }));
    SLUICE_TRY(each(kShared, [this](const auto& k, const auto& r) { assignment(k, r, true); }));
    SLUICE_TRY(each(kCodes, [this](const auto& k, const auto& r) { code(k, r); }, &codes_));
    for (const auto& [key, code] : assigned_) wrong("assignment {} has no code row", key);
    SLUICE_TRY(each(kUserQuota, [this](const auto& k, const auto& r) { quota(k, r, per_user_, true); }));
    SLUICE_TRY(each(kDayQuota, [this](const auto& k, const auto& r) { quota(k, r, per_day_, false); }));
    for (const auto& [key, n] : per_user_)
      if (n != 0) wrong("{} assignments of {} are not in its user quota", n, key);
    for (const auto& [key, n] : per_day_)
      if (n != 0) wrong("{} assignments of {} are not in its day quota", n, key);
    balance();
    SLUICE_TRY(count_events());
    return std::move(books_);
  }

 private:
  using See = std::function<void(const std::string& key, const store::KvRow&)>;
  Status each(std::string_view collection, const See& see, store::Store* from = nullptr) {
    store::ListRows list{.ns = ns_, .collection = std::string(collection), .prefix = {}, .after = {},
                         .limit = 2000};
    for (;;) {
      SLUICE_ASSIGN(const auto items, store::ask_now(from != nullptr ? *from : store_, list));
      for (const auto& item : items) see(item.key.key, item.row);
      if (items.size() < list.limit) return {};
      list.after = items.back().key.key;
    }
  }

  template <class... Args>
  void wrong(fmt::format_string<Args...> text, Args&&... args) {
    if (books_.wrong.size() < Books::kMaxWrong)
      books_.wrong.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  void assignment(const std::string& key, const store::KvRow& row, bool shared) {
    ++books_.issued;
    const auto a = decode_assignment(row.value);
    if (!a) return wrong("assignment {} does not read back as written", key);
    const std::string id = key.substr(0, key.rfind('/'));
    Account& account = accounts_[id];
    ++account.issued;
    account.spent += a->value_minor;
    if (a->value_minor != account.voucher.value_minor)
      wrong("assignment {} took {} from the budget instead of {}", key, a->value_minor,
            account.voucher.value_minor);
    if (shared != !account.universal.empty()) wrong("assignment {} is not of the kind of its voucher's code", key);
    if (shared && a->code != account.universal)
      wrong("assignment {} names code {} but the universal code is {}", key, a->code, account.universal);
    if (!shared && !texts_.insert(a->code).second) wrong("code {} was given to two users", a->code);
    if (row.version != 1) wrong("assignment {} was written {} times", key, row.version);
    if (!shared) assigned_.emplace(key, a->code);
    ++per_user_[id + "/" + a->user];
    ++per_day_[id + "/" + std::to_string(a->day)];
  }

  void code(const std::string& key, const store::KvRow& row) {
    ++books_.codes;
    const auto given = assigned_.find(key);
    if (given == assigned_.end()) return;
    if (given->second != row.value)
      wrong("assignment {} names code {} but the code is {}", key, given->second, row.value);
    assigned_.erase(given);
  }

  void quota(const std::string& key, const store::KvRow& row,
             std::unordered_map<std::string, std::int64_t>& counted, bool user) {
    const std::int64_t found = std::exchange(counted[key], 0);
    if (found != row.number) wrong("quota row {} says {} but {} were issued", key, row.number, found);
    const Voucher& v = accounts_[key.substr(0, key.rfind('/'))].voucher;
    const std::int64_t limit = user ? v.user_quota : v.day_quota;
    if (row.number > limit) wrong("{} were issued for {}, its quota is {}", row.number, key, limit);
  }

  void balance() {
    for (const auto& [id, a] : accounts_) {
      ++books_.vouchers;
      if (a.voucher.stock > 0 && a.stock == 0) ++books_.sold_out;
      if (a.issued > a.voucher.stock)
        wrong("voucher {}: {} issued of a stock of {}", id, a.issued, a.voucher.stock);
      if (a.stock < 0 || a.stock + a.issued != a.voucher.stock)
        wrong("voucher {}: {} left and {} issued do not make the stock of {}", id, a.stock, a.issued,
              a.voucher.stock);
      if (a.budget < 0 || a.budget + a.spent != a.voucher.budget_minor)
        wrong("voucher {}: {} left and {} spent do not make the budget of {}", id, a.budget, a.spent,
              a.voucher.budget_minor);
      if (a.universal.empty() && a.issued > a.codes) wrong("voucher {}: {} issued of {} codes", id, a.issued, a.codes);
    }
  }

  Status count_events() {
    store::ListEvents list{.ns = ns_, .after = 0, .limit = 2000};
    for (;;) {
      SLUICE_ASSIGN(const auto events, store::ask_now(store_, list));
      for (const auto& event : events) books_.events += event.topic == "voucher.distributed";
      if (events.size() < list.limit) break;
      list.after = events.back().sequence;
    }
    if (books_.events != static_cast<std::uint64_t>(books_.issued))
      wrong("{} voucher.distributed events for {} assignments", books_.events, books_.issued);
    return {};
  }

  store::Store& store_;
  store::Store& codes_;
  const std::string ns_;
  Books books_;
  std::map<std::string, Account> accounts_;
  std::unordered_map<std::string, std::string> assigned_;
  std::unordered_set<std::string> texts_;
  std::unordered_map<std::string, std::int64_t> per_user_, per_day_;
};

}  // namespace

Result<Books> audit_books(store::Store& store, const std::string& ns, store::Store* codes) {
  return Auditor(store, ns, codes != nullptr ? *codes : store).audit();
}

}  // namespace sluice::voucher
