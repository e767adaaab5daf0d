#include <map>

#include "sluice/base/bytes.hpp"
#include "sluice/rpc/interceptors.hpp"

namespace sluice::rpc {

namespace {

// An answer belongs to namespace, headers' sender and body; keys and traces are the asker's own.
std::string id_of(const CallContext& context, const Request& request) {
  std::string id;
  ByteWriter writer(id);
  writer.bytes(context.ns.text());
  writer.varint(context.headers.size());
  for (const auto& [name, value] : context.headers) {
    writer.bytes(name);
    writer.bytes(value);
  }
  writer.raw(*request.body);
  return id;
}

class CacheCalls final : public Interceptor {
 public:
  CacheCalls(Random& random, CallCacheOptions options)
      : random_(random), options_(std::move(options)) {}
  std::string_view name() const noexcept override { return "cache"; }

  Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                   const Request& request, Next next) override {
    if (!command.read_only || (options_.cached && !options_.cached(command)))
      return next(context, request);
    return look_up(command, context, request, next);
  }

 private:
  using Cache = resilience::CacheAside<Response>;

  Task<Result<Response>> look_up(const RemoteCommand& command, const CallContext& context,
                                 const Request& request, Next next) {
    const TaskContext& task = co_await current_context();
    Answers* known = answers_of(*task.lane, command, context, next);
    if (known == nullptr) {
      Task<Result<Response>> rest = next(context, request);
      Result<Response> response = co_await rest;
      co_return response;
    }
    std::vector<std::string> ids{id_of(context, request)};
    known->asker = &context;
    known->asked = &request;
    Task<std::vector<Cache::Found>> asking = known->cache->get(std::move(ids));
    std::vector<Cache::Found> found = co_await asking;
    if (!found[0]) co_return fail(std::move(found[0]).error());
    if (found[0]->has_value()) co_return **std::move(found[0]);
    Failure absent(FailureKind::not_found, "not_found",
                   "the callee of '" + command.name + "' does not know it");
    co_return fail(std::move(absent));
  }

  // A flight outlives its first asker: everything it needs is its own.
  static Task<Result<std::vector<Cache::Found>>> fetch(CallContext context, Request request, Next next) {
    Task<Result<Response>> rest = next(context, request);
    Result<Response> response = co_await rest;
    std::vector<Cache::Found> answers;
    if (response)
      answers.emplace_back(std::optional<Response>(*std::move(response)));
    else if (response.error().kind() == FailureKind::not_found)
      answers.emplace_back(std::optional<Response>());
    else
      answers.emplace_back(fail(std::move(response).error()));
    Result<std::vector<Cache::Found>> all(std::move(answers));
    co_return all;
  }

  /// One command's answers on one lane. A cache knows ids only; what else a call says (its trace, its
  /// hot key) is that of the asker at whose asking the fetch begins, which is before get() waits.
  struct Answers {
    std::unique_ptr<Cache> cache;
    const CallContext* asker = nullptr;
    const Request* asked = nullptr;
  };

  Answers* answers_of(Lane& lane, const RemoteCommand& command, const CallContext& context, Next next) {
    const Key key{&lane, &command, context.channel};
    const std::lock_guard lock(mutex_);
    auto& known = caches_[key];
    if (known == nullptr && caches_.size() > options_.max_caches) {
      caches_.erase(key);
      return nullptr;
    }
    if (known != nullptr) return known.get();
    known = std::make_unique<Answers>();
    known->cache = std::make_unique<Cache>(
        lane, random_,
        [next, known = known.get()](std::vector<std::string>) { return fetch(*known->asker, *known->asked, next); },
        options_.entries);
    return known.get();
  }

  using Key = std::tuple<Lane*, const RemoteCommand*, Channel*>;
  Random& random_;
  const CallCacheOptions options_;
  std::mutex mutex_;
  std::map<Key, std::unique_ptr<Answers>> caches_;  // each is used on its lane only
};

}  // namespace

std::shared_ptr<Interceptor> cache_calls(Random& random, CallCacheOptions options) {
  return std::make_shared<CacheCalls>(random, std::move(options));
}

}  // namespace sluice::rpc
