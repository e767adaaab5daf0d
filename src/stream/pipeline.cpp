#include "sluice/stream/pipeline.hpp"

#include <algorithm>

namespace sluice::stream {
namespace {

admission::GateOptions gate_options(const Options& options, Metrics* metrics) {
  const auto& from = options.backpressure;
  admission::GateOptions out;
  out.name = options.name;
  out.capacity = from.capacity;
  out.max_waiting = from.queue_messages;
  out.max_waiting_for_turn = options.ordering.capacity;
  out.max_waiting_bytes = from.queue_bytes;
  out.policy = from.policy;
  out.ceiling = from.ceiling;
  out.retry_after = from.retry_after;
  out.on_pressure = from.on_pressure;
  out.metrics = metrics;
  return out;
}

// As many as may wait, for they may all wait for one turn; but never fewer than may run.
std::size_t places(const Options& options) {
  return std::max(std::min(options.backpressure.queue_messages, options.ordering.capacity), options.backpressure.capacity);
}

}  // namespace

Pipeline::Pipeline(Options options, Clock& clock, Random& random, Metrics* metrics)
    : options_(std::move(options)),
      clock_(clock),
      random_(random),
      gate_(gate_options(options_, metrics)),
      // A quarter is left for what is read already when others have taken the rest.
      room_(places(options_), options_.backpressure.queue_bytes - options_.backpressure.queue_bytes / 4),
      budget_(options_.retry.budget) {
  const Status valid = check(options_);
  SLUICE_ASSERT(valid, "a pipeline was made with options that do not pass check()");
  retry_.attempts = options_.retry.attempts;
  retry_.backoff = options_.retry.backoff;
  retry_.has_key = true;
  retry_.retryable = [](const Failure& failure) { return is_retryable(failure); };
  if (metrics == nullptr) return;
  const Labels labels{{"stream", options_.name}};
  auto& open = metrics->gauge("sluice_stream_open", "Streams that are open", labels);
  auto& ran = metrics->gauge("sluice_stream_succeeded", "Messages that succeeded since the start", labels);
  auto& fell = metrics->gauge("sluice_stream_failed", "Messages that failed since the start", labels);
  auto& again = metrics->gauge("sluice_stream_retries", "Retries of messages since the start", labels);
  hook_ = metrics->before_exposition([this, &open, &ran, &fell, &again] {
    const PipelineStats now = stats();
    open.set(static_cast<std::int64_t>(now.streams));
    ran.set(static_cast<std::int64_t>(now.succeeded));
    fell.set(static_cast<std::int64_t>(now.failed));
    again.set(static_cast<std::int64_t>(now.retries));
  });
}

Pipeline::~Pipeline() {
  const std::lock_guard lock(mutex_);
  SLUICE_ASSERT(sessions_.empty(), "a pipeline was destroyed under an open stream");
}

PipelineStats Pipeline::stats() const {
  PipelineStats stats;
  stats.gate = gate_.stats();
  Tallies all;
  const std::lock_guard lock(mutex_);
  all.add(left_);
  for (const Session* session : sessions_) all.add(session->tallies_);
  stats.accepted = all.accepted.get();
  stats.succeeded = all.succeeded.get();
  stats.failed = all.failed.get();
  stats.retries = all.retries.get();
  stats.streams = sessions_.size();
  return stats;
}

Status Pipeline::enter(Session& session) {
  const std::lock_guard lock(mutex_);
  if (draining_.load())
    return fail(FailureKind::shutting_down, "stream_closed",
                options_.name + " takes no new stream because the server is stopping");
  sessions_.insert(&session);
  room_.enter();
  session.fifo_key_ = "s" + std::to_string(next_stream_++);
  return {};
}

void Pipeline::leave(Session& session) noexcept {
  const std::lock_guard lock(mutex_);
  sessions_.erase(&session);
  left_.add(session.tallies_);
  room_.leave();
}

std::optional<Duration> Pipeline::retry_delay(std::uint32_t attempt, const Failure& failure, Duration elapsed) {
  if (!budget_.on_failure() || attempt >= retry_.attempts) return std::nullopt;
  const std::lock_guard lock(mutex_);
  return retry_.next_delay(attempt, failure, random_, elapsed);
}

void Pipeline::drain() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (!draining_.load()) {
      const Duration grace = options_.shutdown.grace;
      const Instant now = clock_.now();
      graceful_until_ = grace < kNever - now ? now + grace : kNever;
    }
    draining_.store(true);
  }
  if (!options_.shutdown.drain_on_close) gate_.drain();
}

bool Pipeline::drained() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (sessions_.empty()) return true;
    if (cancelled_.load() || clock_.now() < graceful_until_) return false;
  }
  cancel();
  return false;
}

void Pipeline::cancel() noexcept {
  drain();
  cancelled_.store(true);
  tell_all([](Session& session) {
    session.cancel(
        Failure(FailureKind::shutting_down, "stream_closed", "the server is stopping: the stream was ended"));
  });
  gate_.cancel();
}

void Pipeline::abandon() noexcept {
  tell_all([](Session& session) { session.abandoned(); });
}

void Pipeline::tell_all(void (*what)(Session&)) noexcept {
  const std::lock_guard lock(mutex_);
  for (Session* session : sessions_)
    session->lane_.post([alive = session->self_, what] {
      if (*alive != nullptr) what(**alive);
    });
}

std::uint64_t Summary::failures() const noexcept {
  std::uint64_t all = 0;
  for (const auto count : failed) all += count;
  return all - unsettled();
}

std::uint64_t Summary::unsettled() const noexcept { return failed[static_cast<std::size_t>(FailureClass::unsettled)]; }

}  // namespace sluice::stream
