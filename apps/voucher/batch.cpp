#include "apps/voucher/batch.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "sluice/admission/gate.hpp"
#include "sluice/base/text.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;

std::unexpected<Failure> bad(std::string code, std::string detail) {
  return fail(FailureKind::invalid_argument, code, std::move(detail));
}

// What stands there, short: a message must not repeat a whole request.
std::string got(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 80 ? text : std::string(beginning_of(text, 80)) + "...";
}

// A misspelt member would be taken for one that is left out.
Status known_members(const Json& object, std::initializer_list<std::string_view> known, const std::string& where) {
  for (const auto& [name, value] : object.items())
    if (std::ranges::find(known, name) == known.end())
      return bad("bad_batch", fmt::format("{}: expected members {}, got {}", where, fmt::join(known, ", "), got(name)));
  return {};
}

Result<std::string> text_field(const Json& object, const char* name, const std::string& where, bool (*valid)(std::string_view),
                               const char* expected) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string() || !valid(found->get_ref<const std::string&>()))
    return bad("bad_batch", fmt::format("{}.{}: expected {}, got {}", where, name, expected,
                                        found == object.end() ? "nothing" : got(*found)));
  return found->get<std::string>();
}

bool is_id(std::string_view text) { return valid_id(text); }
bool is_region(std::string_view text) { return valid_region(text); }
constexpr const char* kAnId = "1 to 64 of A-Z a-z 0-9 - _ .";
constexpr const char* kARegion = "two capital letters, or ALL";

struct Parsed {
  std::string request_id;
  std::vector<Item> items;
};

Result<Parsed> parse(const Bytes& payload) {
  const Json json = Json::parse(payload, nullptr, false);
  if (!json.is_object()) return bad("bad_batch", "expected an object with request_id, region and items, got " +
                                                     (json.is_discarded() ? "what is no JSON" : got(json)));
  SLUICE_TRY(known_members(json, {"request_id", "region", "items"}, "request"));
  Parsed parsed;
  SLUICE_ASSIGN(parsed.request_id, text_field(json, "request_id", "request", is_id, kAnId));
  SLUICE_ASSIGN(const std::string region, text_field(json, "region", "request", is_region, kARegion));
  const auto items = json.find("items");
  if (items != json.end() && !items->is_array()) return bad("bad_batch", "request.items: expected a list, got " + got(*items));
  // A protobuf message cannot tell an empty list from none.
  if (items == json.end() || items->empty()) return bad("empty_batch", "request.items: expected 1 to 500 items, got none");
  if (items->size() > kMaxItems)
    return bad("batch_too_large", fmt::format("request.items: expected at most {} items, got {}", kMaxItems, items->size()));
  for (std::size_t i = 0; i < items->size(); ++i) {
    const std::string where = fmt::format("request.items[{}]", i);
    const Json& one = (*items)[i];
    if (!one.is_object()) return bad("bad_batch", where + ": expected an object with user and voucher, got " + got(one));
    SLUICE_TRY(known_members(one, {"user", "voucher"}, where));
    Item item;
    item.region = region;
    SLUICE_ASSIGN(item.user, text_field(one, "user", where, is_id, kAnId));
    SLUICE_ASSIGN(item.voucher, text_field(one, "voucher", where, is_id, kAnId));
    parsed.items.push_back(std::move(item));
  }
  return parsed;
}

// Longer than a batch takes: none of its items may run again while the request id is remembered.
constexpr milliseconds kItemsOutlive = std::chrono::hours(1);

// One batch on its way; owns itself until its last item has answered.
class Batch {
 public:
  Batch(rpc::Invocation& invocation, Distribution& distribution, Parsed parsed)
      : invocation_(invocation), distribution_(distribution), parsed_(std::move(parsed)), children_(parsed_.items.size()) {}

  void run() {
    Bytes whole;
    std::set<std::pair<std::string, std::string>> seen;
    for (std::size_t i = 0; i < children_.size(); ++i) {
      Child& child = children_[i];
      child.batch = this;
      child.ordinal = i;
      const Item& item = parsed_.items[i];
      ByteWriter(whole).bytes(item.encode());
      if (seen.emplace(item.user, item.voucher).second) continue;
      child.duplicate = true;
      child.result = R"("status":"refused","reason":"duplicate_item","retryable":false)";
    }
    fingerprint_ = sha256(whole);
    wait_for_room();
  }

