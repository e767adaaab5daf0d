#include "simulate/campaign.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <list>

#include "simulate/checkers.hpp"

// A crash leaves what was in memory where it was, as kill -9 does; the leak sanitizer would call
// that a leak.
extern "C" const char* __asan_default_options();  // NOLINT: the sanitizer's name
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

namespace sluice::simulate {
namespace {

// Bounds of one history. What they end is reported as a violation: a promise kept too late is not
// kept.
constexpr std::uint64_t kStepsMax = 600'000;
constexpr std::uint32_t kAttemptsMax = 400;
constexpr int kOpensMax = 40;
constexpr Duration kSettleMax = std::chrono::minutes(30);

/// One client that wants one operation done and asks until it has a final reply.
struct Client {
  std::size_t memory = 0;
  std::uint32_t attempts = 0;
  bool asks_again = false;  ///< once more after its final reply, as a forgetful caller does
  bool waiting = false;     ///< an attempt is in flight
  bool done = false;
};

class Run {
 public:
  Run(const HistoryOptions& options, const SpineFactory& factory)
      : options_(options), factory_(factory), world_(options.seed, options.print) {}

  Verdict play() {
    plan_workload();
    plan_trouble();
    while (!over()) {
      if (!spine_ && !boot()) continue;
      if (!world_.scheduler.step() && !over()) {
        violate("everything stopped, but some clients have no final reply");
        break;
      }
      bury();
      // A store that closed itself is restarted by whoever watches over it.
      if (calm_ && store_closed()) restart_ = true;
      if (!world_.files.powered() || crash_at_step_ <= world_.scheduler.steps() || restart_)
        crash();
      if (world_.scheduler.steps() > kStepsMax) {
        violate("not finished within the bound of steps");
        break;
      }
    }
    if (verdict_.violations.empty()) read_and_judge();
    if (spine_) tear_down();
    verdict_.hash = world_.history.hash();
    verdict_.entries = world_.history.entries();
    verdict_.partner_calls = world_.partner.calls();
    return std::move(verdict_);
  }

 private:
  struct Attempt {
    Run* run = nullptr;
    Client* client = nullptr;  // null: recovery
    CancelScope scope;
    TaskContext context;
    Task<Answer> request;
    Task<Status> recovery;
    bool finished = false;
  };

