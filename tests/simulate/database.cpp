#include "simulate/database.hpp"

#include <algorithm>
#include <list>

namespace sluice::simulate {
namespace {

constexpr Duration kGivenUp = milliseconds(50);  // after which a lost answer is no more waited for

template <class Pending>
void hand_back(Pending& pending) {
  if (pending.lane != nullptr)
    pending.lane->post(pending);
  else
    pending.run(&pending);
}

std::unexpected<Failure> lost() { return fail(FailureKind::unknown_outcome, "connection_lost", "no answer from the database"); }
std::unexpected<Failure> down() { return fail(FailureKind::unavailable, "database_down", "the database refuses connections"); }

}  // namespace

/// One Commit on its way.
struct DatabaseLink::Flight {
  store::PendingCommit* pending = nullptr;
  store::Commit commit;
  bool arrived = false;
};

struct DatabaseLink::Wire {
  bool up = true;
  store::Store& database;
  std::list<std::shared_ptr<Flight>> under_way;

  explicit Wire(store::Store& to) : database(to) {}
  Result<store::CommitOutcome> arrive(Flight& flight) {
    flight.arrived = true;
    store::PendingCommit here;
    here.commit = std::move(flight.commit);
    here.run = [](Job*) noexcept {};
    database.submit(here);
    flight.commit = std::move(here.commit);  // its owner looks for tokens in its own rows
    return std::move(here.outcome);
  }
};

DatabaseLink::DatabaseLink(World& world)
    : world_(world), database_(*world.database), random_(world.random.fork()), wire_(std::make_shared<Wire>(database_)) {}

Duration DatabaseLink::latency() { return microseconds(50 + static_cast<std::int64_t>(random_.below(random_.one_in(20) ? 20'000 : 1500))); }

void DatabaseLink::answer_after(Duration time, std::shared_ptr<Flight> flight, Result<store::CommitOutcome> outcome) {
  world_.scheduler.after(time, [wire = wire_, flight = std::move(flight), outcome = std::move(outcome)] {
    wire->under_way.remove(flight);
    if (!wire->up) return;
    flight->pending->commit = std::move(flight->commit);
    flight->pending->outcome = outcome;
    hand_back(*flight->pending);
  });
}

void DatabaseLink::submit(store::PendingCommit& pending) {
  if (!wire_->up) {
    pending.outcome = down();
    return hand_back(pending);
  }
  auto flight = std::make_shared<Flight>();
  flight->pending = &pending;
  flight->commit = std::move(pending.commit);
  wire_->under_way.push_back(flight);
  if (world_.faults.fires("database.down")) return answer_after(latency(), std::move(flight), down());
  if (world_.faults.fires("database.request_lost")) {
    flight->arrived = true;  // nowhere
    return answer_after(kGivenUp, std::move(flight), lost());
  }
  last_arrival_ = std::max(last_arrival_, world_.clock.now() + latency());
  world_.scheduler.at(last_arrival_, [this, wire = wire_, flight = std::move(flight)] {
    if (!wire->up) return;  // close() has seen to it
    Result<store::CommitOutcome> outcome = wire->arrive(*flight);
    if (world_.faults.fires("database.answer_lost")) return answer_after(kGivenUp, flight, lost());
    answer_after(latency(), flight, std::move(outcome));
  });
}

bool DatabaseLink::ask(store::PendingQuery& pending) {
  if (!wire_->up || world_.faults.fires("database.unreadable")) {
    pending.answer = down();
    return true;
  }
  if (random_.one_in(2)) return database_.ask(pending);
  world_.scheduler.after(latency(), [this, wire = wire_, &pending] {
    if (!wire->up) return;
    static_cast<void>(wire->database.ask(pending));
    world_.scheduler.after(latency(), [wire, &pending] {
      if (wire->up) hand_back(pending);
    });
  });
  return false;
}

void DatabaseLink::close() {
  if (!std::exchange(wire_->up, false)) return;
  for (const auto& flight : wire_->under_way)
    if (!flight->arrived && random_.one_in(2)) static_cast<void>(wire_->arrive(*flight));
  wire_->under_way.clear();
}

}  // namespace sluice::simulate