 private:
  struct Waiting : admission::PendingAdmission {
    Batch* batch = nullptr;
  };

  // Before anything is claimed: who waits holds nothing, and nothing has run when its deadline passes.
  void wait_for_room() {
    const rpc::Command& command = invocation_.command;
    waiting_.batch = this;
    waiting_.permits = children_.size();
    waiting_.bytes = command.payload.size();
    waiting_.scope = &invocation_.scope;
    waiting_.deadline = command.deadline;
    waiting_.lane = invocation_.lane;
    waiting_.run = [](Job* job) noexcept { static_cast<Waiting*>(job)->batch->has_room(); };
    gate_ = &distribution_.items(command.ns.shadow());
    if (gate_->admit(waiting_)) return has_room();
    gone_.link(invocation_.scope, [](void* self) noexcept { static_cast<Batch*>(self)->left(); }, this);
  }

  void has_room() {
    gone_.unlink();
    auto room = waiting_.take();
    if (!room) return give_up(std::move(room).error());
    room_ = *std::move(room);
    claim_whole();
  }

  // The caller, or the server stops.
  void left() {
    if (gate_->forget(waiting_)) give_up(Failure(invocation_.scope.reason(), "cancelled", "the request was given up while it waited"));
  }

  void give_up(Failure why) {
    const std::unique_ptr<Batch> self(this);
    invocation_.finish(rpc::Answer::of(std::move(why)));
  }

  // One call for the users of all items that run, begun before the first of them asks. They wait for it, or are
  // told how it failed. Codes are asked for when an item has passed what comes before.
  void prefetch_users() {
    Downstream* const downstream = distribution_.downstream();
    if (downstream == nullptr || !downstream->has_users()) return;
    std::set<std::string> users;
    for (const Child& child : children_)
      if (child.answer && std::holds_alternative<idempotency::Run>(*child.answer)) users.insert(parsed_.items[child.ordinal].user);
    const rpc::Command& command = invocation_.command;
    fetching_ = {invocation_.lane, &fetching_scope_, command.deadline};
    users_ = downstream->prefetch_users(command.ns, parsed_.items.front().region, {users.begin(), users.end()}, told_);
    (void)users_.start(fetching_, [](void*) noexcept {}, nullptr);
  }

  struct Child : idempotency::PendingClaim {
    Batch* batch = nullptr;
    std::size_t ordinal = 0;
    bool duplicate = false;  // of an earlier item: it has no key of its own
    bool answered = false;   // its claim
    std::uint64_t restocks_seen = 0;
    std::shared_ptr<HeldCode> code;
    std::string result;      // members of its JSON object
    bool final = true;   // a repeated request gets the same
  };
  struct Whole : idempotency::PendingClaim {
    Batch* batch = nullptr;
  };

  Bytes scope_of(std::string_view command, std::string_view key) const {
    const rpc::Command& asked = invocation_.command;
    return idempotency::make_scope(asked.ns, asked.principal ? asked.principal->id : "", command, 1, key);
  }

  // The request id's own key: completed by the Commit of each item that ends, so that from the first on the id
  // is this batch's, whichever of its items have still to be run. Held here while they run, and let go of after it:
  // whether one of them has ended, the store knows.
  void claim_whole() {
    whole_.batch = this;
    whole_.scope = scope_of("voucher.batch", parsed_.request_id);
    whole_.fingerprint = fingerprint_;
    whole_.policy.ttl = distribution_.kept();
    whole_.exchange = invocation_.registry().ids().exchange();
    whole_.deadline = invocation_.command.deadline;
    whole_.lane = invocation_.lane;
    whole_.Job::run = [](Job* job) noexcept {
      static_cast<Whole*>(static_cast<idempotency::PendingClaim*>(job))->batch->whole_claimed();
    };
    if (invocation_.registry().keys().claim(whole_)) whole_claimed();
  }

  void whole_claimed() {
    const auto& answer = whole_.answer;
    if (answer && std::holds_alternative<idempotency::Mismatch>(*answer)) return refuse();
    if (answer && std::holds_alternative<idempotency::Replay>(*answer)) return claim(children_.front());
    if (answer && std::holds_alternative<idempotency::Run>(*answer)) {
      held_ = std::move(std::get<idempotency::Run>(*whole_.answer).claim);
      return claim(children_.front());
    }
    for (Child& child : children_) {
      if (answer)
        child.answer = idempotency::Claimed(std::get<idempotency::InProgress>(*answer));
      else
        child.answer = fail(answer.error());
    }
    run_all();
  }

