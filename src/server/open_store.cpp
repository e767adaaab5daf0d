// The store that a configuration names.
#include "sluice/server/server.hpp"
#include "sluice/store/memory.hpp"

namespace sluice::server {

Result<std::unique_ptr<store::Store>> open_store(const Config& config, Clock& clock, Random& random,
                                                 Executor& executor, Logger* logger) {
  if (config.store_kind == "memory") return store::make_memory_store(clock, random);
  if (!config.postgres.url.empty()) {
    store::PostgresOptions options = config.postgres;
    options.max_queue = config.sqlite.max_queue;
    options.max_group = config.sqlite.max_group;
    options.max_readers = config.sqlite.max_readers;
    options.logger = logger;
    auto shared = store::open_postgres_store(std::move(options), clock, random, executor);
    if (!shared) return fail(std::move(shared).error());
    return std::unique_ptr<store::Store>(std::move(*shared));
  }
  auto opened = store::open_sqlite_store(config.sqlite, clock, random, executor);
  if (!opened) return fail(std::move(opened).error());
  return std::unique_ptr<store::Store>(std::move(*opened));
}

}  // namespace sluice::server
