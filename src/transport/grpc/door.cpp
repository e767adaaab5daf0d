#include <grpc/support/time.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <map>
#include <set>

#include "transport/grpc/call.hpp"
#include "transport/grpc/command_stream.hpp"
#include "transport/grpc/metadata.hpp"
#include "transport/grpc/whole_process.hpp"
#include "transport/grpc/service.hpp"
#include "transport/grpc/stream_reply.hpp"
#include "transport/grpc/tls.hpp"

namespace sluice::transport {

namespace {
// What is not ours (health watches, reflection), and a client's answer to gRPC's goodbye, have what is left
// of the grace at the stop; at most and at least so long. A client that is dead never answers.
constexpr Duration kLongestGoodbye = milliseconds(500);
constexpr Duration kShortestGoodbye = milliseconds(50);

// For shadow streams: of messages that run and of those that wait.
stream::Options shadow_share(stream::Options options) {
  const auto part = [](std::size_t& whole) { whole = std::max<std::size_t>(1, whole / kShadowShare); };
  options.name += "_shadow";
  part(options.ordering.capacity);
  part(options.backpressure.capacity);
  part(options.backpressure.queue_messages);
  part(options.backpressure.queue_bytes);
  part(options.backpressure.ceiling);
  return options;
}
}  // namespace

struct GrpcDoor::Impl {
  Impl(rpc::Registry& registry, Clock& clock, std::vector<Lane*> lanes, GrpcOptions options,
       GrpcHooks hooks, Logger& logger, Metrics* measured)
      : shared(new GrpcShared{registry, clock, std::move(options), std::move(hooks), logger, {}}),
        metrics(measured) {
    SLUICE_ASSERT(!lanes.empty(), "the gRPC door needs a lane");
    for (Lane* lane : lanes) shared->lanes.push_back({lane, nullptr});
    stream::Options with = shared->options.stream;
    with.max_failures_told = kFailuresOfCall;
    auto unspread = std::make_unique<Unspread>();
    Random* random = shared->hooks.random;
    if (random == nullptr) {
      with.retry.backoff.jitter = resilience::Jitter::none;
      random = unspread.get();
    }
    auto shadow = std::make_unique<stream::Pipeline>(shadow_share(with), clock, *random, metrics);
    auto pipeline = std::make_unique<stream::Pipeline>(std::move(with), clock, *random, metrics);
    streams.reset(new StreamShared{shared, std::move(unspread), std::move(pipeline), std::move(shadow), shared->hooks.marks});
  }

  /// `method` is "package.Service/Method".
  Status serve(const std::string& method, std::unique_ptr<Codec> codec) {
    auto& service = services[method.substr(0, method.find('/'))];
    if (service == nullptr) service = std::make_unique<RawService>();
    if (!methods.insert(method).second)
      return fail(FailureKind::invalid_argument, "method_bound_twice",
                  "gRPC method " + method + " is bound to a command already");
    codecs.push_back(std::move(codec));
    service->add("/" + method,
                 [this, &with = *codecs.back()](auto* context, auto* request, auto* response) {
                   return Call::begin(shared, with, *context, *request, *response);
                 });
    return {};
  }
  void serve_stream() {
    auto& service = services["sluice.v1.Commands"];
    if (service == nullptr) service = std::make_unique<RawService>();
    methods.insert("sluice.v1.Commands/ExecuteStream");
    service->add_client_stream("/sluice.v1.Commands/ExecuteStream", [this](auto* context, auto* response) {
      return CommandStream::begin(streams, *context, *response);
    });
  }
  Status listen();
  void name_services();
  bool ready() const { return !shared->hooks.ready || shared->hooks.ready().has_value(); }
  // Both are asked: each cancels what its grace is over for.
  bool drained_streams() noexcept {
    const bool live = streams->pipeline->drained(), shadow = streams->shadow->drained();
    return live && shadow;
  }
  /// Runs `work` for each call that is not answered, on its lane. Thread-safe.
  void each(void (*work)(Call&)) {
    for (auto& lane : shared->lanes)
      lane.lane->post([&lane, work, keep = shared] {
        // Ending one may end others: they are all held while it is done.
        std::vector<Call*> calls;
        for (Call* at = lane.head; at != nullptr; at = at->next()) calls.push_back(at);
        for (Call* call : calls) call->ref();
        for (Call* call : calls) work(*call);
        for (Call* call : calls) call->unref();
      });
  }

