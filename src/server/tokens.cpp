#include "sluice/server/tokens.hpp"

#include <algorithm>
#include <array>

#include "server/json_fields.hpp"
#include "sluice/base/text.hpp"

namespace sluice::server {

namespace {

constexpr std::size_t kTokensMax = 10'000;
constexpr std::size_t kIdBytes = 8;

store::KvKey key_of(const std::string& digest) { return {"sluice", "tokens", to_hex(digest)}; }
// Stands from the first token of a name on: of two that are made at once, one is refused.
store::KvKey name_key(const std::string& name) { return {"sluice", "token_names", name}; }

// Stands once a token was replaced: of two that would replace it, one is refused.
store::KvKey successor_key(const std::string& digest) { return {"sluice", "token_successors", to_hex(digest)}; }

constexpr const char* kReplaced = "token_replaced";
Failure replaced_already(const std::string& name) {
  return Failure(FailureKind::already_exists, kReplaced,
                 "replaces: this token was replaced already. The command sluice.token.list shows who has its name, '" +
                     name + "', now: replace that one, by its id");
}

constexpr const char* kNameTaken = "token_name_taken";
Failure name_taken(const std::string& name) {
  return Failure(FailureKind::already_exists, kNameTaken,
                 "there is, or was, a token named '" + name + "': a name is a principal, whose idempotency keys and "
                 "replies are its own. Choose another name, or renew that one with \"replaces\": its id, which "
                 "revokes it");
}

// app:command, each of the letters of a name, or *.
bool valid_pattern(std::string_view pattern) noexcept {
  const auto colon = pattern.find(':');
  if (colon == std::string_view::npos) return false;
  const auto part = [](std::string_view text) {
    return !text.empty() && text.size() <= 64 && std::ranges::all_of(text, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '*';
    });
  };
  return part(pattern.substr(0, colon)) && part(pattern.substr(colon + 1));
}

// A hundred years: beyond it nobody means an end at all, and it adds to any time without overflow.
constexpr std::int64_t kTtlSecondsMax = std::int64_t{100} * 365 * 24 * 3600;

nlohmann::ordered_json to_json(const TokenInfo& info) {
  nlohmann::ordered_json json{{"id", info.id},
            {"name", info.name},
            {"permissions", info.permissions},
            {"shadow", info.may_shadow},
            {"revoked", info.revoked},
            {"created_ms", info.created.time_since_epoch().count()}};
  if (info.expires != WallTime::max()) json["expires_ms"] = info.expires.time_since_epoch().count();
  return json;
}

TokenInfo from_json(const Json& json) {
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

Tokens::Tokens(store::Store& store, Random& random) : store_(store), random_(random) {}

void Tokens::apply(const std::string& digest, TokenInfo info) {
  auto principal = std::make_shared<rpc::Principal>();
  principal->id = info.name;
  principal->permissions = info.permissions;
  principal->may_shadow = info.may_shadow;
  std::unique_lock lock(mutex_);
  auto& known = by_digest_[digest];
  // Nothing makes a revoked one good again; what says otherwise was read before.
  info.revoked = info.revoked || known.info.revoked;
  known = {std::move(info), std::move(principal)};
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
      apply(*digest, from_json(Json::parse(item.row.value)));
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
    return fail(FailureKind::unauthenticated, "unknown_token", "this token is not known here: look whether it is whole (slc_ and 64 digits and letters) and of this "
                "server's store (on PostgreSQL another node's new one is known within two seconds); who has lost one gets another by \"replaces\" of sluice.token.create");
  const auto& [info, principal] = found->second;
  if (info.revoked)
    return fail(FailureKind::unauthenticated, "revoked_token", "this token was revoked; the command sluice.token.create makes another (of the same name: \"replaces\" with its id)");
  if (store_.now() >= info.expires)
    return fail(FailureKind::unauthenticated, "expired_token", "this token has expired; the command sluice.token.create renews it: \"replaces\" with its id");
  return principal;
}

std::string Tokens::name_of(std::string_view token) const {
  const Digest digest = sha256(token);
  const std::shared_lock lock(mutex_);
  const auto found = by_digest_.find(std::string(digest.view()));
  return found == by_digest_.end() ? std::string() : found->second.info.name;
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

Status Tokens::check_grants(const TokenRequest& request, const rpc::Principal& creator) {
  // A pattern read as a text is matched by another only if that one allows all it does: no name has a
  // star, so only a star matches it.
  for (const auto& pattern : request.permissions) {
    const auto colon = pattern.find(':');
    if (!creator.may(std::string_view(pattern).substr(0, colon), std::string_view(pattern).substr(colon + 1)))
      return fail(FailureKind::forbidden, "grants_more",
                  "this token does not hold '" + pattern + "' and so cannot grant it");
  }
  if (request.may_shadow && !creator.may_shadow)
    return fail(FailureKind::forbidden, "grants_more",
                "this token may not send shadow traffic and so cannot grant it (\"shadow\")");
  if (!request.replaces.empty() && !creator.may("sluice", "sluice.token.revoke"))
    return fail(FailureKind::forbidden, "forbidden",
                "\"replaces\" revokes a token: this one does not grant 'sluice:sluice.token.revoke'");
  return {};
}

// Adds to the draft what keeps the name one principal's.
Status Tokens::check_name(const TokenRequest& request, Draft& draft) const {
  const std::shared_lock lock(mutex_);
  if (by_digest_.size() >= kTokensMax)
    return fail(FailureKind::overloaded, "too_many_tokens",
                "there are " + std::to_string(kTokensMax) + " tokens already");
  if (request.replaces.empty()) {
    for (const auto& [digest, entry] : by_digest_)
      if (entry.info.name == request.name) return fail(name_taken(request.name));
    // In the store as well: other requests, or another node, may be making it right now.
    draft.commit.requires_.push_back({store::KvVersionIs{name_key(request.name), 0}, kNameTaken});
    draft.commit.then.emplace_back(store::KvPut{name_key(request.name), "{}", {}});
    return {};
  }
  for (const auto& [digest, entry] : by_digest_) {
    if (entry.info.id != request.replaces) continue;
    if (entry.info.name != request.name)
      return fail(FailureKind::invalid_argument, "other_token",
                  "replaces: token '" + std::string(beginning_of(request.replaces, 64)) + "' is named '" + entry.info.name + "', not '" +
                      request.name + "'");
    // Those replaced before there was a row for it have a successor that is good.
    const auto good = [&](const auto& other) {
      return other.second.info.name == request.name && !other.second.info.revoked;
    };
    if (entry.info.revoked && std::ranges::any_of(by_digest_, good)) return fail(replaced_already(request.name));
    draft.commit.requires_.push_back({store::KvVersionIs{successor_key(digest), 0}, kReplaced});
    draft.commit.then.emplace_back(store::KvPut{successor_key(digest), "{}", {}});
    TokenInfo old = entry.info;
    old.revoked = true;
    draft.revoked_digest = digest;
    draft.commit.then.emplace_back(store::KvPut{key_of(digest), to_json(old).dump(), {}});
    return {};
  }
  return fail(FailureKind::not_found, "unknown_token",
              "replaces: there is no token with id '" + std::string(beginning_of(request.replaces, 64)) + "'");
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
    if (!valid_pattern(pattern))
      return fail(FailureKind::invalid_argument, "bad_permission",
                  "permission '" + std::string(beginning_of(pattern, 140)) +
                      "': expected app:command, each 1–64 of a–z 0–9 - _ . with * for any");
  if (request.ttl < milliseconds(0) || request.ttl > seconds(kTtlSecondsMax))
    return fail(FailureKind::invalid_argument, "bad_ttl",
                "a token's life has 0 (no end) to " + std::to_string(kTtlSecondsMax) + " seconds");
  Draft draft;
  SLUICE_TRY(check_name(request, draft));
  std::array<std::byte, 32> secret;
  random_.secret(secret.data(), secret.size());
  draft.made.token = "slc_" + to_hex({reinterpret_cast<const char*>(secret.data()), secret.size()});
  draft.digest = sha256(draft.made.token).view();
  auto& info = draft.made.info;
  info.id = to_hex(ByteView(draft.digest).substr(0, kIdBytes));
  info.name = request.name;
  info.permissions = request.permissions;
  info.may_shadow = request.may_shadow;
  info.created = store_.now();
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
              "there is no token with id '" + std::string(beginning_of(id, 64)) + "'");
}

// What its Commit has made true.
void Tokens::apply(const Draft& draft) {
  apply(draft.digest, draft.made.info);
  if (draft.revoked_digest.empty()) return;
  TokenInfo old;
  {
    const std::shared_lock lock(mutex_);
    old = by_digest_.at(draft.revoked_digest).info;
  }
  old.revoked = true;
  apply(draft.revoked_digest, std::move(old));
}

Result<Tokens::Made> Tokens::create(const TokenRequest& request) {
  auto made = draft(request);
  if (!made) return fail(std::move(made).error());
  const auto outcome = store::commit_and_wait(store_, std::move(made->commit));
  if (!outcome) return fail(outcome.error().at("storing the token"));
  if (!outcome->applied) return fail(request.replaces.empty() ? name_taken(request.name) : replaced_already(request.name));
  apply(*made);
  return std::move(made->made);
}

Status Tokens::revoke(std::string_view id) {
  auto change = draft_revocation(id);
  if (!change) return fail(std::move(change).error());
  const auto outcome = store::commit_and_wait(store_, std::move(change->commit));
  if (!outcome) return fail(outcome.error().at("revoking the token"));
  apply(*change);
  return {};
}

Task<rpc::Answer> Tokens::run(Draft draft) {
  store::CommitAwaiter written(store_, std::move(draft.commit));
  auto outcome = co_await written;
  if (!outcome) co_return rpc::Answer::of(outcome.error());
  if (!outcome->applied) {
    const auto& name = draft.made.info.name;
    const Failure refused = draft.revoked_digest.empty() ? name_taken(name) : replaced_already(name);
    co_return rpc::Answer::of(refused);
  }
  apply(draft);
  auto json = to_json(draft.made.info);
  if (!draft.made.token.empty()) json["token"] = draft.made.token;
  const Reply reply = Reply::ok(json.dump());
  co_return rpc::Answer::of(reply);
}

Result<Tokens::Draft> Tokens::draft_for(rpc::Invocation& invocation, bool create) {
  SLUICE_ASSIGN(auto fields, JsonFields::parse(invocation.command.payload));
  if (!create) {
    const auto id = fields.text("id", 64);
    SLUICE_TRY(fields.done());
    return draft_revocation(id);
  }
  TokenRequest request;
  request.name = fields.text("name", 64);
  request.permissions = fields.texts("permissions");
  request.may_shadow = fields.flag("shadow");
  const auto ttl = fields.number("ttl_seconds").value_or(0);
  request.replaces = fields.text("replaces", 64, false);
  SLUICE_TRY(fields.done());
  // Before it is made a duration, which has room for less.
  request.ttl = ttl < 0 || ttl > kTtlSecondsMax ? milliseconds(-1) : milliseconds(seconds(ttl));
  // What is malformed is said before what is not allowed.
  SLUICE_ASSIGN(auto made, draft(request));
  SLUICE_TRY(check_grants(request, *invocation.command.principal));
  return made;
}

Status Tokens::add_commands(rpc::Registry& registry) {
  const auto add = [&](std::string name, std::string summary, std::string schema, rpc::Handler handler) -> Status {
    rpc::CommandSpec spec;
    spec.name = std::move(name);
    spec.summary = std::move(summary);
    spec.app = "sluice";
    spec.shadow = false;
    // Without a key: a stored reply would keep the token readable.
    spec.idempotency = rpc::KeyUse::none;
    spec.input_schema = std::move(schema);
    spec.handler = std::move(handler);
    return registry.add(std::move(spec));
  };
  const auto changing = [this](bool create) {
    return [this, create](rpc::Invocation& invocation) {
      auto change = draft_for(invocation, create);
      if (!change) return invocation.finish(rpc::Answer::of(std::move(change).error()));
      invocation.audited();
      for (auto& requirement : change->commit.requires_) {
        requirement.otherwise = static_cast<std::int32_t>(change->commit.otherwise.size());
        change->commit.otherwise.push_back(
            {store::AuditAppend{invocation.audit_row(store::AuditOutcome::error, requirement.name)}});
      }
      change->commit.then.emplace_back(
          store::AuditAppend{invocation.audit_row(store::AuditOutcome::ok, change->made.info.id)});
      invocation.run_task(run(std::move(*change)));
    };
  };
  SLUICE_TRY(add("sluice.token.create",
                 "Makes a token: {name, permissions, shadow?, ttl_seconds?, replaces?}. It grants what its maker holds, at most.",
                 R"({"type":"object","required":["name"],"additionalProperties":false,)"
                 R"("properties":{"name":{"type":"string","maxLength":64},)"
                 R"("permissions":{"type":"array","items":{"type":"string","pattern":"^[a-z0-9._*-]+:[a-z0-9._*-]+$"}},)"
                 R"("shadow":{"type":"boolean"},"ttl_seconds":{"type":"integer","minimum":0},)"
                 R"("replaces":{"type":"string","description":"id of the token of this name that ends"}}})",
                 changing(true)));
  SLUICE_TRY(add("sluice.token.revoke", "Revokes a token: {id}",
                 R"({"type":"object","required":["id"],"additionalProperties":false,)"
                 R"("properties":{"id":{"type":"string"}}})",
                 changing(false)));
  return add("sluice.token.list", "All tokens, without their secrets",
             R"({"type":"object","additionalProperties":false,"properties":{}})", [this](rpc::Invocation& invocation) {
               auto fields = JsonFields::parse(invocation.command.payload);
               const Status ok = fields ? fields->done() : fail(fields.error());
               if (!ok) return invocation.finish(rpc::Answer::of(ok.error()));
               nlohmann::ordered_json all = nlohmann::ordered_json::array();
               for (const auto& info : list()) all.push_back(to_json(info));
               const nlohmann::ordered_json body{{"tokens", std::move(all)}};
               invocation.finish(rpc::Answer::of(Reply::ok(body.dump())));
             });
}

}  // namespace sluice::server
