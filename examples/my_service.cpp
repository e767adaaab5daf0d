// A service of one's own: an application with two commands behind the server that `sluice serve`
// runs, with its tokens, keys, gate, recovery, metrics and tools.
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sluice/flow.hpp>
#include <sluice/server.hpp>

using namespace sluice;

struct Order {
  std::string show;
  std::int64_t seats = 0;
};

// {"show":"hamlet","seats":2}; the text is JSON already, the door has looked.
Result<Order> parse(const Bytes& payload) {
  const auto json = nlohmann::json::parse(payload, nullptr, false);
  if (!json.is_object() || !json.contains("show") || !json["show"].is_string() ||
      !json.contains("seats") || !json["seats"].is_number_integer())
    return fail(FailureKind::invalid_argument, "bad_order",
                "expected {\"show\":text,\"seats\":number}");
  Order order{json["show"], json["seats"]};
  if (order.show.empty() || order.seats < 1 || order.seats > 1000)
    return fail(FailureKind::invalid_argument, "bad_order", "a show, and 1 to 1000 seats");
  return order;
}

class Theatre final : public server::App {
 public:
  std::string_view name() const noexcept override { return "theatre"; }

  Status install(server::AppContext& context) override {
    // One Commit says it all: no flow needed.
    rpc::CommandSpec open;
    open.name = "theatre.open";
    open.summary = "Puts seats of a show on sale.";
    open.app = "theatre";
    open.handler = [](rpc::Invocation& invocation) {
      const auto order = parse(invocation.command.payload);
      if (!order) return invocation.finish(rpc::Answer::of(order.error()));
      store::Commit commit;
      commit.then = {store::KvAdd{seats_of(invocation.command.ns, order->show), order->seats}};
      invocation.finish_with(std::move(commit), Reply::ok(R"({"open":true})"));
    };
    SLUICE_TRY(context.registry.add(std::move(open)));

    // Stages, and one Commit that decides.
    flow::FlowOptions options;
    options.store = &context.store;
    options.keys = &context.keys;
    options.ids = &context.ids;
    options.log = &context.logger;
    options.metrics = &context.metrics;
    booking_ = std::make_unique<flow::Flow>("theatre.booking", std::move(options));
    booking_->group("main", {flow::func("seats", take_seats)});
    context.flows.add(*booking_);  // so that recovery, `tx show` and `tx graph` know it
    rpc::CommandSpec book;
    book.name = "theatre.book";
    book.summary = "Books seats, all of them or none.";
    book.app = "theatre";
    book.idempotency = rpc::KeyUse::required;
    book.input_schema = R"({"type":"object","required":["show","seats"],"properties":)"
                        R"({"show":{"type":"string"},"seats":{"type":"integer","minimum":1}}})";
    book.handler = rpc::flow_handler(*booking_);
    return context.registry.add(std::move(book));
  }

 private:
  static store::KvKey seats_of(const Namespace& ns, const std::string& show) {
    return {ns.text(), "seats", show};
  }
  static Result<flow::Vote> take_seats(flow::Exchange& x) {
    SLUICE_ASSIGN(const Order order, parse(x.request()));
    x.draft().take(seats_of(x.ns(), order.show), order.seats, "sold_out");
    x.respond(Reply::ok(nlohmann::json{{"booked", order.seats}}.dump()));
    return flow::Vote::continue_();
  }
  std::unique_ptr<flow::Flow> booking_;
};

int main(int argc, char** argv) {
  sigset_t stop;  // blocked before any thread starts, so that only sigwait below sees them
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);

  // The same file and SLUICE_* variables as `sluice serve`; see docs/reference.md.
  auto config = server::load_config(argc > 1 ? argv[1] : "", server::process_environment());
  if (!config) return std::fprintf(stderr, "%s\n", config.error().to_string().c_str()), 2;
  server::ServerParts parts;
  parts.apps.push_back(std::make_unique<Theatre>());
  parts.first_token = [](const std::string& token) { std::printf("token: %s\n", token.c_str()); };
  auto opened = server::Server::open(*std::move(config), std::move(parts));
  if (!opened) return std::fprintf(stderr, "%s\n", opened.error().to_string().c_str()), 1;
  auto& server = **opened;
  if (const auto started = server.start(); !started)
    return std::fprintf(stderr, "%s\n", started.error().to_string().c_str()), 1;
  std::printf("listening on http://127.0.0.1:%u\n", unsigned{server.port()});
  std::fflush(stdout);
  int signal = 0;
  sigwait(&stop, &signal);
  return server.stop() ? 0 : 1;
}
