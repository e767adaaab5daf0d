// One ExecuteStream call: each message a command, dispatched like a unary one.
#pragma once
#include "sluice/stream/ledger.hpp"
#include "sluice/transport/grpc_stream.hpp"
#include "sluice/v1/commands.pb.h"
#include "transport/grpc/call.hpp"

namespace sluice::transport {

/// What the streams of one door share; lives as long as its last stream.
struct StreamShared {
  std::shared_ptr<GrpcShared> door;
  std::unique_ptr<Random> unspread;  ///< for backoff without jitter
  std::unique_ptr<stream::Pipeline> pipeline, shadow;  ///< of live and of shadow streams
  store::Store* marks = nullptr;  ///< of streams that can be resumed; null: none can
};

/// What a message becomes; kept with its memory.
class CommandStream;
struct StreamedCommand {
  v1::ExecuteStreamRequest request;
  rpc::Invocation invocation;
  CancelListener gone;
  CommandStream* stream = nullptr;
  bool stored = false;  ///< its failure is its key's answer, or can be no other: a resume is told the same
};

class CommandStream final : public GrpcStream<grpc::ByteBuffer, StreamedCommand> {
 public:
  /// Takes the stream up, or answers at once that there are too many.
  static grpc::ServerReadReactor<grpc::ByteBuffer>* begin(const std::shared_ptr<StreamShared>& shared,
                                                          grpc::CallbackServerContext& context, grpc::ByteBuffer& response);
  ~CommandStream() override { shared_->door->open_streams[shadow_].fetch_sub(1, std::memory_order_relaxed); }

 protected:
  void prepare() override;
  bool accept(Item& item) override;
  void order_by(const Item& item, std::string& out) override;
  void handle_message(Item& item) override;
  bool keep_failure(stream::Delivery& delivery, const Failure& failure) override;
  void advanced(std::uint64_t sequence, stream::FailureClass what, bool replayed) noexcept override;
  void conclude() override;

 private:
  CommandStream(std::shared_ptr<StreamShared> shared, Lane& lane, grpc::CallbackServerContext& context,
                grpc::ByteBuffer& response);
  Status read_metadata();
  Status authenticate();
  Failure told(std::string_view command, Failure failure);
  std::string space_of(std::string_view app) const;
  Task<Status> take_over();
  Status decode(Item& item);
  void answered(Item& item, const rpc::Answer& answer);
  void taken_over(Status status);
  void mark(Task<Status> task, void (CommandStream::*then)(Status));
  void save_mark();
  void saved(Status status);
  void answer_call();

  const std::shared_ptr<StreamShared> shared_;
  grpc::ByteBuffer& response_;
  std::string correlation_;
  std::string id_;  ///< of a stream that can be resumed; else empty
  std::uint64_t epoch_ = 0;
  std::string app_;          ///< as the call names it; empty: each command's own
  const bool shadow_;
  std::string order_space_;  ///< leads the row of the mark and most ordering keys: principal, app and shadow
  std::string own_order_;    ///< the key of messages that name none
  std::shared_ptr<const rpc::Principal> principal_;
  Instant authenticated_at_;
  Instant deadline_ = kNever;
  std::uint64_t duplicates_ = 0;
  std::uint64_t expected_ = 1;
  std::unique_ptr<stream::Ledger> ledger_;
  Task<Status> marking_;
  TaskContext marking_context_;
  void (CommandStream::*marked_)(Status) = nullptr;
  struct Turn : Job {
    CommandStream* self = nullptr;
  } turn_;
  bool marking_now_ = false;
  bool concluding_ = false;
  std::vector<Item*> keeping_, saving_;  ///< failed; wait for the next mark, for the one on its way
  std::optional<Failure> not_marked_;  ///< why the last mark could not be written
};

}  // namespace sluice::transport
