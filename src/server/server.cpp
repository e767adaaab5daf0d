#include "sluice/server/server.hpp"

#include <algorithm>

#include "server/beyond_loopback.hpp"
#include "server/commands.hpp"
#include "server/doors.hpp"
#include "server/found_database.hpp"
#include "server/gatekeeper.hpp"
#include "server/guard_rules.hpp"
#include "server/open_files.hpp"
#include "server/purger.hpp"
#include "server/store_time.hpp"
#include "server/store_watch.hpp"
#include "server/transaction_queries.hpp"

#include "sluice/base/runtime.hpp"
#include "sluice/base/text.hpp"
#include "sluice/resilience/guard_metrics.hpp"
#include "sluice/store/nodes.hpp"

namespace sluice::server {

namespace {
constexpr milliseconds kProgressEvery{200};
// Who watches health over gRPC is told within this.
constexpr milliseconds kHealthEvery{200};
// Within this a token revoked on another node is refused here.
constexpr milliseconds kTokensEvery{2'000};

std::unique_ptr<Logger> make_default_logger(const Config& config, Clock& clock) {
  LogOptions options;
  options.json = config.log_json;
  for (const auto level : {LogLevel::trace, LogLevel::debug, LogLevel::info, LogLevel::warn,
                           LogLevel::error, LogLevel::off})
    if (log_level_name(level) == config.log_level) options.level = level;
  return make_logger(clock, stderr_sink(), options);
}
}  // namespace

// Members in the order they are made. The lanes (door, background) come before what answers to
// them in the list and so go after it; stop() has ended their threads and closed the store by then.
struct Server::Impl {
  Config config;
  RealClock real_clock;
  RealRandom real_random;
  RealExecutor executor{real_clock};
  Clock& clock;
  Random& random;
  std::unique_ptr<Logger> own_logger;
  Logger& logger;
  Metrics metrics;
  std::unique_ptr<StoreTime> store_time;  // of nodes on one database
  std::unique_ptr<IdSource> ids;  // after the store, which may know the node's number
  LaneThread background;  // recovery, the shutdown
  LaneThread reader;      // blocking questions of the HTTP API
  std::unique_ptr<store::Store> store;
  std::unique_ptr<StoreWatch> store_watch;
  std::unique_ptr<idempotency::Keys> keys;
  RegistryGate gate;
  resilience::Guards guards;
  resilience::GuardMetrics guard_metrics;
  std::unique_ptr<GuardRules> guard_rules;
  std::unique_ptr<Backroom> backroom;
  std::unique_ptr<Purger> purger;
  std::unique_ptr<rpc::Registry> registry;
  flow::Flows flows;
  std::unique_ptr<Tokens> tokens;
  std::unique_ptr<TransactionQueries> queries;
  std::unique_ptr<transport::HttpDoor> door;
  std::unique_ptr<transport::GrpcDoor> grpc;  // on the lanes of the other
  Doors doors;
  std::vector<std::unique_ptr<App>> apps;
  std::unique_ptr<AppContext> context;
  std::unique_ptr<flow::Recovery> recovery;
  std::unique_ptr<Lifecycle> lifecycle;
  std::function<void(const std::string&)> first_token;
  std::atomic<bool> recovered{false};
  // Of the first sweep, for /readyz and the metrics: open at the start, not looked at yet, in doubt.
  std::atomic<std::uint64_t> open_found{0}, open_left{0}, in_doubt{0};
  Gauge* left_gauge = nullptr;
  Gauge* in_doubt_gauge = nullptr;
  Timer progress_timer;
  Timer tokens_timer;        // on the reader's lane
  Timer certificates_timer;  // likewise
  Timer health_timer;        // on the background lane, where the doors are stopped too
  bool started = false;
  bool stopped = false;

  Impl(Config c, ServerParts& parts)
      : config(std::move(c)),
        clock(parts.clock != nullptr ? *parts.clock : real_clock),
        random(parts.random != nullptr ? *parts.random : real_random),
        own_logger(parts.logger != nullptr ? nullptr : make_default_logger(config, clock)),
        logger(parts.logger != nullptr ? *parts.logger : *own_logger),
        background(real_clock, "background"),
        reader(real_clock, "reader"),
        gate(config.gate, clock, &metrics),
        guards(clock, random, guard_options(config, logger, registry)),
        guard_metrics(guards, metrics),
        guard_rules(std::make_unique<GuardRules>(guards, config.guard_rules, logger)) {}

