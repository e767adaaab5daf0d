#include "transport/http/loop.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

#include "transport/http/connection.hpp"

namespace sluice::transport {

namespace {
thread_local Loop* current_loop = nullptr;
// How long a loop sleeps without looking at its clock: bounds the error when a clock is stepped.
constexpr Duration kLongestSleep = seconds(1);
constexpr std::size_t kRefusingMax = 64;  // refusals on their way per loop; past it: one short write

// No more than one write that does not wait: who has not sent its request yet, or takes no answer before
// it has, sees the connection closed.
void refuse_shortly(Tcp::socket& socket, const Failure& failure) {
  std::string out;
  append_short_refusal(out, failure);
  boost::system::error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(boost::asio::buffer(out), ignored);
  socket.shutdown(Tcp::socket::shutdown_send, ignored);
}
}  // namespace

Failure connection_refused(Refusal refusal, const HttpOptions& options) {
  Failure failure =
      refusal == Refusal::full
          ? Failure(FailureKind::overloaded, "too_many_connections",
                    "this server has as many connections as it takes (" + std::to_string(options.max_connections) +
                        ", http.max_connections)")
          : Failure(FailureKind::overloaded, "too_many_connections_of_client",
                    "your address has as many connections open as one may (" +
                        std::to_string(options.max_connections_per_client) +
                        ", http.max_connections_per_client): use those again, or close some");
  return std::move(failure).with_retry_after(seconds(1));
}

Loop::Loop(DoorShared& shared, unsigned index)
    : shared_(shared), index_(index), lane_(shared.clock) {
  lane_.set_waker(this);
}
Loop::~Loop() = default;

void Loop::start() {
  thread_ = Thread("http-" + std::to_string(index_), [this] { drive(); });
}

void Loop::wake() noexcept {
  if (current_loop == this) return;  // looks at its lane before it sleeps anyway
  boost::asio::post(io_, [] {});
}

void Loop::drive() {
  current_loop = this;
  const auto work = boost::asio::make_work_guard(io_);
  for (;;) {
    lane_.run_ready();
    io_.poll();
    if (stopping_.load(std::memory_order_acquire) &&
        (connections_ == nullptr ||
         shared_.clock.now().time_since_epoch().count() >= stop_by_.load()))
      break;
    if (lane_.has_ready() || !lane_.prepare_to_sleep()) continue;
    const Instant next = lane_.next_timer();
    Duration wait = kLongestSleep;
    if (next != kNever) wait = std::min(wait, next - shared_.clock.now());
    if (wait > Duration::zero()) io_.run_one_for(wait);
  }
  if (open_ + refusing_ > 0)
    shared_.logger.error("connections were left behind at the stop",
                         {{"count", open_ + refusing_}});
  current_loop = nullptr;
}

void Loop::stop(Duration grace) noexcept {
  stop_by_.store((shared_.clock.now() + grace).time_since_epoch().count());
  stopping_.store(true, std::memory_order_release);
  boost::asio::post(io_, [] {});
  thread_.join();
}

void Loop::adopt(Tcp::socket socket, Refusal refusal, ClientCounts::Key client) {
  const bool refuse = refusal != Refusal::none;
  if (refuse && refusing_ >= kRefusingMax) return refuse_shortly(socket, connection_refused(refusal, shared_.options));
  auto* connection = new Connection(*this, std::move(socket), refusal, client);
  connection->ref();  // the loop's
  connection->next_ = connections_;
  connection->link_ = &connections_;
  if (connections_ != nullptr) connections_->link_ = &connection->next_;
  connections_ = connection;
  ++(refuse ? refusing_ : open_);
  connection->begin();
}

void Loop::each(void (*work)(Connection&)) {
  boost::asio::post(io_, [this, work] {
    for (Connection* at = connections_; at != nullptr;) {
      // `work` may close it, and only it: its successor stays in the list.
      Connection* next = at->next_;
      work(*at);
      at = next;
    }
  });
}

std::string_view Loop::date(Instant now) {
  if (date_.empty() || now >= date_until_) {
    const WallTime wall = shared_.clock.wall();
    const auto second = std::chrono::floor<seconds>(wall);
    date_until_ = now + (second + seconds(1) - wall);
    date_ = http_date(second);
  }
  return date_;
}

}  // namespace sluice::transport
