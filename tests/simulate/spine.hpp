// What the campaign drives: the product's own wiring below the doors, behind one function.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "sim/files.hpp"
#include "simulate/partner.hpp"
#include "sluice/base/reply.hpp"
#include "sluice/store/store.hpp"

namespace sluice::simulate {

/// One thing a client wants done once: move an amount between two accounts.
struct Operation {
  std::uint32_t number = 0;
  std::string key;  ///< its idempotency key
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::int64_t amount = 0;
  bool external = false;  ///< the partner takes part
  std::uint32_t holds = 1;  ///< and is asked by so many stages
  bool declined = false;  ///< a stage declines it, whatever the balances
};

/// What a client is told about one attempt.
struct Answer {
  enum class Kind : std::uint8_t {
    committed,  ///< final, with a reply
    declined,   ///< final, with a reply; nothing took effect
    released,   ///< nothing took effect; a retry runs as new
    unsettled,  ///< in progress, pending, in doubt or unknown: ask again
  };
  Kind kind = Kind::unsettled;
  Bytes reply;
  FailureKind failure = FailureKind::none;
  bool replayed = false;
};

/// Everything outside the process under test; survives its crashes.
struct World {
  World(std::uint64_t seed, bool print)
      : random(seed),
        faults(random.fork()),
        files(random.next(), &faults, &history),
        scheduler(clock, random.next(), &history),
        partner(scheduler, random.fork(), faults, history) {
    history.set_print(print);
  }
  sim::SimRandom random;
  sim::SimClock clock;
  sim::History history;
  sim::Faults faults;
  sim::SimFiles files;
  sim::SimScheduler scheduler;
  Partner partner;
  /// Wake tokens of exchanges that asked a host and sleep; it answers when it is ready, and again
  /// until it is heard.
  std::set<std::string> asked;
  /// With Backing::database: what every process is connected to.
  std::unique_ptr<store::Store> database;
};

/// One incarnation of the process under test. Destroyed at any moment by a crash.
class Spine {
 public:
  virtual ~Spine() = default;
  virtual store::Store& store() = 0;
  /// Finishes what earlier incarnations left behind; requests may run meanwhile.
  virtual Task<Status> recover() = 0;
  virtual Task<Answer> handle(Operation operation) = 0;
  /// Whether background work (retries of second phases, recovery) is left.
  virtual bool settled() = 0;
  /// Cuts the connections of everything inside; called before destruction.
  virtual void crash() noexcept = 0;
};

enum class Backing : std::uint8_t { memory, sqlite, database };
std::string_view to_string(Backing backing) noexcept;
std::optional<Backing> backing_named(std::string_view name) noexcept;
/// Fails when the store does not open, as it may while faults are armed.
using SpineFactory = std::function<Result<std::unique_ptr<Spine>>(World&, Lane&, Backing)>;

/// Rows the spine keeps, read back by the checkers.
inline constexpr std::string_view kApp = "bank";
inline constexpr std::uint32_t kAccounts = 5;
inline constexpr std::int64_t kOpeningBalance = 200;
store::KvKey account_row(std::uint32_t account);
/// Its number counts how often the operation took effect.
store::KvKey effect_row(const std::string& key);

Result<std::unique_ptr<store::Store>> open_store(World& world, Backing backing);
/// Writes the opening balances once.
Task<Status> open_accounts(store::Store& store);

/// Keys, flow and recovery over the store: the spine itself.
Result<std::unique_ptr<Spine>> make_flow_spine(World& world, Lane& lane, Backing backing);
/// Requests go straight to store::Commit, without flow: proves the store alone.
Result<std::unique_ptr<Spine>> make_store_spine(World& world, Lane& lane, Backing backing);

}  // namespace sluice::simulate
