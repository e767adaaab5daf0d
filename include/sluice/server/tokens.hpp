// API tokens: 256 random bits, kept only as their SHA-256, with permissions and an end. All of them
// are in memory; the rows (namespace "sluice", collection "tokens") outlive the process.
#pragma once
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sluice/base/random.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::server {

struct TokenInfo {
  std::string id;    ///< 16 characters of the digest: names the token without giving it away
  std::string name;  ///< who holds it: the principal of its requests, one live token for each
  std::vector<std::string> permissions;  ///< "app:command" patterns
  bool may_shadow = false;
  bool revoked = false;
  WallTime created{};
  WallTime expires = WallTime::max();  ///< at or after this instant it is refused
};

struct TokenRequest {
  std::string name;
  std::vector<std::string> permissions;
  bool may_shadow = false;
  milliseconds ttl{0};  ///< 0: never expires
  /// The id of a token of the same name, which is revoked by the same Commit: the principal goes on
  /// under a new secret, and its keys are answered as before.
  std::string replaces{};
};

/// Thread-safe. load(), create() and revoke() block: not on a lane.
class Tokens {
 public:
  /// Both must outlive it. What ends goes by the store's clock, which all nodes share.
  Tokens(store::Store& store, Random& random);

  Status load();
  bool empty() const;
  /// Fails unauthenticated: unknown_token, expired_token, revoked_token.
  Result<std::shared_ptr<const rpc::Principal>> authenticate(std::string_view token) const;
  /// Whose it is, also when it is no longer good; empty: nobody's.
  std::string name_of(std::string_view token) const;
  std::vector<TokenInfo> list() const;

  struct Made {
    std::string token;  ///< shown once; not kept
    TokenInfo info;
  };
  /// Durable on return. Fails invalid_argument for a bad name or pattern, already_exists
  /// (token_name_taken) when there is or was a token of this name that is not replaced: a name is a
  /// principal, and stored replies are its own.
  Result<Made> create(const TokenRequest& request);
  /// By id. Fails not_found.
  Status revoke(std::string_view id);

  /// sluice.token.create, list and revoke, for app "sluice".
  Status add_commands(rpc::Registry& registry);

 private:
  struct Entry {
    TokenInfo info;
    std::shared_ptr<const rpc::Principal> principal;
  };
  struct Draft {
    Made made;
    std::string digest;
    store::Commit commit;
    std::string revoked_digest{};  ///< of the token that is replaced; empty: none
  };
  Result<Draft> draft(const TokenRequest& request);
  Status check_name(const TokenRequest& request, Draft& draft) const;
  /// What `creator` may not give away.
  static Status check_grants(const TokenRequest& request, const rpc::Principal& creator);
  Result<Draft> draft_for(rpc::Invocation& invocation, bool create);
  Result<Draft> draft_revocation(std::string_view id);
  void apply(const std::string& digest, TokenInfo info);
  void apply(const Draft& draft);
  Task<rpc::Answer> run(Draft draft);
  store::Store& store_;
  Random& random_;
  mutable std::shared_mutex mutex_;
  std::unordered_map<std::string, Entry> by_digest_;  // raw SHA-256
};

}  // namespace sluice::server