  transport::HttpHooks hooks();
  Status make_first_token();
  Status count_open();
  void show_progress();
  void refresh_tokens();
  void look_at_certificates();
  void tell_health();
};

transport::HttpHooks Server::Impl::hooks() {
  transport::HttpHooks hooks;
  hooks.authenticate = [this](std::string_view token) { return tokens->authenticate(token); };
  hooks.name_of = [this](std::string_view token) { return tokens->name_of(token); };
  hooks.healthy = [this] { return store_watch->alive(); };
  // Recovery goes on beside new requests; keys of what it works on answer in_progress.
  hooks.ready = [this] { return store_watch->ready(); };
  hooks.ready_body = [this] {
    return R"({"status":"ok","recovery":{"found":)" + std::to_string(open_found.load()) + R"(,"left":)" +
           std::to_string(open_left.load()) + R"(,"in_doubt":)" + std::to_string(in_doubt.load()) + "}}";
  };
  hooks.metrics = [this] {
    store_watch->count_nodes();
    metrics.gauge("sluice_audit_rows_lost", "Audit rows that could not be written since the start")
        .set(static_cast<std::int64_t>(registry->stats().audit_lost));
    return metrics.prometheus_text();
  };
  hooks.home =
      "<!doctype html><title>Sluice</title><h1>Sluice</h1><p>Commands: "
      "<a href=\"/v1/commands\">/v1/commands</a>, metrics: <a href=\"/metrics\">/metrics</a></p>";
  hooks.transactions = [this](const transport::TransactionQuery& query, transport::RespondJson respond) {
    queries->answer(query, std::move(respond));
  };
  return hooks;
}

Server::Server() = default;
Server::~Server() {
  if (impl_) (void)stop();
}

Result<std::unique_ptr<Server>> Server::open(Config config, ServerParts parts) {
  SLUICE_TRY(check_reach(config));
  std::unique_ptr<Server> server(new Server);
  server->impl_ = std::make_unique<Impl>(std::move(config), parts);
  auto& self = *server->impl_;
  const Found found = look_for_database(self.config);
  auto opened = open_store(self.config, self.clock, self.random, self.executor, &self.logger);
  if (!opened) return fail(std::move(opened).error());
  self.store = std::move(*opened);
  tell_what_was_found(found, *self.store, self.config, self.logger);
  self.store_watch = std::make_unique<StoreWatch>(*self.store, self.logger, self.metrics);
  if (const auto* nodes = store::nodes_of(*self.store)) {
    self.config.node = nodes->node();
    self.store_time = std::make_unique<StoreTime>(self.clock, *self.store);
  }
  Clock& id_clock = self.store_time ? *self.store_time : self.clock;
  self.ids = std::make_unique<IdSource>(id_clock, self.config.node);
  self.ids->advance_past(self.store->largest_id());
  self.keys = std::make_unique<idempotency::Keys>(self.clock, self.store.get(), self.config.keys);
  self.registry = std::make_unique<rpc::Registry>(*self.store, *self.keys, *self.ids,
                                                  rpc::RegistryOptions{.metrics = &self.metrics});
  self.queries = std::make_unique<TransactionQueries>(*self.store, self.flows, *self.registry, id_clock, self.reader.lane());
  self.tokens = std::make_unique<Tokens>(*self.store, self.random);
  SLUICE_TRY(self.tokens->load());
  SLUICE_TRY(self.tokens->add_commands(*self.registry));
  self.registry->set_gatekeeper(&self.gate);
  self.backroom = std::make_unique<Backroom>(self.executor);
  self.purger = std::make_unique<Purger>(*self.store, *self.backroom, self.background.lane(),
                                         self.config.purge, self.metrics, self.logger);
  SLUICE_TRY(add_basic_commands(*self.registry));
  SLUICE_TRY(add_operator_commands(*self.registry, *self.backroom, self.flows));
  SLUICE_TRY(add_wake_command(*self.registry, self.flows));
  SLUICE_TRY(add_audit_command(*self.registry));
  SLUICE_TRY(self.guard_rules->load());
  SLUICE_TRY(add_guard_commands(*self.registry, self.guards, *self.guard_rules, self.clock));
  transport::HttpOptions http = self.config.http;
  http.max_connections = connections_that_fit(http.max_connections, self.logger);
  self.door = std::make_unique<transport::HttpDoor>(*self.registry, self.clock, std::move(http), self.hooks(), self.logger, &self.metrics);
  self.context.reset(new AppContext{*self.registry,
                                    self.flows,
                                    *self.store,
                                    *self.keys,
                                    self.clock,
                                    self.random,
                                    *self.ids,
                                    {},
                                    self.logger,
                                    self.metrics,
                                    self.guards,
                                    self.config.channels,
                                    {}});
  for (std::size_t i = 0; i < self.door->lanes(); ++i)
    self.context->lanes.push_back(&self.door->lane(i));
  self.apps = std::move(parts.apps);
  for (auto& app : self.apps) {
    const auto installed = app->install(*self.context);
    if (!installed)
      return fail(installed.error().at("application '" + std::string(app->name()) + "'"));
  }
  if (!self.config.grpc.listen.empty()) {
    transport::GrpcHooks hooks;
    hooks.authenticate = [&self](std::string_view token) { return self.tokens->authenticate(token); };
    hooks.name_of = [&self](std::string_view token) { return self.tokens->name_of(token); };
    hooks.ready = [&self] { return self.store_watch->ready(); };
    if (self.config.store_kind != "memory") hooks.marks = self.store.get();
    hooks.random = &self.random;
    self.config.grpc.stream.shutdown.grace = self.config.grace;  // one for all doors
    self.grpc = std::make_unique<transport::GrpcDoor>(*self.registry, self.clock,
                                                      self.context->lanes, self.config.grpc,
                                                      std::move(hooks), self.logger, &self.metrics);
    SLUICE_TRY(self.grpc->bind(self.context->grpc));
  }
  self.first_token = std::move(parts.first_token);
  return server;
}

// Before the doors open, so that none of their own is counted.
Status Server::Impl::count_open() {
  left_gauge = &metrics.gauge("sluice_recovery_left", "Exchanges open at the start that recovery has not finished yet");
  in_doubt_gauge = &metrics.gauge("sluice_recovery_in_doubt", "Exchanges in doubt after the last sweep");
  store::ListOpen query;
  for (;;) {
    SLUICE_ASSIGN(const auto rows, store::ask_now(*store, query));
    const auto* nodes = store::nodes_of(*store);
    for (const auto& row : rows) open_found += nodes == nullptr || nodes->ours(row.exchange) ? 1 : 0;
    if (rows.size() < query.limit) break;
    query.after = rows.back().exchange;
  }
  open_left = open_found.load();
  left_gauge->set(static_cast<std::int64_t>(open_left.load()));
  if (open_found > 0) logger.info("recovery begins", {{"open", open_found.load()}});
  return {};
}

// On the background lane, now and then until the first sweep is over.
void Server::Impl::show_progress() {
  if (recovered.load(std::memory_order_acquire)) return;
  const auto& progress = recovery->progress();
  const std::uint64_t over = progress.committed + progress.aborted + progress.paused + progress.in_doubt;
  open_left = open_found - std::min<std::uint64_t>(over, open_found);
  left_gauge->set(static_cast<std::int64_t>(open_left.load()));
  logger.debug("recovery goes on", {{"left", open_left.load()}});
  progress_timer.arm(background.lane(), background.lane().clock().now() + kProgressEvery,
                     [](void* self) noexcept { static_cast<Impl*>(self)->show_progress(); }, this);
}

// Other nodes make and revoke tokens too. On the reader's lane, which may block.
void Server::Impl::refresh_tokens() {
  (void)store_watch->ready();  // tells the log, also where nobody asks /readyz
  if (const auto read = tokens->load(); !read)
    logger.warn("reading the tokens failed; those known so far stay valid", {{"failure", read.error().to_string()}});
  tokens_timer.arm(reader.lane(), reader.lane().clock().now() + kTokensEvery,
                   [](void* self) noexcept { static_cast<Impl*>(self)->refresh_tokens(); }, this);
}

// A server without new connections would not notice that its certificate was replaced, or has ended.
void Server::Impl::look_at_certificates() {
  grpc->look_at_certificates();
  certificates_timer.arm(reader.lane(), reader.lane().clock().now() + config.grpc.tls_watch,
                         [](void* self) noexcept { static_cast<Impl*>(self)->look_at_certificates(); }, this);
}

void Server::Impl::tell_health() {
  grpc->tell_health();
  health_timer.arm(background.lane(), background.lane().clock().now() + kHealthEvery,
                   [](void* self) noexcept { static_cast<Impl*>(self)->tell_health(); }, this);
}

Status Server::Impl::make_first_token() {
  if (!first_token) return {};
  if (!tokens->empty()) {
    const auto now = store->now();
    const auto governs = [now](const TokenInfo& token) {
      return !token.revoked && now < token.expires && std::ranges::find(token.permissions, "*:*") != token.permissions.end();
    };
    const auto all = tokens->list();
    if (std::ranges::none_of(all, governs))
      logger.warn("no token of this store grants everything, and none was made: run sluice token create "
                  "admin --grant '*:*' with --store as here (of a file, while the server is stopped)");
    return {};
  }
  TokenRequest request;
  request.name = "admin";
  request.permissions = {"*:*"};
  request.may_shadow = true;
  const auto made = tokens->create(request);
  if (!made && made.error().code() == "token_name_taken") {
    // Another node that started on the same empty database was first, and has shown it.
    logger.info("another node has made the first token");
    return tokens->load();
  }
  if (!made) return fail(made.error());
  first_token(made->token);
  return {};
}

Status Server::start() {
  auto& self = *impl_;
  LifecycleOptions options;
  options.grace = self.config.grace;
  self.lifecycle = std::make_unique<Lifecycle>(options, self.logger);
  self.lifecycle->add(*self.purger);
  self.lifecycle->add(self.gate.component());
  self.lifecycle->add(self.gate.shadow_component());
  self.doors.add(*self.door);
  if (self.grpc) self.doors.add(*self.grpc);
  self.lifecycle->add(self.doors);
  self.background.start();
  self.reader.start();
  SLUICE_TRY(self.count_open());
  SLUICE_TRY(self.lifecycle->start());
  self.started = true;
  // Only now: a start that fails (the port is taken) must not show a token and be forgotten.
  SLUICE_TRY(self.make_first_token());
  self.background.lane().post([&self] { self.guard_rules->watch(self.background.lane(), self.config.guard_watch); });
  if (store::nodes_of(*self.store) != nullptr) self.reader.lane().post([&self] { self.refresh_tokens(); });
  if (self.grpc && !self.config.grpc.tls_cert.empty()) self.reader.lane().post([&self] { self.look_at_certificates(); });
  if (self.grpc) self.background.lane().post([&self] { self.tell_health(); });
  self.recovery = std::make_unique<flow::Recovery>(*self.store, self.flows, self.background.lane());
  self.background.lane().post([&self] {
    self.recovery->keep_sweeping(self.config.sweep_every, [&self, first = true](const auto& progress) mutable {
      if (!progress)
        self.logger.error("recovery failed", {{"failure", progress.error().to_string()}});
      else if (first || progress->found != progress->in_doubt)
        self.logger.info("recovery is done", {{"found", progress->found},
                                              {"committed", progress->committed},
                                              {"aborted", progress->aborted},
                                              {"paused", progress->paused},
                                              {"in_doubt", progress->in_doubt}});
      first = false;
      if (progress) {
        self.open_left = 0;
        self.in_doubt = progress->in_doubt;
        self.left_gauge->set(0);
        self.in_doubt_gauge->set(static_cast<std::int64_t>(progress->in_doubt));
      }
      self.recovered.store(true, std::memory_order_release);
    });
    self.show_progress();
  });
  self.logger.info("listening", {{"address", self.config.http.address}, {"port", port()}, {"node", self.config.node}});
  if (self.grpc)
    self.logger.info("listening for gRPC",
                     {{"address", self.config.grpc.listen}, {"port", grpc_port()}});
  return {};
}

Result<resilience::ReloadPlan> Server::reload_rules() { return impl_->guard_rules->reload(std::nullopt, "SIGHUP"); }

namespace {
// Balancers that look at /readyz send what is new elsewhere before the doors close.
Task<Status> leave(Lifecycle& lifecycle, Duration delay) {
  if (delay > Duration::zero()) (void)co_await sleep_for(delay);
  co_return co_await lifecycle.shutdown();
}
}  // namespace

Status Server::stop() {
  auto& self = *impl_;
  if (self.stopped) return {};
  self.stopped = true;
  Status status;
  if (self.store_watch) self.store_watch->leave();
  if (self.started) status = block_on(self.background, leave(*self.lifecycle, self.config.drain_delay));
  self.reader.stop();
  self.reader.join();
  self.backroom.reset();
  if (self.store) self.store->close();
  self.background.stop();
  self.background.join();
  return status;
}

std::uint16_t Server::port() const noexcept { return impl_->door->port(); }
std::uint16_t Server::grpc_port() const noexcept { return impl_->grpc ? impl_->grpc->port() : 0; }
AppContext& Server::context() noexcept { return *impl_->context; }
Tokens& Server::tokens() noexcept { return *impl_->tokens; }
const Config& Server::config() const noexcept { return impl_->config; }
transport::HttpStats Server::http_stats() const noexcept { return impl_->door->stats(); }

}  // namespace sluice::server
