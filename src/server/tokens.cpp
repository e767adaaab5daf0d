#include "sluice/server/tokens.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "server/json_fields.hpp"

namespace sluice::server {

namespace {

using Ordered = nlohmann::ordered_json;

// Beyond it nobody means an end at all; and it adds to any time without overflow.
constexpr milliseconds kTtlMax = std::chrono::hours(24 * 365 * 100);

constexpr std::size_t kTokensMax = 10'000;
constexpr std::size_t kIdBytes = 8;

store::KvKey key_of(const std::string& digest) { return {"sluice", "tokens", to_hex(digest)}; }

Ordered to_json(const TokenInfo& info) {
  Ordered json{{"id", info.id},
            {"name", info.name},
            {"permissions", info.permissions},
            {"shadow", info.may_shadow},
            {"revoked", info.revoked},
            {"created_ms", info.created.time_since_epoch().count()}};
  if (info.expires != WallTime::max()) json["expires_ms"] = info.expires.time_since_epoch().count();
  return json;
}

TokenInfo from_json(const Ordered& json) {
  TokenInfo info;
  info.id = json.at("id");
  info.name = json.at("name");
  info.permissions = json.at("permissions").get<std::vector<std::string>>();
  info.may_shadow = json.value("shadow", false);
  info.revoked = json.value("revoked", false);
  info.created = WallTime(milliseconds(json.value("created_ms", std::int64_t{0})));
  if (json.contains("expires_ms"))
    info.expires = WallTime(milliseconds(json.at("expires_ms").get<std::int64_t>()));
  return info;
}

}  // namespace

Tokens::Tokens(store::Store& store, Clock& clock, Random& random)
    : store_(store), clock_(clock), random_(random) {}

void Tokens::apply(const std::string& digest, TokenInfo info) {
  auto principal = std::make_shared<rpc::Principal>();
  principal->id = info.name;
  principal->permissions = info.permissions;
  principal->may_shadow = info.may_shadow;
  std::unique_lock lock(mutex_);
  by_digest_[digest] = {std::move(info), std::move(principal)};
}

Status Tokens::load() {
  store::ListRows query;
  query.ns = "sluice";
  query.collection = "tokens";
  query.limit = kTokensMax;
  auto rows = store::ask_now(store_, query);
  if (!rows) return fail(rows.error().at("reading the tokens"));
  for (const auto& item : *rows) {
    const auto digest = from_hex(item.key.key);
    try {
      if (!digest || digest->size() != sizeof(Digest)) throw std::runtime_error("bad digest");
      apply(*digest, from_json(Ordered::parse(item.row.value)));
    } catch (const std::exception& error) {
      return fail(FailureKind::corrupt, "bad_token_row",
                  "token row " + item.key.key.substr(0, 2 * kIdBytes) + ": " + error.what());
    }
  }
  return {};
}

bool Tokens::empty() const {
  std::shared_lock lock(mutex_);
  return by_digest_.empty();
}

Result<std::shared_ptr<const rpc::Principal>> Tokens::authenticate(std::string_view token) const {
  // Found by digest: how long it takes tells nothing about a token.
  const Digest digest = sha256(token);
  std::shared_lock lock(mutex_);
  const auto found = by_digest_.find(std::string(digest.view()));
  if (found == by_digest_.end())
    return fail(FailureKind::unauthenticated, "unknown_token", "this token is not known here");
  const auto& [info, principal] = found->second;
  if (info.revoked)
    return fail(FailureKind::unauthenticated, "revoked_token", "this token was revoked");
  if (clock_.wall() >= info.expires)
    return fail(FailureKind::unauthenticated, "expired_token", "this token has expired");
  return principal;
}

std::vector<TokenInfo> Tokens::list() const {
  std::vector<TokenInfo> all;
  {
    std::shared_lock lock(mutex_);
    for (const auto& [digest, entry] : by_digest_) all.push_back(entry.info);
  }
  std::ranges::sort(all, [](const TokenInfo& a, const TokenInfo& b) {
    return std::tie(a.created, a.id) < std::tie(b.created, b.id);
  });
  return all;
}

Result<Tokens::Draft> Tokens::draft(const TokenRequest& request) {
  if (request.name.empty() || request.name.size() > 64)
    return fail(FailureKind::invalid_argument, "bad_token_name",
                "a token's name has 1–64 characters");
  for (const unsigned char c : request.name)
    if (c < 0x20 || c == 0x7F)
      return fail(FailureKind::invalid_argument, "bad_token_name",
                  "a token's name stands in logs and audit rows: no control characters");
  for (const auto& pattern : request.permissions)
    if (pattern.find(':') == std::string::npos)
      return fail(FailureKind::invalid_argument, "bad_permission",
                  "permission '" + pattern + "': expected app:command, with * for any");
  if (request.ttl < milliseconds(0) || request.ttl > kTtlMax)
    return fail(FailureKind::invalid_argument, "bad_ttl",
                "a token's life: expected up to 100 years, or 0 for one without end");
  {
    std::shared_lock lock(mutex_);
    if (by_digest_.size() >= kTokensMax)
      return fail(FailureKind::overloaded, "too_many_tokens",
                  "there are " + std::to_string(kTokensMax) + " tokens already");
  }
  Draft draft;
  std::array<std::byte, 32> secret;
  random_.secret(secret.data(), secret.size());
  draft.made.token = "slc_" + to_hex({reinterpret_cast<const char*>(secret.data()), secret.size()});
  draft.digest = sha256(draft.made.token).view();
  auto& info = draft.made.info;
  info.id = to_hex(ByteView(draft.digest).substr(0, kIdBytes));
  info.name = request.name;
  info.permissions = request.permissions;
  info.may_shadow = request.may_shadow;
  info.created = clock_.wall();
  if (request.ttl > milliseconds(0)) info.expires = info.created + request.ttl;
  draft.commit.then.emplace_back(store::KvPut{key_of(draft.digest), to_json(info).dump(), {}});
  return draft;
}

Result<Tokens::Draft> Tokens::draft_revocation(std::string_view id) {
  std::shared_lock lock(mutex_);
  for (const auto& [digest, entry] : by_digest_) {
    if (entry.info.id != id) continue;
    Draft draft;
    draft.digest = digest;
    draft.made.info = entry.info;
    draft.made.info.revoked = true;
    draft.commit.then.emplace_back(
        store::KvPut{key_of(digest), to_json(draft.made.info).dump(), {}});
    return draft;
  }
  return fail(FailureKind::not_found, "unknown_token",
              "there is no token with id '" + std::string(id.substr(0, 64)) + "'");
}

Result<Tokens::Made> Tokens::create(const TokenRequest& request) {
  auto made = draft(request);
  if (!made) return fail(std::move(made).error());
  const auto outcome = store::commit_and_wait(store_, std::move(made->commit));
  if (!outcome) return fail(outcome.error().at("storing the token"));
  apply(made->digest, made->made.info);
  return std::move(made->made);
}

Status Tokens::revoke(std::string_view id) {
  auto change = draft_revocation(id);
  if (!change) return fail(std::move(change).error());
  const auto outcome = store::commit_and_wait(store_, std::move(change->commit));
  if (!outcome) return fail(outcome.error().at("revoking the token"));
  apply(change->digest, change->made.info);
  return {};
}

Task<rpc::Answer> Tokens::run(Draft draft) {
  store::CommitAwaiter written(store_, std::move(draft.commit));
  auto outcome = co_await written;
  if (!outcome) co_return rpc::Answer::of(outcome.error());
  apply(draft.digest, draft.made.info);
  Ordered json = to_json(draft.made.info);
  if (!draft.made.token.empty()) json["token"] = draft.made.token;
  co_return rpc::Answer::of(Reply::ok(json.dump()));
}

Status Tokens::add_commands(rpc::Registry& registry) {
  const auto add = [&](std::string name, std::string summary, auto work) -> Status {
    rpc::CommandSpec spec;
    spec.name = std::move(name);
    spec.summary = std::move(summary);
    spec.app = "sluice";
    spec.shadow = false;
    // Without a key: a stored reply would keep the token readable.
    spec.idempotency = rpc::KeyUse::none;
    spec.handler = [this, work](rpc::Invocation& invocation) {
      auto fields = JsonFields::parse(invocation.command.payload);
      if (!fields) return invocation.finish(rpc::Answer::of(std::move(fields).error()));
      Result<Draft> change = work(*fields);
      if (!change) return invocation.finish(rpc::Answer::of(std::move(change).error()));
      invocation.audited();
      change->commit.then.emplace_back(
          store::AuditAppend{invocation.audit_row(store::AuditOutcome::ok, change->made.info.id)});
      invocation.run_task(run(std::move(*change)));
    };
    return registry.add(std::move(spec));
  };
  SLUICE_TRY(add("sluice.token.create", "Makes a token: {name, permissions, shadow?, ttl_seconds?}",
                 [this](JsonFields& fields) -> Result<Draft> {
                   TokenRequest request;
                   request.name = fields.text("name", 64);
                   request.permissions = fields.texts("permissions");
                   request.may_shadow = fields.flag("shadow");
                   // Compared before it is made milliseconds, which hold less.
                   const auto ttl = fields.number("ttl_seconds").value_or(0);
                   SLUICE_TRY(fields.done());
                   constexpr std::int64_t kMax = std::chrono::duration_cast<seconds>(kTtlMax).count() + 1;
                   request.ttl = seconds(std::clamp<std::int64_t>(ttl, -1, kMax));
                   return draft(request);
                 }));
  SLUICE_TRY(add("sluice.token.revoke", "Revokes a token: {id}", [this](JsonFields& fields) -> Result<Draft> {
    const auto id = fields.text("id", 64);
    SLUICE_TRY(fields.done());
    return draft_revocation(id);
  }));
  rpc::CommandSpec list_spec;
  list_spec.name = "sluice.token.list";
  list_spec.summary = "All tokens, without their secrets";
  list_spec.app = "sluice";
  list_spec.idempotency = rpc::KeyUse::none;
  list_spec.handler = [this](rpc::Invocation& invocation) {
    Ordered all = Ordered::array();
    for (const auto& info : list()) all.push_back(to_json(info));
    const Ordered body{{"tokens", std::move(all)}};
    invocation.finish(rpc::Answer::of(Reply::ok(body.dump())));
  };
  return registry.add(std::move(list_spec));
}

}  // namespace sluice::server