  // --- Plans -----------------------------------------------------------------------------------
  void plan_workload() {
    sim::SimRandom random = world_.random.fork();
    const std::uint64_t operations = 4 + random.below(28);
    for (std::uint64_t i = 0; i < operations; ++i) {
      Operation operation;
      operation.number = static_cast<std::uint32_t>(i);
      operation.key = fmt::format("key-{}-{}", options_.seed, i);
      operation.from = static_cast<std::uint32_t>(random.below(kAccounts));
      operation.to = static_cast<std::uint32_t>((operation.from + 1 + random.below(kAccounts - 1)) %
                                                kAccounts);
      operation.amount = static_cast<std::int64_t>(1 + random.below(120));
      operation.external = options_.externals && random.one_in(2);
      operation.declined = random.one_in(12);
      if (options_.backing == Backing::database && operation.number % 3 == 0) operation.holds = 2;
      memories_.push_back({.operation = operation});
    }
    verdict_.operations = operations;
    for (std::size_t i = 0; i < memories_.size(); ++i)
      for (std::uint64_t copies = 1 + random.below(3); copies > 0; --copies) {
        Client& client = clients_.emplace_back();
        client.memory = i;
        client.asks_again = random.one_in(3);
        ask_after(client, microseconds(static_cast<std::int64_t>(random.below(400'000))));
      }
    behaviour_ = random.fork();
  }

  void plan_trouble() {
    sim::SimRandom random = world_.random.fork();
    const auto maybe = [&](std::string_view site, std::uint64_t run_in, std::uint64_t least,
                           std::uint64_t spread, std::uint64_t times) {
      if (random.one_in(run_in)) world_.faults.arm(site, least + random.below(spread), times);
    };
    maybe("partner.down", 3, 4, 20, UINT64_MAX);
    maybe("partner.slow", 3, 2, 20, UINT64_MAX);
    maybe("partner.request_lost", 3, 4, 30, UINT64_MAX);
    maybe("partner.request_doubled", 3, 2, 20, UINT64_MAX);
    maybe("partner.answer_lost", 3, 4, 30, UINT64_MAX);
    if (options_.backing == Backing::sqlite) {
      maybe("files.power", 2, 20, 300, 3);
      maybe("files.sync", 5, 10, 200, 2);
      maybe("files.write", 5, 20, 400, 2);
      maybe("files.read", 8, 20, 400, 2);
      maybe("files.open", 8, 2, 10, 2);
      if (random.one_in(6)) world_.files.set_budget(60'000 + random.below(400'000));
      crashes_left_ = random.below(5);
    }
    if (options_.backing == Backing::database) {
      maybe("database.down", 3, 10, 60, UINT64_MAX);
      maybe("database.request_lost", 2, 10, 80, UINT64_MAX);
      maybe("database.answer_lost", 2, 10, 80, UINT64_MAX);
      maybe("database.unreadable", 4, 10, 60, UINT64_MAX);
      crashes_left_ = random.below(5);
    }
    plan_crash();
    world_.scheduler.after(seconds(1) + milliseconds(static_cast<std::int64_t>(random.below(8000))),
                           [this] { calm(); });
  }

  void plan_crash() {
    crash_at_step_ = UINT64_MAX;
    if (crashes_left_ == 0) return;
    --crashes_left_;
    // Mostly soon, sometimes late: the interesting instants lie inside the first commits.
    const std::uint64_t range = std::uint64_t{1} << (4 + behaviour_.below(9));
    crash_at_step_ = world_.scheduler.steps() + 1 + behaviour_.below(range);
  }

  void calm() {
    calm_ = true;
    world_.faults.disarm_all();
    world_.files.set_budget(UINT64_MAX);
    crashes_left_ = 0;
    crash_at_step_ = UINT64_MAX;
  }

  // --- The process under test ------------------------------------------------------------------
  bool boot() {
    lane_ = &world_.scheduler.add_lane("lane");
    auto made = factory_(world_, *lane_, options_.backing);
    if (!made) {
      world_.history.note("open failed");
      world_.scheduler.drop_lane(*lane_);
      ++verdict_.failed_opens;
      if (!world_.files.powered()) world_.files.restart();
      if (calm_ || ++opens_ > kOpensMax) {
        if (calm_ && ++opens_after_calm_ > 2) {
          violate("the store does not open again: " + made.error().to_string());
          abandoned_ = true;
        }
        calm();
      }
      return false;
    }
    spine_ = std::move(*made);
    Attempt& attempt = attempts_.emplace_back();
    attempt.run = this;
    attempt.recovery = spine_->recover();
    launch(attempt);
    return true;
  }

  void crash() {
    world_.history.note("crash");
    ++verdict_.crashes;
    restart_ = false;
    world_.files.power_off();
    tear_down();
    world_.files.restart();
    plan_crash();
    for (Client& client : clients_) {
      if (!client.waiting) continue;
      client.waiting = false;
      ask_after(client, any_pause());
    }
  }

  // Everything the process had in memory goes. The lane goes last: what is destroyed may post.
  void tear_down() {
    spine_->crash();
    attempts_.clear();
    spine_.reset();
    world_.scheduler.drop_lane(*lane_);
    lane_ = nullptr;
  }

  // --- Clients -----------------------------------------------------------------------------------
  Duration any_pause() {
    return microseconds(
        static_cast<std::int64_t>(behaviour_.below(behaviour_.one_in(4) ? 900'000 : 30'000)));
  }

  void ask_after(Client& client, Duration pause) {
    world_.scheduler.after(pause, [this, &client] { ask(client); });
  }

  void ask(Client& client) {
    if (client.done || client.waiting) return;
    if (++client.attempts > kAttemptsMax) {
      violate(memories_[client.memory].operation.key + ": no final reply after many attempts");
      client.done = true;
      return;
    }
    if (!spine_) return ask_after(client, any_pause());
    ++verdict_.attempts;
    client.waiting = true;
    Attempt& attempt = attempts_.emplace_back();
    attempt.run = this;
    attempt.client = &client;
    if (!calm_ && behaviour_.one_in(10))
      attempt.context.deadline =
          world_.clock.now() + microseconds(static_cast<std::int64_t>(behaviour_.below(300'000)));
    attempt.request = spine_->handle(memories_[client.memory].operation);
    launch(attempt);
    if (!calm_ && behaviour_.one_in(12)) hang_up_later(client);
  }

  void hang_up_later(Client& client) {
    const auto pause = microseconds(static_cast<std::int64_t>(behaviour_.below(20'000)));
    world_.scheduler.after(pause, [this, &client] {
      if (lane_ == nullptr) return;
      lane_->post([this, &client] {
        for (Attempt& attempt : attempts_)
          if (attempt.client == &client && !attempt.finished)
            return attempt.scope.cancel(FailureKind::cancelled);
      });
    });
  }

  void launch(Attempt& attempt) {
    attempt.context.lane = lane_;
    attempt.context.scope = &attempt.scope;
    lane_->post([&attempt] {
      const auto done = [](void* owner) noexcept {
        auto* self = static_cast<Attempt*>(owner);
        self->run->finished(*self);
      };
      const bool at_once = attempt.client != nullptr
                               ? attempt.request.start(attempt.context, done, &attempt)
                               : attempt.recovery.start(attempt.context, done, &attempt);
      if (at_once) attempt.run->finished(attempt);
    });
  }

  void finished(Attempt& attempt) noexcept {
    attempt.finished = true;
    // After the power went nothing leaves the machine any more.
    if (!world_.files.powered()) return;
    if (attempt.client == nullptr) return recovered(attempt);
    Client& client = *attempt.client;
    client.waiting = false;
    Answer answer;
    try {
      answer = attempt.request.take();
    } catch (const std::exception& thrown) {
      violate(std::string("a request threw: ") + thrown.what());
    }
    Memory& memory = memories_[client.memory];
    world_.history.note("answer", memory.operation.number,
                        static_cast<std::uint64_t>(answer.kind) + (answer.replayed ? 10 : 0));
    for (std::string& broken : remember(memory, answer)) violate(std::move(broken));
    if (answer.replayed) ++verdict_.replayed;
    const bool store_ails = answer.failure == FailureKind::unavailable ||
                            answer.failure == FailureKind::unknown_outcome;
    if (store_ails && store_closed()) restart_ = true;
    const bool final =
        answer.kind == Answer::Kind::committed || answer.kind == Answer::Kind::declined;
    if (final && !client.asks_again) {
      client.done = true;
      return;
    }
    if (final) client.asks_again = false;
    ask_after(client, any_pause());
  }

  // A full disk heals by itself; a store that closed after a failed sync does not.
  bool store_closed() const {
    const Status health = spine_->store().health();
    return !health && health.error().code() == "store_failed";
  }

  void recovered(Attempt& attempt) noexcept {
    const Status status = attempt.recovery.take();
    world_.history.note("recovered", status ? 1 : 0);
    if (status) return;
    if (calm_ && ++opens_after_calm_ > 2) violate("recovery fails: " + status.error().to_string());
    // Not at once: a disk that is full stays full for a while.
    world_.scheduler.after(milliseconds(50), [this] { restart_ = true; });
  }

  void bury() {
    attempts_.remove_if([](const Attempt& attempt) { return attempt.finished; });
  }

  // --- The end
  // -------------------------------------------------------------------------------------
  // Everyone has a final reply, and nothing is left open or has been for too long.
  bool over() {
    if (abandoned_ || verdict_.violations.size() > 10) return true;
    if (!calm_ || !spine_ || !attempts_.empty() || restart_) return false;
    if (!std::ranges::all_of(clients_, &Client::done)) return false;
    if (settle_until_ == kNever) settle_until_ = world_.clock.now() + kSettleMax;
    return spine_->settled() || world_.clock.now() >= settle_until_;
  }

  void read_and_judge() {
    Books books = sim::run_task(world_.scheduler, *lane_, read_books(spine_->store()));
    for (std::string& broken : judge(memories_, books, world_.partner)) violate(std::move(broken));
    for (const Memory& memory : memories_) {
      verdict_.committed += memory.committed ? 1 : 0;
      verdict_.declined += memory.declined ? 1 : 0;
    }
  }

  static Task<Books> read_books(store::Store& store) {
    Books books;
    store::GetRows get;
    for (std::uint32_t account = 0; account < kAccounts; ++account)
      get.keys.push_back(account_row(account));
    store::QueryAwaiter<store::GetRows> rows(store, std::move(get));
    Result<store::GetRows::Answer> balances = co_await rows;
    SLUICE_ASSERT(balances.has_value(), "the settled store does not answer");
    for (const auto& row : *balances) books.balances.push_back(row ? row->number : 0);
    store::ListRows list;
    list.ns = kApp;
    list.collection = "effects";
    store::QueryAwaiter<store::ListRows> listing(store, std::move(list));
    Result<store::ListRows::Answer> effects = co_await listing;
    SLUICE_ASSERT(effects.has_value(), "the settled store does not list");
    for (const auto& item : *effects) books.effects[item.key.key] = item.row.number;
    store::ListOpen open_query;
    store::QueryAwaiter<store::ListOpen> open_rows(store, std::move(open_query));
    Result<store::ListOpen::Answer> open = co_await open_rows;
    SLUICE_ASSERT(open.has_value(), "the settled store does not list open exchanges");
    books.open = std::move(*open);
    co_return books;
  }

  void violate(std::string what) { verdict_.violations.push_back(std::move(what)); }

  HistoryOptions options_;
  const SpineFactory& factory_;
  World world_;
  sim::SimRandom behaviour_{0};
  Verdict verdict_;
  std::vector<Memory> memories_;
  std::list<Client> clients_;
  std::list<Attempt> attempts_;
  Lane* lane_ = nullptr;
  std::unique_ptr<Spine> spine_;
  std::uint64_t crashes_left_ = 0;
  std::uint64_t crash_at_step_ = UINT64_MAX;
  Instant settle_until_ = kNever;
  int opens_ = 0;
  int opens_after_calm_ = 0;
  bool calm_ = false;
  bool restart_ = false;
  bool abandoned_ = false;
};

}  // namespace

std::vector<std::string> spine_names() { return {"store", "flow"}; }
std::string default_spine() { return spine_names().back(); }
SpineFactory spine_named(const std::string& name) {
  if (name == "store") return make_store_spine;
  return make_flow_spine;
}

Verdict run_history(const HistoryOptions& options, const SpineFactory& factory) {
  return Run(options, factory).play();
}

}  // namespace sluice::simulate
