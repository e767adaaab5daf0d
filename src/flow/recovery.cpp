#include "sluice/flow/recovery.hpp"

#include <algorithm>

#include "flow/history.hpp"
#include "flow/runner.hpp"
#include "sluice/store/nodes.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {
namespace {

constexpr Duration kLook = milliseconds(500);
constexpr Duration kLongestSoon = seconds(5);
// Between two rounds of what no living node can finish.
constexpr Duration kPassedOnAgain = seconds(30);

}  // namespace

Flow* Flows::find(std::string_view name, std::uint32_t version) const {
  const auto found = flows_.find({std::string(name), version});
  return found == flows_.end() ? nullptr : found->second;
}

std::vector<Flow*> Flows::all() const {
  std::vector<Flow*> all;
  for (const auto& [key, flow] : flows_) all.push_back(flow);
  return all;
}

std::vector<Flows::Expecting> Flows::expecting(const std::string& token) const {
  std::vector<Expecting> all;
  for (const auto& [key, flow] : flows_)
    for (const auto& text : flow->expected_in(token))
      if (auto ns = Namespace::parse(text)) all.push_back({flow, *std::move(ns)});
  return all;
}

Recovery::Recovery(store::Store& store, const Flows& flows, Lane& lane, RecoveryOptions options)
    : store_(store), nodes_(store::nodes_of(store)), flows_(flows), lane_(lane), options_(options) {}
Recovery::~Recovery() = default;

void Recovery::start(std::function<void(const Result<RecoveryProgress>&)> done) {
  progress_ = {};
  unknown_.clear();
  last_ = {};
  all_read_ = false;
  done_ = std::move(done);
  read_batch();
}

void Recovery::keep_sweeping(Duration every,
                             std::function<void(const Result<RecoveryProgress>&)> done) {
  every_ = std::max<Duration>(every, seconds(1));
  each_ = std::move(done);
  sweep();
}

void Recovery::sweep() {
  if (nodes_ != nullptr) takeovers_ = nodes_->takeovers();
  left_open_ = left_open_here();
  start([this](const Result<RecoveryProgress>& progress) {
    // Cut short: rows or journals were not readable. And what was undone for a dead node may not be known to be
    // over yet (the record of it is lazy, the store may have failed): that node waits until it is, so it is looked
    // at once more.
    const bool again = !progress || progress->found > progress->committed + progress->aborted + progress->paused + progress->in_doubt ||
                       (nodes_ != nullptr && progress->committed + progress->aborted != 0);
    if (progress) pass_on_unknown();
    if (each_) each_(progress);
    // What is left open again and again (the store reads and does not write) is looked at less and less often.
    soon_ = left_open_here() == left_open_ ? kLook : std::min<Duration>({soon_ * 2, kLongestSoon, every_});
    ended_ = lane_.clock().now();
    next_ = lane_.clock().now() + (again ? std::min<Duration>(every_, seconds(1)) : every_);
    wait_for_next();
  });
}

// Until it is time, looks now and then whether another node has died or something was left open here.
void Recovery::wait_for_next() {
  const Instant now = lane_.clock().now();
  if (now >= next_ || (nodes_ != nullptr && nodes_->takeovers() != takeovers_) ||
      (left_open_here() != left_open_ && now - ended_ >= soon_))
    return sweep();
  again_.arm(lane_, std::min(next_, now + kLook),
             [](void* self) noexcept { static_cast<Recovery*>(self)->wait_for_next(); }, this);
}

std::uint64_t Recovery::left_open_here() const {
  std::uint64_t sum = 0;
  for (const Flow* flow : flows_.all()) sum += flow->left_open();
  return sum;
}