  // The item's own key: request id and ordinal, so that a batch that was cut off goes on where it was.
  // Its fingerprint is that of the whole batch: another batch under this request id meets a key it does
  // not fit, whichever of its items differ.
  void claim(Child& child) {
    const rpc::Command& command = invocation_.command;
    child.scope = scope_of("voucher.item", fmt::format("{}/{}", parsed_.request_id, child.ordinal));
    child.whole = whole_.scope;
    child.whole_ttl = held_ ? distribution_.kept() : milliseconds(0);
    child.fingerprint = fingerprint_;
    child.policy.ttl = distribution_.kept() + kItemsOutlive;
    child.exchange = invocation_.registry().ids().exchange();
    child.deadline = command.deadline;
    child.lane = invocation_.lane;
    child.Job::run = [](Job* job) noexcept {
      auto* self = static_cast<Child*>(static_cast<idempotency::PendingClaim*>(job));
      self->batch->claimed(*self);
    };
    if (invocation_.registry().keys().claim(child)) claimed(child);
  }

  static bool mismatched(const Child& child) {
    return child.answered && child.answer && std::holds_alternative<idempotency::Mismatch>(*child.answer);
  }

  // All keys are held before the first item runs, so that a batch that is refused has run nothing. One after the
  // other up to the first that has not ended: of two equal batches one waits there, holding nothing the other waits for.
  void claimed(Child& child) {
    child.answered = true;
    if (side_by_side_) return all_claimed_but_one();
    const auto next = std::find_if(children_.begin() + static_cast<std::ptrdiff_t>(child.ordinal) + 1, children_.end(),
                                   [](const Child& one) { return !one.duplicate; });
    if (next != children_.end() && child.answer && std::holds_alternative<idempotency::Replay>(*child.answer)) return claim(*next);
    side_by_side_ = true;
    unclaimed_ = 1;
    if (!mismatched(child))
      for (auto one = next; one != children_.end(); ++one) {
        if (one->duplicate) continue;
        ++unclaimed_;
        claim(*one);
      }
    all_claimed_but_one();
  }

  void all_claimed_but_one() {
    if (--unclaimed_ != 0) return;
    if (std::ranges::any_of(children_, mismatched)) return refuse();
    run_all();
  }

  void refuse() {
    const std::unique_ptr<Batch> self(this);
    for (Child& child : children_) child.answer = idempotency::Claimed();  // what was claimed is free again
    invocation_.finish(rpc::Answer::of(Failure(FailureKind::fingerprint_mismatch,
                                               "request id '" + parsed_.request_id + "' was used with other items; use a new one")));
  }

  void run_all() {
    prefetch_users();
    left_ = children_.size() + 1;
    for (Child& child : children_) child.duplicate ? void(--left_) : settle(child);
    one_done();
  }

  void settle(Child& child) {
    if (!child.answer) return failed(child, child.answer.error());
    auto& answer = *child.answer;
    if (auto* replay = std::get_if<idempotency::Replay>(&answer)) {
      auto reply = Reply::decode(replay->cached->reply);
      if (!reply) return failed(child, reply.error());
      told(child, *reply);
      return one_done();
    }
    auto* run = std::get_if<idempotency::Run>(&answer);
    if (run == nullptr) return failed(child, Failure(FailureKind::in_progress, "the first request with this id is still running"));
    const rpc::Command& command = invocation_.command;
    auto exchange = std::make_shared<flow::Exchange>(child.exchange, command.ns, parsed_.items[child.ordinal].encode());
    exchange->reference = parsed_.request_id;
    exchange->principal = command.principal ? command.principal->id : "";
    exchange->command = command.name;
    exchange->correlation = command.correlation;
    exchange->trace = command.trace;
    exchange->audited = true;
    child.code = Distribution::know(*exchange, told_);
    child.restocks_seen = distribution_.restocks_seen();
    flow::RunOptions options;
    options.lane = invocation_.lane;
    options.deadline = command.deadline;
    options.claim = std::move(run->claim);
    distribution_.flow().run(std::move(exchange), std::move(options),
                             [](void* owner, flow::Outcome outcome) noexcept {
                               auto* self = static_cast<Child*>(owner);
                               self->batch->ended(*self, outcome);
                             },
                             &child);
  }