  /// For backoff without jitter, which asks for no randomness.
  struct Unspread final : Random {
    std::uint64_t next() noexcept override { return 0; }
    void secret(std::byte* out, std::size_t size) noexcept override { std::fill_n(out, size, std::byte{0}); }
  };

  const std::shared_ptr<GrpcShared> shared;
  Metrics* const metrics;
  std::shared_ptr<StreamShared> streams;
  std::vector<std::unique_ptr<Codec>> codecs;
  std::map<std::string, std::unique_ptr<RawService>> services;  // by name
  std::set<std::string> methods;
  std::shared_ptr<grpc::ServerCredentials> credentials;  // asked at each handshake: goes after the server
  std::unique_ptr<grpc::Server> server;
  std::uint16_t port = 0;
  bool serving = true;  // as health was told
  Instant graceful_until = kNever;  // set when it begins to drain
  std::shared_ptr<TlsFiles> certificates;  // null without TLS
  std::unique_ptr<Metrics::Hook> certificate;
};

namespace {
TlsPaths paths_of(const GrpcOptions& options) {
  TlsPaths paths;
  paths.cert = options.tls_cert;
  paths.key = options.tls_key;
  paths.ca = options.tls_client_ca;
  paths.prefix = "grpc.";
  paths.ca_key = "tls_client_ca";
  paths.needs_pair = true;
  return paths;
}
}  // namespace

Status check_certificates(const GrpcOptions& options) {
  const TlsPaths paths = paths_of(options);
  if (!paths.any()) return {};
  SLUICE_TRY(read_tls(paths));
  return {};
}

void GrpcDoor::look_at_certificates() noexcept {
  if (impl_->certificates) (void)impl_->certificates->current(impl_->shared->clock.now());
}

Status GrpcDoor::Impl::listen() {
  prepare_grpc();
  const auto& options = shared->options;
  TlsPaths paths = paths_of(options);
  credentials = grpc::InsecureServerCredentials();
  if (paths.any()) {
    SLUICE_ASSIGN(auto files, TlsFiles::open(std::move(paths), options.tls_watch, shared->logger));
    if (metrics != nullptr)
      certificate = metrics->before_exposition([this, files] {
        const auto content = files->current(shared->clock.now());
        metrics->gauge("sluice_grpc_certificate_expires_seconds",
                       "When the certificate of the gRPC door ends, in seconds since 1970.")
            .set(std::chrono::duration_cast<seconds>(content->expires->time_since_epoch()).count());
      });
    certificates = files;
    credentials = server_credentials(std::move(files), shared->clock);
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int chosen = 0;
  builder.AddListeningPort(options.listen, credentials, &chosen);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(options.max_streams));
  // Clients that look after their connections are welcome.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  // Two servers on one port would share its calls in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  for (const auto& [name, service] : services) builder.RegisterService(service.get());
  server = builder.BuildAndStart();
  if (server == nullptr || chosen == 0) {
    server.reset();
    return fail(FailureKind::unavailable, "cannot_listen",
                "grpc.listen: cannot listen on '" + options.listen +
                    "': expected host:port of this machine with a port that is free (0: any); "
                    "stop the process that has it, or set another one");
  }
  port = static_cast<std::uint16_t>(chosen);
  name_services();
  return {};
}

// Health knows the whole server by itself; each service by its name too.
void GrpcDoor::Impl::name_services() {
  serving = ready();
  auto* health = server->GetHealthCheckService();
  for (const auto& [name, service] : services) health->SetServingStatus(name, serving);
  health->SetServingStatus(serving);
}

GrpcDoor::GrpcDoor(rpc::Registry& registry, Clock& clock, std::vector<Lane*> lanes,
                   GrpcOptions options, GrpcHooks hooks, Logger& logger, Metrics* metrics)
    : impl_(new Impl(registry, clock, std::move(lanes), std::move(options), std::move(hooks),
                     logger, metrics)) {
  impl_->serve_stream();
  (void)impl_->serve("sluice.v1.Commands/Execute", execute_codec());
  if (metrics != nullptr)
    for (const bool shadow : {false, true})
      impl_->shared->latency[shadow] =
          &metrics->histogram("sluice_grpc_request_seconds", "From the whole call to its answer, without the network",
                              {{"traffic", shadow ? "shadow" : "live"}});
}

GrpcDoor::~GrpcDoor() { stop(); }

Status GrpcDoor::bind(const GrpcMethods& methods) {
  for (const auto& [method, command, version] : methods.bindings()) {
    if (const auto spec = impl_->shared->registry.find(command, version); !spec)
      return fail(spec.error().at("gRPC method " + method));
    SLUICE_ASSIGN(auto codec, typed_codec(method, command, version));
    SLUICE_TRY(impl_->serve(method, std::move(codec)));
  }
  return {};
}

Status GrpcDoor::start() { return impl_->listen(); }

void GrpcDoor::tell_health() noexcept {
  if (impl_->server == nullptr || impl_->shared->draining) return;
  const bool ready = impl_->ready();
  if (std::exchange(impl_->serving, ready) != ready) impl_->server->GetHealthCheckService()->SetServingStatus(ready);
}

void GrpcDoor::drain() noexcept {
  if (impl_->server == nullptr || impl_->shared->draining.exchange(true)) return;
  const Duration grace = impl_->shared->options.stream.shutdown.grace;
  const Instant now = impl_->shared->clock.now();
  if (grace < kNever - now) impl_->graceful_until = now + grace;
  // Health says so to balancers first; connections are told at the stop, for gRPC's shutdown would
  // also wait for health watches, which never end.
  if (auto* health = impl_->server->GetHealthCheckService()) health->Shutdown();
  impl_->streams->pipeline->drain();
  impl_->streams->shadow->drain();
}

bool GrpcDoor::drained() noexcept { return impl_->shared->running.load() == 0 && impl_->drained_streams(); }

void GrpcDoor::cancel() noexcept {
  if (impl_->server == nullptr) return;
  drain();
  impl_->each([](Call& call) { call.cancel(FailureKind::shutting_down); });
  impl_->streams->pipeline->cancel();
  impl_->streams->shadow->cancel();
}

void GrpcDoor::stop() noexcept {
  if (impl_->server == nullptr) return;
  cancel();
  impl_->each([](Call& call) { call.abandon(); });
  impl_->streams->pipeline->abandon();
  impl_->streams->shadow->abandon();
  const Duration left = std::clamp(impl_->graceful_until - impl_->shared->clock.now(), kShortestGoodbye, kLongestGoodbye);
  impl_->server->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                       gpr_time_from_nanos(std::chrono::nanoseconds(left).count(), GPR_TIMESPAN)));
  impl_->server->Wait();
  impl_->server.reset();
}

std::uint16_t GrpcDoor::port() const noexcept { return impl_->port; }

GrpcStats GrpcDoor::stats() const noexcept {
  const auto& s = *impl_->shared;
  const auto get = [](const std::atomic<std::uint64_t>& n) {
    return n.load(std::memory_order_relaxed);
  };
  return {get(s.running), get(s.calls), get(s.refused), get(s.bad_requests), get(s.cancelled),
          impl_->streams->pipeline->stats()};
}

}  // namespace sluice::transport