// Reads the next rows; the answer may come at once or later.
void Recovery::read_batch() {
  struct Reading : store::PendingQuery {
    Recovery* self = nullptr;
    void finish() {
      if (!answer) {
        auto done = std::move(self->done_);
        if (done) done(fail(answer.error()));
        return;
      }
      auto& rows = std::get<store::ListOpen::Answer>(*answer);
      self->all_read_ = rows.size() < self->options_.batch;
      for (auto& row : rows) {
        self->last_ = row.exchange;
        if (!self->ours(row) || self->runs_here(row)) continue;
        ++self->progress_.found;
        self->waiting_.push_back(std::move(row));
      }
      self->pump();
    }
  };
  auto reading = std::make_unique<Reading>();
  reading->self = this;
  reading->lane = &lane_;
  reading->query = store::ListOpen{last_, {}, options_.batch};
  reading->run = [](Job* job) noexcept {
    std::unique_ptr<Reading> owned(static_cast<Reading*>(static_cast<store::PendingQuery*>(job)));
    owned->finish();
  };
  if (store_.ask(*reading))
    reading->finish();
  else
    (void)reading.release();
}

void Recovery::pump() {
  if (pumping_) return;
  pumping_ = true;
  while (running_ < options_.parallel && !waiting_.empty()) {
    store::OpenRow row = std::move(waiting_.back());
    waiting_.pop_back();
    begin_one(std::move(row));
  }
  pumping_ = false;
  finish_if_idle();
}

void Recovery::finish_if_idle() {
  if (running_ != 0 || !waiting_.empty()) return;
  if (!all_read_) return read_batch();
  auto done = std::move(done_);
  done_ = nullptr;
  if (done) done(progress_);
}

struct Recovery::One : store::PendingQuery {
  Recovery* self = nullptr;
  store::OpenRow row;
  void finish() {
    if (!answer) {  // not readable now: the next sweep looks again
      SLUICE_PROBE("recovery.journal_not_readable");
      return self->skip();
    }
    auto history = fold(std::get<store::ReadJournal::Answer>(*answer));
    if (!history) return self->unknown_version(row, history.error().to_string());
    if (history->ended) {  // its end became durable since it was listed
      SLUICE_PROBE("recovery.ended_meanwhile");
      return self->skip();
    }
    const Begun& begun = history->begun;
    Flow* flow = self->flows_.find(begun.flow, begun.version);
    if (flow == nullptr || flow->graph_hash() != begun.graph)
      return self->unknown_version(
          row, "unknown_version: flow '" + begun.flow + "' version " + std::to_string(begun.version) +
                   (flow == nullptr ? " is not registered here" : " has another graph here"));
    auto ns = Namespace::parse(begun.ns);
    auto exchange = std::make_shared<Exchange>(row.exchange, ns ? *ns : Namespace(), begun.request);
    exchange->reference = begun.reference;
    exchange->principal = begun.principal;
    exchange->command = begun.command;
    exchange->correlation = begun.correlation;
    exchange->trace = begun.trace;
    exchange->audited = begun.audited;
    for (auto& [name, stored] : history->bag) exchange->restore_entry(name, stored);
    flow->seal();
    if (history->paused && !history->decided) return sleep_on(*flow, *std::move(history), std::move(exchange));
    Machine machine(flow->graph(), flow->options().max_stages);
    for (const auto& intent : history->intents) machine.restore_intent(intent.step, intent.stage);
    Bytes reply;
    if (history->decided) {
      reply = history->decided->reply;
      machine.restore_decision(history->decided->decision, history->decided->cause,
                               history->decided->steps);
    }
    for (const auto step : history->finished) machine.restore_finished(step);
    RunOptions options;
    options.lane = &self->lane_;
    auto* runner = new Runner(*flow, std::move(exchange), std::move(options),
                              [](void* owner, Outcome outcome) noexcept {
                                static_cast<Recovery*>(owner)->one_done(outcome);
                              },
                              self);
    runner->resume(std::move(machine), begun, history->next_record, std::move(reply),
                   row.state == store::OpenState::in_doubt);
  }
  // Its pause is armed again, or it goes on from its wake-up; nobody waits for its end here.
  void sleep_on(Flow& flow, History history, ExchangePtr exchange) {
    RunOptions options;
    options.lane = &self->lane_;
    Machine machine(flow.graph(), flow.options().max_stages);
    machine.restore_position(history.paused->at);
    auto* runner = new Runner(flow, std::move(exchange), std::move(options), nullptr, nullptr);
    runner->resume_paused(std::move(machine), std::move(history.begun), history.next_record,
                          *std::move(history.paused), std::move(history.woken));
    ++self->progress_.paused;
    self->skip();
  }
};

