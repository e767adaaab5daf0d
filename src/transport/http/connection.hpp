// One connection: reads a request, runs it, writes its answer, again. Requests of one connection
// run one after the other; pipelined ones wait in the buffer. Lives on its loop; counted by the
// operations that still refer to it.
#pragma once
#include "transport/http/loop.hpp"
#include "transport/http/request.hpp"
#include "transport/http/response.hpp"
#include "transport/http/routes.hpp"

namespace sluice::transport {

class Connection {
 public:
  Connection(Loop& loop, Tcp::socket socket, Refusal refusal, ClientCounts::Key client);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  void begin();
  /// Closes it if it waits for a request, else after the answer that is on its way.
  void drain();
  /// Cancels what it runs.
  void cancel();
  void close() noexcept;

 private:
  friend class Loop;
  enum class State : std::uint8_t { reading, running, writing, lingering, closed };
  class Ref;
  ~Connection();
  void ref() noexcept { ++refs_; }
  void unref() noexcept;

  void read();
  void on_read(std::size_t n);
  void on_read_failed(bool end);
  void process();
  void dispatch();
  void run_command(std::string_view name);
  void run_query(const Route& route);
  void answer(const rpc::Answer& answer);
  void respond_problem(const Failure& failure);
  void respond(int status, std::string_view type, std::string_view body,
               std::string_view headers = {});
  void respond_json(Result<std::string> json);
  bool may_read(std::string_view path, std::string_view permission = {});
  void refuse_request(std::string_view what, Failure failure);
  void refuse_unnamed(const Failure& failure);
  void refuse_broken(const Failure& failure);
  void write();
  void on_written();
  void linger();
  void arm(Duration after, Instant now);
  void settle_correlation();
  void on_timer();
  ResponseContext context();
  bool refused() const noexcept { return refusal_ != Refusal::none; }
  bool draining() const noexcept { return shared_.draining.load(std::memory_order_relaxed); }

  Loop& loop_;
  DoorShared& shared_;
  Tcp::socket socket_;
  std::string client_;
  const ClientCounts::Key client_key_;
  const Refusal refusal_;
  Connection* next_ = nullptr;
  Connection** link_ = nullptr;
  std::uint32_t refs_ = 0;
  State state_ = State::reading;
  bool head_ = false;
  bool read_pending_ = false;
  bool close_after_ = false;  // the answer on its way is the last
  bool half_read_ = false;    // the rest of a request may still arrive: linger before closing
  enum class Phase : std::uint8_t { idle, header, body } phase_ = Phase::idle;
  Timer timer_;
  std::string in_;  // received, not consumed: [in_begin_, in_end_)
  std::size_t in_begin_ = 0, in_end_ = 0;
  std::size_t lingered_ = 0;
  std::string out_;
  HttpRequest request_;
  RequestParser parser_;
  std::string correlation_;
  Instant began_{}, answered_{};
  struct DispatchJob : Job {
    Connection* self = nullptr;
  } job_;
  rpc::Invocation invocation_;
};

}  // namespace sluice::transport
