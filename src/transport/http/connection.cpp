#include "transport/http/connection.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

namespace sluice::transport {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {
// After a refusal the client may still be sending; closing at once would reset the connection and
// lose the answer. What is thrown away meanwhile is bounded by both.
constexpr std::size_t kLingerBytesMax = 1 << 20;
constexpr Duration kLingerTime = seconds(1);
constexpr std::size_t kReadStep = 4096;
constexpr std::size_t kReadAheadMax = 64 << 10;  // received while a request runs
}  // namespace

// Keeps the connection while an operation refers to it. Not atomic: loop-only.
class Connection::Ref {
 public:
  explicit Ref(Connection* connection) noexcept : connection_(connection) { connection_->ref(); }
  Ref(const Ref& other) noexcept : Ref(other.connection_) {}
  Ref(Ref&& other) noexcept : connection_(std::exchange(other.connection_, nullptr)) {}
  Ref& operator=(const Ref&) = delete;
  ~Ref() {
    if (connection_ != nullptr) connection_->unref();
  }
  Connection* operator->() const noexcept { return connection_; }

 private:
  Connection* connection_;
};

Connection::Connection(Loop& loop, Tcp::socket socket, Refusal refusal,
                       ClientCounts::Key client)
    : loop_(loop),
      shared_(loop.shared()),
      socket_(std::move(socket)),
      client_key_(client),
      refusal_(refusal),
      parser_({shared_.options.max_header_bytes, shared_.options.max_body_bytes}) {
  job_.self = this;
  job_.run = [](Job* job) noexcept {
    auto* self = static_cast<DispatchJob*>(job)->self;
    const Ref keep(self);
    self->unref();  // the job's own
    if (self->state_ == State::running) self->dispatch();
    // What is not answered yet runs on: reading tells when its client leaves.
    if (self->state_ == State::running) self->read();
  };
}
Connection::~Connection() = default;

void Connection::unref() noexcept {
  if (--refs_ == 0) delete this;
}

void Connection::begin() {
  error_code ignored;
  socket_.non_blocking(true, ignored);
  socket_.set_option(Tcp::no_delay(true), ignored);
  if (const auto peer = socket_.remote_endpoint(ignored); !ignored)
    client_ = peer.address().to_string();
  const Ref keep(this);
  parser_.reset(request_);
  if (!refused()) return process();
  half_read_ = true;
  respond_problem(connection_refused(refusal_, shared_.options));
}

void Connection::close() noexcept {
  if (state_ == State::closed) return;
  state_ = State::closed;
  timer_.cancel();
  error_code ignored;
  socket_.close(ignored);
  *link_ = next_;
  if (next_ != nullptr) next_->link_ = link_;
  --(refused() ? loop_.refusing_ : loop_.open_);
  if (!refused() && shared_.options.max_connections_per_client > 0)
    shared_.clients.remove(client_key_);
  if (!refused()) shared_.connections.fetch_sub(1, std::memory_order_relaxed);
  unref();  // the loop's
}

// Whose request has not come whole is told so now: it would be refused anyway, and who stopped sending would keep the
// door open until its time is up.
void Connection::drain() {
  close_after_ = true;
  if (state_ != State::reading) return;
  if (phase_ == Phase::idle) return close();
  half_read_ = true;
  refuse_unnamed(Failure(FailureKind::shutting_down, "the server is stopping").with_retry_after(seconds(1)));
}

void Connection::cancel() {
  if (state_ == State::running)
    invocation_.scope.cancel(FailureKind::shutting_down);
  else if (state_ != State::writing)
    close();
}

void Connection::arm(Duration after, Instant now) {
  timer_.arm(
      loop_.lane(), now + after,
      [](void* self) noexcept { static_cast<Connection*>(self)->on_timer(); }, this);
}

void Connection::on_timer() {
  const Ref keep(this);
  if (state_ != State::reading || phase_ == Phase::idle) return close();
  shared_.timeouts.fetch_add(1, std::memory_order_relaxed);
  half_read_ = true;
  const bool header = phase_ == Phase::header;
  refuse_unnamed(Failure(FailureKind::timeout, "request_timeout",
                         header ? "the request's header did not arrive in time"
                                : "the request's body did not arrive in time"));
}

void Connection::read() {
  if (read_pending_) return;  // begun while the last request ran
  if (in_begin_ == in_end_) in_begin_ = in_end_ = 0;
  if (in_.size() - in_end_ < kReadStep / 2) {
    if (in_begin_ > 0) {
      in_.erase(0, in_begin_);
      in_end_ -= in_begin_;
      in_begin_ = 0;
    }
    // Bounded: the parser refuses a header past its limit, and consumes bodies as they come.
    in_.resize(std::max(in_end_ + kReadStep, in_.size()));
  }
  read_pending_ = true;
  socket_.async_read_some(asio::buffer(in_.data() + in_end_, in_.size() - in_end_),
                          [self = Ref(this)](error_code error, std::size_t n) {
                            self->read_pending_ = false;
                            if (self->state_ == State::closed) return;
                            if (error) return self->on_read_failed(error == asio::error::eof);
                            self->on_read(n);
                          });
}

void Connection::on_read(std::size_t n) {
  if (state_ == State::lingering) {
    lingered_ += n;
    if (lingered_ > kLingerBytesMax) return close();
    in_begin_ = in_end_ = 0;
    return read();
  }
  in_end_ += n;
  if (state_ == State::reading) return process();
  // Pipelined requests are kept up to a bound; past it a client's leaving is seen when it is read.
  if (state_ == State::running && in_end_ - in_begin_ < kReadAheadMax) read();
}

void Connection::on_read_failed(bool end) {
  if (state_ == State::running) {
    // Nobody waits for the answer any more. One that came after all is still offered: a client may
    // have closed its sending half only.
    close_after_ = true;
    invocation_.scope.cancel(FailureKind::cancelled);
    return;
  }
  if (state_ == State::writing && end) {
    close_after_ = true;
    return;
  }
  close();
}

void Connection::process() {
  if (in_begin_ == in_end_) {
    if (phase_ == Phase::idle) {
      if (draining()) return close();
      arm(shared_.options.idle_timeout, answered_ != Instant{} ? std::exchange(answered_, {}) : shared_.clock.now());
    }
    return read();
  }
  const bool first = std::exchange(phase_, phase_ == Phase::idle ? Phase::header : phase_) == Phase::idle;
  const auto step = parser_.feed(std::string_view(in_.data() + in_begin_, in_end_ - in_begin_));
  in_begin_ += step.consumed;
  if (step.failure) {
    shared_.bad_requests.fetch_add(1, std::memory_order_relaxed);
    half_read_ = true;
    return refuse_broken(*step.failure);
  }
  if (step.done) {
    timer_.cancel();
    state_ = State::running;
    ref();  // the job's
    loop_.lane().post(job_);
    return;
  }
  // Most requests come whole, and need neither.
  if (first) arm(shared_.options.header_timeout, shared_.clock.now());
  if (phase_ == Phase::header && parser_.header_done()) {
    phase_ = Phase::body;
    arm(shared_.options.body_timeout, shared_.clock.now());
    if (request_.expects_continue) {
      constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      error_code ignored;  // a client that cannot take 25 bytes finds out by its own timeout
      socket_.write_some(asio::buffer(kContinue.data(), kContinue.size()), ignored);
    }
  }
  read();
}

void Connection::settle_correlation() {
  if (!correlation_.empty()) return;
  if (usable_correlation(request_.correlation))
    correlation_ = request_.correlation;
  else
    correlation_ = id_to_text(shared_.registry.ids().next());
}

// What is decided here is what write() does: the answer says whether the connection stays.
ResponseContext Connection::context() {
  settle_correlation();
  if (!request_.keep_alive || half_read_ || draining()) close_after_ = true;
  answered_ = shared_.clock.now();
  return {correlation_, loop_.date(answered_), !close_after_, head_};
}

void Connection::respond_problem(const Failure& failure) {
  out_.clear();
  append_problem(out_, failure, context());
  write();
}

void Connection::respond(int status, std::string_view type, std::string_view body,
                         std::string_view headers) {
  out_.clear();
  append_response(out_, status, type, headers, body, context());
  write();
}

void Connection::respond_json(Result<std::string> json) {
  if (!json) return respond_problem(json.error());
  respond(200, "application/json", *json);
}

void Connection::answer(const rpc::Answer& answer) {
  if (answer.kind == rpc::Answer::Kind::failure && answer.failure->kind() == FailureKind::internal)
    shared_.logger.error(
        "a command failed inside",
        {{"command", invocation_.command.name}, {"failure", answer.failure->to_string()}},
        correlation_);
  out_.clear();
  append_answer(out_, answer, context());
  write();
}

void Connection::write() {
  if (state_ == State::closed) return;  // the client is gone; the outcome is stored all the same
  if (shared_.measures) {
    const auto& measures = (*shared_.measures)[says_shadow(request_.shadow)];
    if (began_ != Instant{}) measures.latency->observe(answered_ - began_);
    if (out_.size() > 9) measures.by_class[static_cast<std::size_t>(out_[9] - '1') % 5]->add();
  }
  state_ = State::writing;
  error_code error;
  const std::size_t n = socket_.write_some(asio::buffer(out_), error);
  if (!error && n == out_.size()) return on_written();
  if (error && error != asio::error::would_block) return close();
  arm(shared_.options.write_timeout, answered_);
  const std::size_t sent = error ? 0 : n;
  asio::async_write(socket_, asio::buffer(out_.data() + sent, out_.size() - sent),
                    [self = Ref(this)](error_code failed, std::size_t) {
                      if (self->state_ == State::closed) return;
                      if (failed) return self->close();
                      self->answered_ = {};  // long ago
                      self->on_written();
                    });
}

void Connection::on_written() {
  timer_.cancel();
  if (close_after_) return half_read_ ? linger() : close();
  state_ = State::reading;
  phase_ = Phase::idle;
  correlation_.clear();
  began_ = {};
  parser_.reset(request_);
  process();
}

void Connection::linger() {
  state_ = State::lingering;
  error_code ignored;
  socket_.shutdown(Tcp::socket::shutdown_send, ignored);
  arm(kLingerTime, shared_.clock.now());
  in_begin_ = in_end_ = 0;
  read();
}

}  // namespace sluice::transport