// Another node's, while that one lives, is not looked at.
bool Recovery::ours(const store::OpenRow& row) const { return nodes_ == nullptr || nodes_->ours(row.exchange); }

// One that began here and is over without an end (the store was full, its partner was gone) is
// swept like any other.
bool Recovery::runs_here(const store::OpenRow& row) const {
  for (const Flow* flow : flows_.all())
    if (flow->running(row.exchange)) return true;
  return false;
}

void Recovery::skip() {
  --running_;
  pump();
}

void Recovery::begin_one(store::OpenRow row) {
  ++running_;
  auto one = std::make_unique<One>();
  one->self = this;
  one->row = std::move(row);
  one->lane = &lane_;
  one->query = store::ReadJournal{one->row.exchange};
  one->run = [](Job* job) noexcept {
    std::unique_ptr<One> owned(static_cast<One*>(static_cast<store::PendingQuery*>(job)));
    owned->finish();
  };
  if (store_.ask(*one))
    one->finish();
  else
    (void)one.release();
}

void Recovery::one_done(const Outcome& outcome) {
  --running_;
  if (outcome.kind == OutcomeKind::committed) ++progress_.committed;
  else if (outcome.kind == OutcomeKind::aborted) ++progress_.aborted;
  else ++progress_.in_doubt;
  pump();
}

// Another living node may have the flow: it adopts the dead one, whose exchanges one node alone works on.
void Recovery::pass_on_unknown() {
  const Instant now = lane_.clock().now();
  for (const std::uint16_t node : unknown_) {
    const auto before = passed_on_.find(node);
    if (before != passed_on_.end() && now - before->second < kPassedOnAgain) continue;
    passed_on_[node] = now;
    // While one of it is worked on here, or sleeps, it stays; what is unknown is listed meanwhile.
    if (std::ranges::none_of(flows_.all(), [node](const Flow* flow) { return flow->running_of(node); })) nodes_->pass_on(node);
  }
}

// Listed, never guessed, once every living node has been asked. Once: each sweep meets it again, and an operator, who settles only what is
// listed, may have done so since it was read.
void Recovery::unknown_version(const store::OpenRow& row, std::string why) {
  const std::uint16_t began_by = IdSource::node_of(row.exchange.value);
  if (nodes_ != nullptr && began_by != nodes_->node() && nodes_->living() > 1) {
    unknown_.insert(began_by);
    if (!passed_on_.contains(began_by)) return skip();
  }
  if (row.state == store::OpenState::in_doubt) {
    Outcome known;
    known.kind = OutcomeKind::in_doubt;
    return one_done(known);
  }
  struct Listing : store::PendingCommit {
    Recovery* self = nullptr;
  };
  auto* listing = new Listing;
  listing->self = this;
  listing->lane = &lane_;
  listing->commit.lazy = true;
  store::OpenPut put;
  put.row = row;
  put.row.state = store::OpenState::in_doubt;
  listing->commit.then.push_back(std::move(put));
  listing->commit.then.push_back(
      store::AuditAppend{{.ns = row.ns, .principal = "recovery", .command = row.flow,
                          .outcome = store::AuditOutcome::error, .exchange = row.exchange,
                          .detail = std::move(why)}});
  listing->run = [](Job* job) noexcept {
    std::unique_ptr<Listing> owned(static_cast<Listing*>(static_cast<store::PendingCommit*>(job)));
    Outcome outcome;
    outcome.kind = OutcomeKind::in_doubt;
    owned->self->one_done(outcome);
  };
  store_.submit(*listing);
}

}  // namespace sluice::flow
