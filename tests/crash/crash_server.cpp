// The server that the crash campaign kills.
//   crash_server serve FOLDER           prints "PORT n" once its doors are open; SIGTERM ends it
//   crash_server strand FOLDER COUNT DECIDED   leaves COUNT transfers open, as a crash would, and exits: DECIDED of
//                                              them are commits that the partner has not heard of
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "crash/crash_app.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/server/server.hpp"
#include "sluice/store/nodes.hpp"
#include "sluice/store/sqlite.hpp"

namespace sluice::crash {
namespace {

server::Config config_for(const std::string& folder) {
  server::Config config;
  config.sqlite.path = folder + "/crash.db";
  if (const char* url = std::getenv("CRASH_POSTGRES"); url != nullptr) {
    config.postgres.url = url;
    config.postgres.lease = milliseconds(1500);
    config.postgres.io_timeout = milliseconds(2000);
  }
  config.http.port = 0;
  config.log_level = "info";
  return config;
}

int stop_with(const Failure& failure) {
  std::fprintf(stderr, "error: %s\n", failure.to_string().c_str());
  return 1;
}

Status open_accounts(store::Store& store) {
  store::Commit opening;
  for (int i = 0; i < kAccounts; ++i) opening.then.push_back(store::KvPut{account(i), "", kOpening});
  opening.requires_.push_back({store::KvVersionIs{account(0), 0}, "first"});
  auto done = commit_and_wait(store, std::move(opening));
  if (!done) return fail(done.error());
  return {};
}

int serve(const std::string& folder) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  signal(SIGPIPE, SIG_IGN);
  server::ServerParts parts;
  parts.apps.push_back(make_app(folder + "/partner.log"));
  parts.first_token = [&](const std::string& token) { std::ofstream(folder + "/token") << token; };
  auto opened = server::Server::open(config_for(folder), std::move(parts));
  if (!opened) return stop_with(opened.error());
  auto& server = **opened;
  if (auto funded = open_accounts(server.context().store); !funded) return stop_with(funded.error());
  if (auto started = server.start(); !started) return stop_with(started.error());
  std::printf("PORT %d\n", int{server.port()});
  std::fflush(stdout);
  int signal = 0;
  sigwait(&stop, &signal);
  if (auto stopped = server.stop(); !stopped) return stop_with(stopped.error());
  return 0;
}

int strand(const std::string& folder, int count, int decided) {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  LaneThread lane{clock, "strand"};
  auto store = open_store(config_for(folder), clock, random, executor);
  if (!store) return stop_with(store.error());
  if (auto funded = open_accounts(**store); !funded) return stop_with(funded.error());
  store::Commit funds;
  funds.then.push_back(store::KvPut{account(kStrandedFrom), "", count});
  if (auto funded = commit_and_wait(**store, std::move(funds)); !funded) return stop_with(funded.error());
  FilePartner partner(folder + "/partner.log");
  std::atomic<int> waiting{0};
  auto undecided = make_transfer(**store, partner, {Hang::At::reserving, &waiting});
  auto committing = make_transfer(**store, partner, {Hang::At::committing, &waiting});
  const std::string request = R"({"from":)" + std::to_string(kStrandedFrom) + R"(,"to":)" + std::to_string(kStrandedTo) + "}";
  // On a shared database another node has to take them over: they are of the number that this one holds there.
  const store::Nodes* nodes = store::nodes_of(**store);
  IdSource ids(clock, nodes != nullptr ? nodes->node() : 2);
  lane.start();
  lane.lane().post([&] {
    for (int i = 0; i < count; ++i) {
      flow::RunOptions run;
      run.lane = &lane.lane();
      flow::Flow& flow = i < decided ? *committing : *undecided;
      flow.run(std::make_shared<flow::Exchange>(ids.exchange(), Namespace("crash"), request), std::move(run),
               [](void*, flow::Outcome) noexcept {}, nullptr);
    }
  });
  while (waiting < count) usleep(10'000);  // until all wait for the partner
  _exit(0);
}

}  // namespace
}  // namespace sluice::crash

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "serve") == 0) return sluice::crash::serve(argv[2]);
  if (argc == 5 && std::strcmp(argv[1], "strand") == 0) return sluice::crash::strand(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  std::fprintf(stderr, "usage: crash_server serve FOLDER | strand FOLDER COUNT DECIDED\n");
  return 2;
}
