// What an application is to the server: something that adds its commands and flows once, before the
// doors open.
#pragma once
#include <string_view>
#include <vector>

#include "sluice/base/log.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/base/random.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/resilience/guards.hpp"
#include "sluice/rpc/registry.hpp"
#include "sluice/server/config.hpp"
#include "sluice/transport/grpc.hpp"

namespace sluice::server {

/// What an application may use. Everything outlives the application.
struct AppContext {
  rpc::Registry& registry;
  flow::Flows& flows;  ///< add every flow, so that recovery finds it
  store::Store& store;
  idempotency::Keys& keys;
  Clock& clock;
  Random& random;
  IdSource& ids;
  std::vector<Lane*> lanes;  ///< of the doors; they run once the server has started
  Logger& logger;
  Metrics& metrics;
  resilience::Guards& guards;  ///< of outbound calls
  const std::map<std::string, ChannelConfig>& channels;  ///< other services, as configured; open_channel()
  transport::GrpcMethods grpc;  ///< typed methods of the application's commands
};

/// Owns its flows. Destroyed after the doors have stopped and the store has closed.
class App {
 public:
  virtual ~App() = default;
  virtual std::string_view name() const noexcept = 0;
  /// Once, before anything runs. Fails when the application cannot serve; the server then does not
  /// start.
  virtual Status install(AppContext& context) = 0;
};

}  // namespace sluice::server