  void ended(Child& child, const flow::Outcome& outcome) {
    distribution_.ended(invocation_.command.ns.text(), parsed_.items[child.ordinal], *child.code, outcome, child.restocks_seen);
    if (outcome.kind != flow::OutcomeKind::committed && outcome.kind != flow::OutcomeKind::aborted)
      return failed(child, Failure(FailureKind::pending, "not settled yet; repeat the request"));
    if (outcome.cause && outcome.cause->kind() == FailureKind::fingerprint_mismatch) others_ = true;
    if (!outcome.reply) return failed(child, outcome.cause.value_or(Failure(FailureKind::internal)));
    told(child, *outcome.reply);
    one_done();
  }

  void told(Child& child, const Reply& reply) {
    if (reply.kind == FailureKind::none)
      child.result = R"("status":"issued","retryable":false,)" + reply.body.substr(1, reply.body.size() - 2);
    else
      child.result = fmt::format(R"("status":"refused","reason":"{}","retryable":false)", reply.code);
  }

  void failed(Child& child, const Failure& why) {
    child.final = false;
    child.result = fmt::format(R"("status":"failed","reason":"{}","retryable":{})", why.code(), why.retryable() || why.kind() == FailureKind::pending);
    if (const auto after = why.retry_after()) child.result += fmt::format(R"(,"retry_after_ms":{})", after->count());
    one_done();
  }

  void one_done() {
    if (--left_ != 0) return;
    if (others_) return refuse();  // another node's batch was faster
    const std::unique_ptr<Batch> self(this);
    bool final = true;
    std::string body = fmt::format(R"({{"request_id":"{}","results":[)", parsed_.request_id);
    for (std::size_t i = 0; i < children_.size(); ++i) {
      final = final && children_[i].final;
      body += fmt::format(R"({}{{"item":{},{}}})", i == 0 ? "" : ",", i, children_[i].result);
    }
    body += "]}";
    // Not remembered while an item may still change: a repeated request then goes on with the rest.
    if (!final) invocation_.claim().release();
    // A message of a stream is done or it is not: one of which an item may still change is sent again.
    if (!final && invocation_.keep_key_for != milliseconds(0)) return invocation_.finish(rpc::Answer::of(not_done()));
    invocation_.finish(rpc::Answer::of(Reply::ok(std::move(body)), invocation_.exchange()));
  }

  Failure not_done() const {
    const auto open = std::ranges::count_if(children_, [](const Child& child) { return !child.final; });
    const auto first = std::ranges::find_if(children_, [](const Child& child) { return !child.final; });
    return Failure(FailureKind::unavailable, "items_not_done",
                   fmt::format("{} of {} items may succeed later, the first of them item {}: {{{}}}; what was issued stays issued, come again "
                               "with the same request_id",
                               open, children_.size(), first - children_.begin(), first->result));
  }

  rpc::Invocation& invocation_;
  Distribution& distribution_;
  Parsed parsed_;
  std::vector<Child> children_;
  Waiting waiting_;
  admission::Gate* gate_ = nullptr;
  CancelListener gone_;
  admission::Admission room_;
  Whole whole_;
  idempotency::Claim held_;  // of the request id; empty: one of its items ended before
  bool side_by_side_ = false;  // the keys that are left are claimed at once
  bool others_ = false;      // an item has found that the request id is another batch's
  Digest fingerprint_{};
  std::size_t unclaimed_ = 0, left_ = 0;
  const std::shared_ptr<BatchCalls> told_ = std::make_shared<BatchCalls>();
  CancelScope fetching_scope_;
  TaskContext fetching_;
  Task<void> users_;
};

}  // namespace

void distribute_batch(rpc::Invocation& invocation, Distribution& distribution) {
  auto parsed = parse(invocation.command.payload);
  if (!parsed) return invocation.finish(rpc::Answer::of(parsed.error()));
  if (auto served = distribution.check_region(parsed->items.front().region); !served)
    return invocation.finish(rpc::Answer::of(std::move(served).error()));
  const auto& caller = invocation.command.principal;
  if (auto within = distribution.check_rate_limit_availability(invocation.command.ns.text(), caller ? caller->id : "",
                                                               parsed->items.front().region, parsed->items.size());
      !within)
    return invocation.finish(rpc::Answer::of(std::move(within).error()));
  (new Batch(invocation, distribution, *std::move(parsed)))->run();
}

}  // namespace sluice::voucher
