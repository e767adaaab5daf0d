#include "simulate/checkers.hpp"

#include <fmt/format.h>

#include <numeric>

namespace sluice::simulate {
namespace {

bool says_nothing(FailureKind kind) noexcept {
  return kind == FailureKind::unavailable || kind == FailureKind::overloaded ||
         kind == FailureKind::timeout || kind == FailureKind::cancelled ||
         kind == FailureKind::shutting_down;
}

}  // namespace

std::vector<std::string> remember(Memory& memory, const Answer& answer) {
  std::vector<std::string> broken;
  const std::string& key = memory.operation.key;
  switch (answer.kind) {
    case Answer::Kind::committed:
      if (memory.declined) broken.push_back(key + ": committed after it was declined");
      memory.committed = true;
      break;
    case Answer::Kind::declined:
      if (memory.committed) broken.push_back(key + ": declined after it was committed");
      memory.declined = true;
      break;
    case Answer::Kind::released:
      // A store that is down cannot replay, which contradicts nothing; a new verdict would.
      if (memory.final() && !says_nothing(answer.failure))
        broken.push_back(fmt::format("{}: released ({}) after its final reply", key,
                                     traits(answer.failure).name));
      return broken;
    case Answer::Kind::unsettled:
      return broken;
  }
  memory.replies.insert(answer.reply);
  if (memory.replies.size() > 1)
    broken.push_back(key + ": two different replies: " + to_hex(*memory.replies.begin()) + " and " +
                     to_hex(*memory.replies.rbegin()));
  return broken;
}

std::vector<std::string> judge(const std::vector<Memory>& memories, const Books& books,
                               const Partner& partner) {
  std::vector<std::string> broken = partner.violations();
  std::vector<std::int64_t> expected(kAccounts, kOpeningBalance);
  std::set<std::string> known;
  for (const Memory& memory : memories) {
    const Operation& operation = memory.operation;
    const std::string& key = operation.key;
    known.insert(key);
    const auto found = books.effects.find(key);
    const std::int64_t effects = found == books.effects.end() ? 0 : found->second;
    if (effects < 0 || effects > 1)
      broken.push_back(fmt::format("{}: took effect {} times", key, effects));
    if (!memory.final()) broken.push_back(key + ": never got a final reply");
    if (memory.committed && effects != 1)
      broken.push_back(key + ": acknowledged as committed, but its effect is gone");
    if (memory.declined && effects != 0) broken.push_back(key + ": declined, but took effect");
    expected[operation.from] -= effects * operation.amount;
    expected[operation.to] += effects * operation.amount;

    std::int64_t confirmed = 0;
    for (const auto& [token, entry] : partner.entries()) {
      if (entry.key != key) continue;
      confirmed += entry.state == Partner::State::confirmed ? 1 : 0;
      if (entry.state == Partner::State::held)
        broken.push_back(fmt::format("{}: the partner still holds {}", key, token));
    }
    if (operation.external && confirmed != effects * operation.holds)
      broken.push_back(
          fmt::format("{}: {} effects here, {} at the partner", key, effects, confirmed));
  }
  for (const auto& [key, effects] : books.effects)
    if (!known.contains(key)) broken.push_back(key + ": an effect nobody asked for");
  for (std::uint32_t account = 0; account < kAccounts; ++account) {
    if (books.balances[account] != expected[account])
      broken.push_back(fmt::format("account {}: holds {}, effects say {}", account,
                                   books.balances[account], expected[account]));
    if (books.balances[account] < 0)
      broken.push_back(fmt::format("account {}: overdrawn", account));
  }
  const auto total = std::accumulate(books.balances.begin(), books.balances.end(), std::int64_t{0});
  if (total != kOpeningBalance * kAccounts)
    broken.push_back(fmt::format("the books do not balance: {} instead of {}", total,
                                 kOpeningBalance * kAccounts));
  for (const store::OpenRow& row : books.open)
    broken.push_back(fmt::format("exchange {} of flow {} is still open in state {}",
                                 to_string(row.exchange), row.flow, static_cast<int>(row.state)));
  return broken;
}

}  // namespace sluice::simulate
