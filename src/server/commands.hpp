// The commands every server has, whatever applications it runs.
#pragma once
#include "server/backroom.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/resilience/guards.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::server {

/// sluice.echo, kv.put, kv.get, kv.add.
Status add_basic_commands(rpc::Registry& registry);
/// sluice.tx.settle, sluice.tx.graph, sluice.idempotency.show.
Status add_operator_commands(rpc::Registry& registry, Backroom& backroom,
                             const flow::Flows& flows);

/// sluice.audit.list.
Status add_audit_command(rpc::Registry& registry);

class GuardRules;
/// sluice.breakers.list, show, force; sluice.rules.diff, reload.
Status add_guard_commands(rpc::Registry& registry, resilience::Guards& guards, GuardRules& rule_file, Clock& clock);

/// sluice.tx.wake.
Status add_wake_command(rpc::Registry& registry, const flow::Flows& flows);

}  // namespace sluice::server
