#include "sluice/rpc/flow_handler.hpp"

namespace sluice::rpc {

Answer to_answer(flow::Outcome outcome) {
  switch (outcome.kind) {
    case flow::OutcomeKind::pending:
      return Answer::pending(outcome.exchange);
    case flow::OutcomeKind::in_doubt:
      return Answer::in_doubt(outcome.exchange);
    case flow::OutcomeKind::unknown: {
      // Its caller can look it up, as one that is pending.
      Answer answer = Answer::of(std::move(*outcome.cause).with("transaction", to_string(outcome.exchange)));
      answer.exchange = outcome.exchange;
      return answer;
    }
    case flow::OutcomeKind::committed:
    case flow::OutcomeKind::aborted:
      break;
  }
  Answer answer;
  if (!outcome.reply_bytes.empty()) {
    answer = Answer::of(std::move(outcome.reply_bytes), outcome.exchange);
  } else if (outcome.reply) {
    answer = Answer::of(*outcome.reply, outcome.exchange);
  } else if (outcome.kind == flow::OutcomeKind::committed) {
    answer = Answer::of(Reply::ok({}), outcome.exchange);
  } else {
    return Answer::of(outcome.cause ? std::move(*outcome.cause)
                                    : Failure(FailureKind::rejected, "aborted", "aborted"));
  }
  answer.replayed = outcome.replayed;
  return answer;
}

CallContext outbound_context(const flow::Exchange& exchange, std::string_view what) {
  CallContext context;
  context.ns = exchange.ns();
  context.trace = exchange.trace;
  context.correlation = exchange.correlation;
  context.idempotency_key = exchange.token();
  if (!what.empty()) context.idempotency_key.append(".").append(what);
  return context;
}

Handler flow_handler(flow::Flow& flow,
                     std::function<void(const Command&, flow::Exchange&)> prepare) {
  return [&flow, prepare = std::move(prepare)](Invocation& invocation) {
    const Command& command = invocation.command;
    auto exchange =
        std::make_shared<flow::Exchange>(invocation.exchange(), command.ns, command.payload);
    if (command.principal) exchange->principal = command.principal->id;
    exchange->correlation = command.correlation;
    exchange->trace = command.trace;
    exchange->command = command.name;
    // In memory there is no Commit that could carry the row: the registry writes it then.
    if (flow.options().store != nullptr) {
      exchange->audited = true;
      invocation.audited();
    }
    if (prepare) prepare(command, *exchange);
    // The caller's leaving stops the exchange, unless it is decided: the runner sees to that.
    invocation.pass_cancel_to(std::shared_ptr<CancelScope>(exchange, &exchange->scope()));
    flow::RunOptions options;
    options.lane = invocation.lane;
    options.deadline = command.deadline;
    options.claim = std::move(invocation.claim());
    options.on_pause = [](void* owner) noexcept { static_cast<Invocation*>(owner)->pause(); };
    flow.run(
        std::move(exchange), std::move(options),
        [](void* owner, flow::Outcome outcome) noexcept {
          static_cast<Invocation*>(owner)->finish(to_answer(std::move(outcome)));
        },
        &invocation);
  };
}

}  // namespace sluice::rpc
